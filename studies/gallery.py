"""Grids of stamps, simulated next to real ones, to compare by eye.

Run as ``python -m studies.gallery SURVEY_DIR ZTF_DIR OUT.png``.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from astropy.io import fits
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gotorb.core import layout
from gotorb.simulate import images
from gotorb.stamps.images import paint_stamps

Array = NDArray[np.floating]
PLANES = ("IMAGE", "TEMPLATE", "DIFFERENCE")
HALF = 27
KINDS = (
    "asteroid",
    "supernova",
    "variable",
    "star_residual",
    "dipole",
    "galaxy_residual",
    "cosmic_ray",
    "hot_pixel",
    "bleed",
    "trail",
    "crosstalk",
    "spike",
)
LAYERS = ("science", "template", "difference")
Stamps = dict[str, Array]
"""Row title: stamps (n, size, size, 3) of science, template and difference."""


def cut_stamps(survey_dir: Path, kind: str, n: int) -> Array:
    """Stamps (<= n, 55, 55, 3) of the first detections of a kind, one per image where possible; NaN outside.

    Parameters
    ----------
    survey_dir : Path
        Folder of a simulated survey.
    kind : str
        Kind of truth.
    n : int
        Most stamps.
    """
    truth = pd.read_csv(survey_dir / layout.TRUTH_CSV)
    candidates = pd.read_csv(survey_dir / layout.CANDIDATES_CSV).set_index("id")
    paths = pd.read_csv(survey_dir / layout.IMAGES_CSV).set_index("id")["filepath"]
    rows = truth[truth["kind"] == kind]
    rows = (
        rows.assign(turn=rows.groupby("image_id").cumcount()).sort_values(["turn", "image_id"], kind="stable").head(n)
    )
    cut = []
    for candidate_id, image_id in zip(rows["candidate_id"], rows["image_id"], strict=True):
        place = candidates.loc[candidate_id]
        with fits.open(_stored(survey_dir, str(paths[image_id]))) as hdus:
            cut.append(np.stack([_cut(hdus[name].data, place["x"], place["y"]) for name in PLANES], axis=-1))
    return np.array(cut).reshape(-1, 2 * HALF + 1, 2 * HALF + 1, 3)


def _stored(survey_dir: Path, work_path: str) -> Path:
    tail = work_path.removeprefix(f"{images.WORK_DIR}/{images.WORK_FOLDER}/")
    return survey_dir / layout.STORAGE_DIR / images.STORED_FOLDER / tail


def _cut(plane: Array, x: float, y: float) -> Array:
    padded = np.pad(plane, HALF, constant_values=np.nan)
    row, column = round(y), round(x)
    return padded[row : row + 2 * HALF + 1, column : column + 2 * HALF + 1]


def _read_ztf(ztf_dir: Path, n: int) -> Stamps:
    """Real ZTF stamps: catalogued asteroids, and detections that both old scores call bogus."""
    meta = pd.read_csv(ztf_dir / "ztf_meta.csv", low_memory=False)
    asteroid = meta.index[meta["proxy_mp"] == 1][:n]
    bogus = meta.index[meta["proxy_label"] == 0]
    picked = {
        "ZTF asteroid": asteroid,
        "ZTF bogus": bogus[:n],
        "ZTF bogus 2": bogus[n : 2 * n],
        "ZTF bogus 3": bogus[-n:],
    }
    with h5py.File(ztf_dir / "ztf_stamps.h5") as file:
        return {title: file["stamps"][np.sort(rows.to_numpy())] for title, rows in picked.items()}


def plot_stamps(groups: Stamps, *, columns: int = 6, scale: float = 0.62) -> Figure:
    """Two groups side by side, three lines (science, template, difference) each, as all figures show stamps.

    Parameters
    ----------
    groups : dict
        Title -> stamps (n, size, size, 3).
    columns : int
        Stamps of a group.
    scale : float
        Side of a stamp [inch].
    """
    n_rows, width = 3 * -(-len(groups) // 2), 2 * columns + 1
    figure = Figure(figsize=(width * scale + 0.5, n_rows * scale), dpi=100)
    axes = figure.subplots(n_rows, width, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for axis in axes.flat:
        axis.set_axis_off()
    for group, (title, stamps) in enumerate(groups.items()):
        top, left = 3 * (group // 2), (group % 2) * (columns + 1)
        corner = axes[top][left]
        corner.text(-0.45, 0, title.replace("_", " "), transform=corner.transAxes, fontsize=6, rotation=90, va="top")
        for column, stamp in enumerate(stamps[:columns]):
            for line, picture in enumerate(paint_stamps(stamp[None], LAYERS)[0]):
                _show(axes[top + line][left + column], picture)
    return figure


def write_png(figure: Figure, path: Path, *, n_greys: int = 16) -> None:
    """Save a figure with few grey levels, which makes noise compress.

    Parameters
    ----------
    figure : Figure
        Any.
    path : Path
        Its file.
    n_greys : int
        Grey levels.
    """
    import io

    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.02)
    grey = Image.open(buffer).convert("L").quantize(n_greys, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    grey.save(path, format="PNG", optimize=True)


def _show(axis: object, picture: Array) -> None:
    axis.imshow(picture, origin="lower", interpolation="nearest")  # type: ignore[attr-defined]


def compare(survey_dir: Path, ztf_dir: Path, *, columns: int = 6) -> Figure:
    """Simulated kinds next to real ZTF asteroids and bogus detections.

    Parameters
    ----------
    survey_dir : Path
        Folder of a simulated survey.
    ztf_dir : Path
        Folder with ztf_meta.csv and ztf_stamps.h5.
    columns : int
        Stamps of a kind.
    """
    simulated = {kind: cut_stamps(survey_dir, kind, columns) for kind in KINDS}
    return plot_stamps({k: v for k, v in simulated.items() if len(v)} | _read_ztf(ztf_dir, columns), columns=columns)


if __name__ == "__main__":
    write_png(compare(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]))
