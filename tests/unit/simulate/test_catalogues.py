"""The galaxy catalogue: catsHTM's layout, and every source found again by walking its mesh."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from gotorb.core import layout
from gotorb.simulate import catalogues


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(4)
    n = 500
    ra, dec = rng.uniform(0, 2 * np.pi, n), np.arcsin(rng.uniform(-0.5, 0.5, n))
    rows = np.stack([ra, dec, rng.uniform(13, 19, n), np.full(n, 3.0), np.full(n, 100.0)], axis=1)
    folder = tmp_path_factory.mktemp("catalogues")
    catalogues.write_glade(rows, folder)
    return folder / "GLADE", rows


def unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def test_index_has_thirteen_lines_and_a_consistent_family_tree(scattered: tuple[Path, np.ndarray]) -> None:
    with h5py.File(scattered[0] / "GLADE_htm.hdf5") as file:
        index = file["GLADE_HTM"][:]
    assert index.shape == (13, 8 * (4**6 - 1) // 3)
    level, father, sons = index[0], index[1], index[2:6]
    assert np.isnan(father[:8]).all() and np.isnan(sons[:, level == 5]).all()
    for son in sons[:, :8].T.ravel():
        assert level[int(son) - 1] == 1
    assert np.nansum(index[12]) == 500


def test_sources_lie_inside_their_trixel_sorted_by_declination(scattered: tuple[Path, np.ndarray]) -> None:
    folder, rows = scattered
    with h5py.File(folder / "GLADE_htm.hdf5") as file:
        index = file["GLADE_HTM"][:]
    seen = []
    for number in np.flatnonzero(index[12] > 0) + 1:
        with h5py.File(folder / f"GLADE_htm_{number // 100 * 100:06d}.hdf5") as file:
            sources = file[f"htm_{number:06d}"][:]
            assert f"htm_{number:06d}_Ind" in file
        poles = index[6:12, number - 1].reshape(3, 2)
        assert (unit(sources[0], sources[1]) @ unit(poles[:, 0], poles[:, 1]).T > -1e-9).all()
        assert (np.diff(sources[1]) >= 0).all()
        seen.append(sources.T)
    found = np.concatenate(seen)
    assert np.allclose(found[np.argsort(found[:, 0])], rows[np.argsort(rows[:, 0])])


def test_column_names_are_readable_as_matlab_cells(scattered: tuple[Path, np.ndarray]) -> None:
    cells = loadmat(scattered[0] / "GLADE_htmColCell.mat", squeeze_me=True)
    assert [str(name) for name in cells["ColCell"]] == ["RA", "Dec", "Bmag", "Rad", "Dist"]
    assert [str(name) for name in cells["ColUnits"]][:3] == ["rad", "rad", "mag"]


def test_variables_catalogue_is_incomplete_but_holds_most(tiny_survey: Path) -> None:
    table = pd.read_csv(tiny_survey / layout.CATALOGUES_DIR / layout.VARIABLES_CSV)
    assert list(table.columns) == ["ra", "dec", "name", "type"]
    assert len(table) > 0
    assert table["name"].is_unique


def test_survey_has_bright_galaxies_to_host_synthetic_transients(tiny_survey: Path) -> None:
    from gotorb.catalogues.galaxies import find_galaxies

    image = pd.read_csv(tiny_survey / layout.IMAGES_CSV).iloc[0]
    folder = tiny_survey / layout.CATALOGUES_DIR
    found = find_galaxies(folder, image["ra_c"], image["dec_c"], radius_arcsec=400, max_mag=18.0)
    assert len(found) >= 1
