"""Look at a model's scores of an image: the front door.

Examples
--------
>>> from gotorb import visualise
>>> pages = visualise.make_pages(["r0000001_UT1-median.fits"], "models/bayesian_vgg6", "pages")  # doctest: +SKIP
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb.classifier.scored import SUMMARIES, Scored, score_block
from gotorb.classifier.scores import Scorer, load_scorer, tell_middle
from gotorb.classifier.sources import Detections, read_detections
from gotorb.core.constants import SCORE_DIGITS
from gotorb.core.files import content_states, write_csv, write_text
from gotorb.core.params import SEED, ArchiveParams, ScoreParams
from gotorb.core.settings import Settings, read_settings
from gotorb.dataset.folder import whole_folder
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.stamps.images import draw_strips
from gotorb.training.onnx import PortableModel
from gotorb.visualise.flags import FLAGS, find_flags
from gotorb.visualise.pages import posterior_path, ticks, write_page
from gotorb.visualise.why import Neighbourhood, open_neighbourhood

if TYPE_CHECKING:
    from gotorb.visualise.why import Neighbour, Reason


log = logging.getLogger(__name__)
SCORE = ScoreParams()
KEYS = ("best", "std", "confidence", "p_real", "mag", "fwhm", "snr", "realbogus", "cnn_realbogus", "doubt", "contrast")
"""Numbers by which a page sorts."""
SORTS = (
    ("best down", "score"), ("doubt up", "nearest to the threshold"), ("confidence up", "least confident"),
    ("std down", "widest posterior"), ("p-real down", "p real"), ("contrast down", "differs from the old RF score"),
    ("mag up", "magnitude"), ("fwhm up", "fwhm"), ("snr down", "S/N"), ("realbogus down", "old RF score"),
    ("cnn-realbogus down", "old CNN score"), ("name up", "id"),
)  # fmt: skip
MAX_DETECTIONS = 5000


@dataclass(frozen=True, kw_only=True)
class Look:
    """Options of the pages and of their scores.

    Attributes
    ----------
    n_samples, seed : int
        Posterior samples (0: plain scores only), and their seed.
    threshold : float, optional
        The model's own when None.
    neighbours : path, optional
        A labelled data set whose nearest rows are shown with each detection.
    saliency : bool
        True to add a Grad-CAM map to the layers.
    archive : ArchiveParams
        How to read stamp archives.
    eyeball : str
        Address of an eyeball that holds the same rows; the ids of a page lead there. Empty: no links.
    """

    n_samples: int = SCORE.n_samples
    seed: int = SEED
    threshold: float | None = SCORE.threshold
    neighbours: Path | str | None = SCORE.neighbours
    saliency: bool = SCORE.saliency
    archive: ArchiveParams = field(default_factory=ArchiveParams)
    eyeball: str = SCORE.eyeball

    def __post_init__(self) -> None:
        """Refuse an address that is none: a link may hold a script."""
        if self.eyeball and not re.fullmatch(r"https?://[\w.:\[\]-]+/?", self.eyeball):
            raise ConfigError(f"eyeball {self.eyeball!r} is no address; give http://host:port")


def make_pages(
    sources: Sequence[Path | str], model: str | Path, out_dir: Path | str, look: Look | None = None
) -> list[Path]:
    """Write a page for each source (several for a large one), an index, and csv and json for each page.

    Parameters
    ----------
    sources : sequence of path
        Images, folders of images, data sets, stamp archives or alert packets.
    model : path or str
        Model folder, ``model.h5``, ``models:/name@alias`` or an exported model.
    out_dir : path
        Where the pages go; made when absent.
    look : Look, optional
        Options of the pages.

    Returns
    -------
    list of Path
        The pages, the index last.

    Raises
    ------
    DataError
        If a source is absent, holds no detection, or does not fit the model; or if the folder holds pages of other
        sources, another model or other options.
    ModelError
        If the model cannot be read, or cannot give what is to be shown.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in make_pages(["images/visit.fits"], "models/small", folder)]
    ['visit.html', 'index.html']
    """
    look, out_dir, scorer, settings = look or Look(), Path(out_dir), load_scorer(str(model)), read_settings()
    threshold = scorer.threshold if look.threshold is None else look.threshold
    if isinstance(scorer.model, PortableModel) and (look.neighbours or look.saliency):
        raise ModelError(f"{model} is an exported model, which shows neither neighbours nor saliency; give the model")
    near = None if look.neighbours is None else open_neighbourhood(scorer, look.neighbours)
    for source in sources:
        if not Path(source).exists():
            raise DataError(f"no {source}; give images, a data set, a stamp archive or alert packets")
    recipe = {"model": (scorer.name, scorer.version), "options": asdict(look), "sources": content_states(sources)}
    recipe |= {"neighbours": content_states([look.neighbours])} if look.neighbours else {}
    with whole_folder(out_dir, recipe):
        blocks = []
        for source in map(Path, sources):
            for found in _read(source, look.archive, scorer.size):
                if found.first == 0 and (told := tell_middle(scorer, found.stamps.shape[1], source)):
                    log.info(told)
                scored = score_block(
                    scorer, found, source, n_samples=look.n_samples, seed=look.seed, threshold=threshold
                )
                block = write_block(out_dir, scored, scorer, threshold, settings=settings, near=near, look=look)
                blocks.append(block)
        if not blocks:
            raise DataError(f"no detection in {', '.join(map(str, sources))}; give other images")
        about: dict[str, Any] = {"model": scorer.name, "version": scorer.version, "threshold": threshold}
        index = write_page(out_dir / "index.html", "index", title="Scored detections", pages=blocks, **about)
    return [*(out_dir / block["file"] for block in blocks), index]


def _read(source: Path, archive: ArchiveParams, size: int) -> Iterator[Detections]:
    """Blocks of a source, as many as can be looked at."""
    shown = 0
    for found in read_detections(source, archive, size):
        if found.field is None and shown >= MAX_DETECTIONS:
            log.warning("%s: only the first %d detections are shown", source, shown)
            return
        shown += len(found)
        yield found


def write_block(
    out_dir: Path,
    scored: Scored,
    scorer: Scorer,
    threshold: float,
    *,
    settings: Settings,
    look: Look,
    near: Neighbourhood | None = None,
) -> dict[str, Any]:
    """Write one page with its csv and json.

    Parameters
    ----------
    out_dir : Path
    scored : Scored
    scorer : Scorer
    threshold : float
    settings : Settings
        Catalogues for the flags.
    look : Look
    near : Neighbourhood, optional
        Labelled rows to show next to each detection.

    Returns
    -------
    dict
        The page's line of the index.
    """
    found, table = scored.found, scored.table
    flags, planets = find_flags(found, settings)
    neighbours = near.find(scored.fitted) if near else [[] for _ in planets]
    planes, names = _planes(scored, scorer, look)
    strips = draw_strips(planes, names)
    cards = [
        _card(scored, row, flags[row], planets[row], strip=strips[row], neighbours=neighbours[row], threshold=threshold)
        for row in range(len(found))
    ]
    stem = page_name(found)
    counts = _count_calls(table)
    write_page(
        out_dir / f"{stem}.html", "visualise", title=found.name, cards=cards, planes=names, threshold=threshold,
        model=scorer.name, version=scorer.version, n_samples=0 if scored.samples is None else scored.samples.shape[1],
        sorts=SORTS, flags=FLAGS, eyeball=look.eyeball, **counts,
    )  # fmt: skip
    rows = table.assign(
        flags=["; ".join(one) for one in flags], minor_planet=planets, threshold=threshold, model_name=scorer.name,
        model_version=scorer.version,
    )  # fmt: skip
    _write_rows(out_dir / stem, rows)
    return {"file": f"{stem}.html", "csv": f"{stem}.csv", "json": f"{stem}.json", "name": stem, "n": len(table),
            "median": float(table["best"].median()), **counts}  # fmt: skip


def _count_calls(table: pd.DataFrame) -> dict[str, Any]:
    """Detections called real and bogus, and those that are unsure."""
    n_real = int(table["called_real"].sum())
    return {"n_real": n_real, "n_bogus": len(table) - n_real, "n_uncertain": int(table["uncertain"].sum())}


def page_name(found: Detections) -> str:
    """Name of a block's files: its source's name in letters that are safe in a path and in a link.

    Parameters
    ----------
    found : Detections

    Returns
    -------
    str
        Without suffix.
    """
    stem = re.sub(r"\.(fits|fit|avro|h5)(\.\w+)?$", "", found.name)
    stem = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII).strip("._-") or "page"
    return stem if found.first == 0 else f"{stem}-{found.first}"


def _write_rows(stem: Path, rows: pd.DataFrame) -> None:
    """Write rows as csv and json."""
    rows = rows.assign(called_real=rows["called_real"].astype(int), uncertain=rows["uncertain"].astype(int))
    rows = rows.round(dict.fromkeys(SUMMARIES, SCORE_DIGITS))
    write_csv(stem.with_name(f"{stem.name}.csv"), rows, inert=True)
    records = rows.astype(object).where(rows.notna(), None).to_dict(orient="records")
    write_text(stem.with_name(f"{stem.name}.json"), json.dumps(records, indent=1, allow_nan=False) + "\n")


def _planes(scored: Scored, scorer: Scorer, look: Look) -> tuple[np.ndarray, list[str]]:
    """Everything to be seen of each detection: layers, single exposures, saliency."""
    found = scored.found
    parts, names = [found.stamps, found.exposures], list(found.layers)
    names += [f"exp {number + 1}" for number in range(found.exposures.shape[-1])]
    if look.saliency:
        from gotorb.training.inference import saliency_maps

        maps = np.zeros(found.stamps.shape[:3], np.float32)
        edge = (found.stamps.shape[1] - scorer.size) // 2
        maps[:, edge : edge + scorer.size, edge : edge + scorer.size] = saliency_maps(scorer.model, scored.fitted)
        parts, names = [*parts, maps[..., None]], [*names, "saliency"]
    return np.concatenate(parts, axis=-1), names


def _card(
    scored: Scored, row: int, flags: list[str], planet: str, *, strip: str, neighbours: list[Neighbour],
    threshold: float,
) -> dict[str, Any]:  # fmt: skip
    """Values of one detection for the template."""
    known = scored.table.iloc[row].to_dict()
    samples = None if scored.samples is None else scored.samples[row]
    old = known["realbogus"]
    ranks = known | {"doubt": abs(known["best"] - threshold), "contrast": abs(known["best"] - old)}
    tag = str(known["metalabel"])
    return known | {
        "kind": "real" if known["called_real"] else "bogus", "flags": flags, "planet": planet, "strip": strip,
        "neighbours": neighbours, "rf": old, "cnn": known["cnn_realbogus"], "tag": tag,
        "path": "" if samples is None else posterior_path(samples), "ticks": "" if samples is None else ticks(samples),
        "ranks": {key.replace("_", "-"): "" if ranks[key] != ranks[key] else f"{ranks[key]:.6g}" for key in KEYS},
        "words": " ".join(str(one) for one in (known["id"], tag, known["object_id"], planet)),
    }  # fmt: skip


def write_reasons(reasons: Sequence[Reason], path: Path | str) -> Path:
    """Write reasons of `visualise.why.explain` as a self-contained page.

    Parameters
    ----------
    reasons : sequence of Reason
    path : path

    Returns
    -------
    Path
    """
    first = reasons[0]
    shown = []
    for one in reasons:
        planes, names = _planes(one.scored, one.scorer, Look(saliency=not isinstance(one.scorer.model, PortableModel)))
        card = _card(
            one.scored, 0, one.flags, "", strip=draw_strips(planes, names)[0], neighbours=[], threshold=one.threshold
        )
        shown.append(
            {"card": card, "planes": names, "neighbours": one.neighbours, "slices": one.slices, "others": one.others}
        )
    return write_page(
        Path(path), "why", title=f"Why {first.scored.table['id'].iloc[0]}", reasons=shown, model=first.scorer.name,
        version=first.scorer.version, threshold=first.threshold,
    )  # fmt: skip
