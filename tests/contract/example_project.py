"""The folder in which the examples of docstrings run: a data set, an image with its catalogues, a truth table.

Ceres is in the middle of the image, next to two galaxies; five other detections are artefacts. Everything is made of
numbers that are given here, so that the examples print the same everywhere.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb.catalogues.galaxies import write_glade
from gotorb.catalogues.minor_planets import Field, Pympc
from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.eyeball.decisions import Event, Journal
from gotorb.training.model_files import write_training
from tests.unit.streams.kafka import ztf

PLANETS = Path(__file__).parents[1] / "unit" / "catalogues" / "xephem_four.csv"
JD = 2_457_804.5
OBSERVATORY = (342.1176, 0.877701, 0.478556)
NEAR_CERES = Field(25.0, 3.0, 30.0, JD - 2_400_000.5)
SIDE, SCALE_DEG = 101, 1.24 / 3600
JUNK = ((20, 30), (80, 25), (35, 75), (70, 60), (88, 88))
"""x, y of the artefacts."""
N_ROWS, SIZE = 20, 21
LAYERS = ("science", "template", "difference", "ptp")
"""Of the network."""


def make_project(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Fill a folder, go there, and let settings name its catalogues."""
    catalogues = root / "catalogues"
    catalogues.mkdir()
    (catalogues / "planets.csv").write_bytes(PLANETS.read_bytes())
    planets = Pympc(str(catalogues / "planets.csv"), OBSERVATORY).find(NEAR_CERES)
    ra, dec = planets.set_index("name").loc["Ceres", ["ra", "dec"]]
    write_catalogues(catalogues, ra, dec)
    (root / "images").mkdir()
    write_image(root / "images", ra, dec)
    write_rows(root / "data" / "dataset")
    write_decisions(root / "data" / "dataset")
    write_injected(root / "data" / "injected")
    write_network(root / "models" / "small", root / "data" / "dataset")
    write_survey(root / "survey")
    (root / "packets").mkdir()
    for number in (1, 2):
        (root / "packets" / f"{number}.avro").write_bytes(ztf(number))
    settings = {
        "DVC_ROOT": root, "GOTORB_MPC_CATALOGUE": "catalogues/planets.csv", "CATSHTM_DIR": "catalogues",
        "GOTOPHOTO_STORAGEDIR": root, "GOTORB_CACHE_DIR": root / "cache", "GOTORB_ADAPTER": "",
        "GOTORB_OBSERVATORY": ",".join(map(str, OBSERVATORY)),
    }  # fmt: skip
    for name, value in settings.items():
        patch.setenv(name, str(value))
    patch.chdir(root)


def write_catalogues(folder: Path, ra: float, dec: float) -> None:
    """Two galaxies, 20 and 30 arcsec from a position, and one variable star 25 arcsec from it."""
    arcsec = 1 / 3600
    place = np.radians([[ra + 20 * arcsec, dec], [ra, dec - 30 * arcsec]])
    write_glade(np.column_stack([place, [16.0, 17.5], [np.nan, np.nan], [40.0, 90.0]]), folder)
    pd.DataFrame({"ra": [ra - 25 * arcsec], "dec": [dec]}).to_csv(folder / "variables.csv", index=False)


def write_image(folder: Path, ra: float, dec: float) -> None:
    """An image in GOTO's layout, centred on a position, and its two exposures."""
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec})
    header.update({"CRPIX1": SIDE / 2 + 0.5, "CRPIX2": SIDE / 2 + 0.5, "CD1_1": -SCALE_DEG, "CD2_2": SCALE_DEG})
    header.update({"CD1_2": 0.0, "CD2_1": 0.0, "JD": JD, "INSTRUME": "UT1", "NCOADD": 2})
    header.update({"COADD1": "images/visit_1.fits", "COADD2": "images/visit_2.fits"})
    rng = np.random.default_rng(1)
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    planet = 400 * np.exp(-(x**2 + y**2) / 8)
    template = rng.normal(0, 3, (SIDE, SIDE)).astype(np.float32)
    science = (template + planet + rng.normal(0, 3, (SIDE, SIDE))).astype(np.float32)
    for column, row in JUNK:
        science[row, column] += 300
    planes = {"IMAGE": science, "TEMPLATE": template, "DIFFERENCE": science - template}
    places = np.array([(SIDE // 2, SIDE // 2), *JUNK], float)
    table = {"x": places[:, 0], "y": places[:, 1], "mag": np.array([9.0, *[18.0] * len(JUNK)])}
    table |= {"fwhm": np.full(len(places), 4.7), "snr": np.full(len(places), 30.0), "id": np.arange(1, len(places) + 1)}
    hdus = [fits.ImageHDU(plane, header, name) for name, plane in planes.items()]
    columns = [fits.Column(name, "K" if name == "id" else "D", array=values) for name, values in table.items()]
    hdus.append(fits.BinTableHDU.from_columns(columns, name="PHOTOMETRY_DIFF"))
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / "visit.fits")
    for number in (1, 2):
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(science, header, "IMAGE")]).writeto(
            folder / f"visit_{number}.fits"
        )


def write_rows(folder: Path) -> None:
    """Twenty rows, every other one real: a round source; the bogus ones are hot pixels."""
    number = np.arange(N_ROWS)
    labels = number % 2
    table = pd.DataFrame(index=number, columns=list(layout.LABEL_COLUMNS)).assign(
        id=[f"row-{row:02d}" for row in number],
        candidate_id=[str(9000 + row) for row in number],
        image_id=[f"image-{row % 4}" for row in number],
        x=50.0, y=50.0, ra=150 + number / 100, dec=2.0, jd=JD, ut="1", ncoadd=2, n_seen=2, fwhm=4.7, snr=30.0,
        mag=16 + number / 10.0, realbogus=np.round(0.3 + 0.4 * labels + number / 100, 2), cnn_realbogus=0.5,
        label=labels,
        metalabel=np.where(labels == 1, "mp", "randjunk"),
        number=np.where(labels == 1, [f"planet {row}" for row in number], ""),
        object_id=np.where(labels == 1, [f"mp:planet {row}" for row in number], ""),
        host_id="", rule="", catalogue="", missing_fraction=0.0,
        split=np.select([number >= 16, number >= 12], ["test", "validation"], "train"),
    )  # fmt: skip
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    source = np.where(labels[:, None, None] == 1, np.exp(-(x**2 + y**2) / 8), (x == 0) & (y == 0))
    noise = np.random.default_rng(4).normal(0, 3, (N_ROWS, SIZE, SIZE, 6))
    shown = np.array([1, 0, 1, 0.1, 1, 1])
    write_dataset(folder, table, [(noise + 100 * source[..., None] * shown).astype(np.float32)])


def write_decisions(data_dir: Path) -> None:
    """Two annotators' decisions on four rows; they differ on the last."""
    said = {"ann": ("bogus", "real", "bogus", "real"), "bob": ("bogus", "real", "bogus", "bogus")}
    events = [
        Event(uuid=f"{who}-{row}", labeller=who, id=f"row-{row:02d}", kind=kind)
        for who, kinds in said.items()
        for row, kind in enumerate(kinds)
    ]
    Journal(data_dir / "eyeball.sqlite").append(events)


def write_injected(folder: Path) -> None:
    """The real stamps of the data set as injected sources, half of them near the core of a galaxy."""
    real = open_dataset(folder.parent / "dataset").table.query("label == 1").reset_index(drop=True)
    stamps = open_dataset(folder.parent / "dataset").read_stamps(np.arange(1, N_ROWS, 2))
    offsets = np.where(real.index % 2, 0.5, np.nan)
    write_dataset(folder, real.assign(metalabel=layout.INJECTED, host_offset_arcsec=offsets), [stamps])


def write_network(folder: Path, data_dir: Path) -> None:
    """A network that needs no training: it tells the light near the middle, of which it drops a tenth at random."""
    import keras

    stamps = keras.Input((SIZE, SIZE, len(LAYERS)), name="stamps")
    dense = keras.layers.Dense(1, activation="sigmoid", name="score")
    kept = keras.layers.Dropout(0.1, name="drop")(keras.layers.Flatten(name="latent")(stamps))
    model = keras.Model(stamps, dense(kept), name="small")
    inside = np.abs(np.arange(SIZE) - SIZE // 2) <= 2
    weights = np.multiply.outer(np.outer(inside, inside), np.ones(len(LAYERS))).reshape(-1, 1)
    dense.set_weights([weights / weights.sum() / 4, np.full(1, -4.0)])
    split = open_dataset(data_dir).table.groupby("split")["id"].apply(lambda ids: ids.to_numpy(str))
    meta = {"model": "small", "layers": list(LAYERS), "threshold": 0.5, "data_digest": data_digest(data_dir)}
    meta |= {"split": split.to_dict(), "data_dir": "../../data/dataset", "best_epoch": 1}
    meta |= {"history": {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}}
    folder.mkdir(parents=True)
    write_training(folder, model, meta)


def write_survey(folder: Path) -> None:
    """Truth, candidates and images of a simulated survey, as far as the examples need them."""
    folder.mkdir()
    ids = [str(9000 + row) for row in range(N_ROWS)]
    kinds = ["artefact" if row % 2 == 0 else "minor_planet" for row in range(N_ROWS)]
    kinds[4] = "supernova"
    truth = pd.DataFrame({"candidate_id": ids, "kind": kinds, "name": [f"source {row}" for row in range(N_ROWS)]})
    truth = truth.assign(true_mag=18.0, image_id=[f"image-{row % 4}" for row in range(N_ROWS)])
    truth["is_real"] = [int(kind != "artefact") for kind in kinds]
    truth.to_csv(folder / layout.TRUTH_CSV, index=False)
    candidates = pd.DataFrame({"id": ids, "ra": 150 + np.arange(N_ROWS) / 100, "dec": 2.0})
    candidates.to_csv(folder / layout.CANDIDATES_CSV, index=False)
    pd.DataFrame({"id": [f"image-{number}" for number in range(4)], "jd": JD}).to_csv(
        folder / layout.IMAGES_CSV, index=False
    )
