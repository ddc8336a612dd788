"""The embedded survey as a whole: fields in parallel worker processes, tables, catalogues and truth on disk."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from gotorb.core import layout
from gotorb.core.executor import Executor, Workers
from gotorb.core.files import write_csv
from gotorb.core.params import SurveyParams
from gotorb.core.settings import LA_PALMA
from gotorb.errors import ConfigError, SurveyError
from gotorb.simulate import catalogues, images, plan
from gotorb.simulate.detection import Detections, Scorers, train_scorers
from gotorb.simulate.orbits import Elements
from gotorb.simulate.plan import Field
from gotorb.simulate.scene import make_scene
from gotorb.simulate.visit import make_setup, run_visit

OUTPUTS = (layout.STORAGE_DIR, layout.CATALOGUES_DIR, layout.IMAGES_CSV, layout.CANDIDATES_CSV, layout.TRUTH_CSV)
BAD_QUALITY_CHANCE = 0.05
QUALITY_STREAM = 12


@dataclass(frozen=True, kw_only=True)
class SurveySummary:
    """Result of `make_survey`.

    Attributes
    ----------
    n_fields, n_visits, n_images, n_candidates, n_real : int
        Fields asked for, visits written, rows of `image`, rows of `candidate`, detections of real changes.
    kinds : dict
        Number of detections of each kind of truth.
    skipped : tuple of str
        One line for each visit that could not be made.
    """

    n_fields: int
    n_visits: int
    n_images: int
    n_candidates: int
    n_real: int
    kinds: dict[str, int]
    skipped: tuple[str, ...]


class Task(NamedTuple):
    """Work for one process: one field with its true asteroids; without scorers and folder it is for training."""

    field: Field
    asteroids: Elements
    seed: int
    scorers: Scorers | None = None
    out_dir: Path | None = None


class FieldRows(NamedTuple):
    """Table rows of one field, and the visits skipped."""

    images: pd.DataFrame
    candidates: pd.DataFrame
    truth: pd.DataFrame
    skipped: list[str]


def make_survey(
    out_dir: Path, params: SurveyParams, *, seed: int, catalogue: Path | str | None = None
) -> SurveySummary:
    """Make a survey: images, tables, catalogues and, apart from them, the truth.

    Parameters
    ----------
    out_dir : Path
        New, empty, or holding an earlier survey, which is replaced.
    params : SurveyParams
        Section `survey` of params.yaml. Every byte written depends on it, on the seed and on the catalogue only, not on
        `n_processes`.
    seed : int
        Of everything random.
    catalogue : path, optional
        XEphem csv of real minor planets; a generated main belt otherwise.

    Returns
    -------
    SurveySummary

    Raises
    ------
    ConfigError
        If `out_dir` holds other things or the fields do not fit on the sky.
    SurveyError
        If no visit could be made.
    """
    out_dir = Path(out_dir)
    fields = plan.plan_survey(params, seed)
    known, chosen = _asteroids(fields, params, seed, catalogue)
    _clear(out_dir)
    with Executor(Workers(params.n_processes)) as executor:
        scorers = _train(params, seed, executor)
        tasks = []
        for field, near in zip(fields, chosen, strict=True):  # true orbits: a fraction of an arcsec off along them
            true = catalogues.nudge(known.take(near), plan.stream(seed, field.index, plan.ORBIT))
            tasks.append(Task(field, true, seed, scorers, out_dir))
        results = executor.map(_run_field, tasks, crashed=_crashed, title="fields", unit="field")
    rows = _join(results)
    if rows.images.empty:
        raise SurveyError(f"no visit of {len(fields)} fields could be made; the first: {rows.skipped[0]}")
    catalogues.write_catalogues(out_dir, fields, known, seed)
    for name, table in zip((layout.IMAGES_CSV, layout.CANDIDATES_CSV, layout.TRUTH_CSV), rows[:3], strict=True):
        write_csv(out_dir / name, table)
    return _summary(len(fields), rows)


def _asteroids(
    fields: list[Field], params: SurveyParams, seed: int, catalogue: Path | str | None
) -> tuple[Elements, list[np.ndarray]]:
    """The catalogue near the survey, and its rows in each field."""
    if catalogue is None:
        known = catalogues.generate_asteroids(fields, params, seed, LA_PALMA)
    else:
        everything = catalogues.read_xephem(Path(catalogue))
        known = everything.take(catalogues.choose_asteroids(everything, fields, LA_PALMA)[1])
    return known, catalogues.choose_asteroids(known, fields, LA_PALMA)[0]


def _clear(out_dir: Path) -> None:
    """Remove an earlier survey; refuse to touch anything else."""
    if out_dir.exists():
        others = sorted(
            path.name for path in out_dir.iterdir() if path.name not in OUTPUTS and path.name != ".gitignore"
        )
        if not out_dir.is_dir() or others:
            raise ConfigError(
                f"{out_dir} holds other files ({', '.join(others[:3])}); name a new or empty folder for the survey"
            )
        for name in OUTPUTS:
            path = out_dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)


def _crashed(task: Task) -> NoReturn:
    raise SurveyError(
        f"worker processes died while simulating field {task.field.index}, perhaps out of memory; "
        "lower survey.n_processes"
    )


def _train(params: SurveyParams, seed: int, executor: Executor) -> Scorers:
    """Train the old scores on fields of their own."""
    fields = plan.plan_training(params, seed)
    known = catalogues.generate_asteroids(
        fields, params.model_copy(update={"n_asteroids": max(45, params.n_asteroids)}), seed, LA_PALMA
    )
    rows = catalogues.choose_asteroids(known, fields, LA_PALMA)[0]
    tasks = [Task(field, known.take(own), seed) for field, own in zip(fields, rows, strict=True)]
    samples = [sample for samples in executor.map(_sample_field, tasks, crashed=_crashed) for sample in samples]
    with threadpool_limits(1):
        return train_scorers(samples, seed)


def _sample_field(task: Task) -> list[tuple[Detections, np.ndarray]]:
    """Detections of a training field with their truth, visit by visit; visits that fail are left out."""
    samples = []
    with threadpool_limits(1):
        setup = make_setup(make_scene(task.field, task.asteroids, task.seed, LA_PALMA))
        for visit in task.field.visits:
            try:
                result = run_visit(setup, visit)
            except SurveyError:
                continue
            samples.append((result.detections, result.truth["is_real"].to_numpy()))
    return samples


def _run_field(task: Task) -> FieldRows:
    """Make and write every visit of a field; a visit that fails is skipped with its reason."""
    parts: list[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]] = []
    skipped = []
    with threadpool_limits(1):
        setup = make_setup(make_scene(task.field, task.asteroids, task.seed, LA_PALMA))
        for visit in task.field.visits:
            try:
                parts.append(_write_visit(task, run_visit(setup, visit)))
            except SurveyError as error:
                skipped.append(f"field {visit.field} visit {visit.number}: {error}")
    tables = [pd.concat(column, ignore_index=True) for column in zip(*parts, strict=True)] or [pd.DataFrame()] * 3
    return FieldRows(tables[0], tables[1], tables[2], skipped)


def _write_visit(task: Task, result: Any) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    assert task.scorers is not None and task.out_dir is not None
    scores = task.scorers.score(result.detections)
    images.write_visit(task.out_dir, task.field, result, scores)
    rng = plan.stream(task.seed, task.field.index, QUALITY_STREAM, result.visit.number)
    quality = int(rng.integers(128, 600) if rng.random() < BAD_QUALITY_CHANCE else rng.integers(0, 64))
    return (
        images.image_rows(task.field, result, quality),
        images.candidate_rows(result, scores),
        images.truth_rows(result),
    )


def _join(results: list[FieldRows]) -> FieldRows:
    tables = [pd.concat([result[k] for result in results], ignore_index=True) for k in range(3)]
    return FieldRows(tables[0], tables[1], tables[2], [line for result in results for line in result.skipped])


def _summary(n_fields: int, rows: FieldRows) -> SurveySummary:
    kinds = rows.truth["kind"].value_counts().sort_index()
    return SurveySummary(
        n_fields=n_fields,
        n_visits=int((rows.images["image_type"] == "DIFFERENCE").sum()),
        n_images=len(rows.images),
        n_candidates=len(rows.candidates),
        n_real=int(rows.truth["is_real"].sum()),
        kinds={str(kind): int(n) for kind, n in kinds.items()},
        skipped=tuple(rows.skipped),
    )
