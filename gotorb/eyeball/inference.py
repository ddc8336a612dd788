"""Model scores of all rows of a data set: read from an evaluation, or computed in a process of its own and cached."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.classifier.scores import Scorer, fit_stamps, load_scorer, tell_middle
from gotorb.core import layout
from gotorb.core.files import file_digest, whole_file
from gotorb.core.params import BATCH_SIZE
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset, open_dataset, read_csv
from gotorb.errors import DataError, GotorbError, ModelError
from gotorb.evaluation.latent import make_maps, principal_axes
from gotorb.evaluation.posterior import summarise_samples
from gotorb.training.onnx import PortableModel

log = logging.getLogger(__name__)
SCORE_COLUMNS = ("score", "mean", "std", "p_real", "confidence", "bald")


@dataclass(frozen=True, kw_only=True)
class Opinions:
    """Scores of a model for n rows.

    Attributes
    ----------
    name : str
        Name of the model; "" without one.
    table : DataFrame
        (n,) the columns of SCORE_COLUMNS that are known; score is the mean of the posterior where there is one.
    samples : ndarray or None
        (n, n_samples) posterior samples.
    places : dict of str to ndarray
        Maps of the latent space by name, (n, 2) each; empty without a model.
    vectors : ndarray or None
        (n, n_components) principal components of the latent vectors.
    threshold : float or None
        Score at or above which the model calls a row real.
    calibrated : bool
        True where confidence is the calibrated probability that the model's call is right.
    """

    name: str
    table: pd.DataFrame
    samples: np.ndarray | None = None
    places: dict[str, np.ndarray] | None = None
    vectors: np.ndarray | None = None
    threshold: float | None = None
    calibrated: bool = False


def no_opinion(n: int) -> Opinions:
    """Empty opinions, without a model.

    Parameters
    ----------
    n : int
        Number of rows.

    Returns
    -------
    Opinions
    """
    return Opinions(name="", table=pd.DataFrame(index=range(n)))


def read_predictions(path: Path, ids: pd.Series) -> Opinions:
    """Scores of a predictions.csv, joined by id.

    Parameters
    ----------
    path : Path
    ids : Series
        (n,) ids of the rows; rows that are missing in the csv stay without scores.

    Returns
    -------
    Opinions

    Raises
    ------
    DataError
        If the columns id and score are missing, or none of the rows is in it.
    """
    try:
        found = read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as csv ({str(error).strip()}); give an evaluation's file") from None
    if not {"id", "score"} <= set(found):
        raise DataError(f"no id and score in {path} (has {', '.join(found.columns)}); give an evaluation's file")
    table = found.drop_duplicates("id").set_index("id").reindex(ids)
    if table["score"].isna().all():
        raise DataError(f"{path} knows none of the {len(ids)} rows; give predictions of this data set")
    table = table[[name for name in SCORE_COLUMNS if name in table]].reset_index(drop=True)
    if "mean" in table:
        table["score"] = table["mean"].fillna(table["score"])
    return Opinions(name=path.resolve().parent.name, table=table, threshold=_evaluated_threshold(path.parent))


def _evaluated_threshold(folder: Path) -> float | None:
    """Threshold of an evaluation's metrics; None without them."""
    try:
        known = json.loads((folder / layout.METRICS_JSON).read_text(encoding="utf-8"))
        return float(known["threshold"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_predictions(data_dir: Path) -> Path | None:
    """Latest predictions of a model in the data set's folder.

    Parameters
    ----------
    data_dir : Path

    Returns
    -------
    Path or None
    """
    found = sorted(data_dir.glob(f"*/{layout.PREDICTIONS_CSV}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def ask_model(model: str, data_dir: Path, *, n_samples: int, seed: int) -> Opinions:
    """Run a model on all rows, or read the kept answers for the same bytes.

    Parameters
    ----------
    model : str
    data_dir : Path
    n_samples, seed : int

    Returns
    -------
    Opinions

    Raises
    ------
    ModelError
        If the model cannot be loaded or does not fit the rows.
    """
    path = kept_path(data_dir, model, n_samples, seed)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        words = (model, str(data_dir), str(path), str(n_samples), str(seed))
        if told := _run_python("-m", "gotorb.eyeball.inference", *words):
            log.info(told)
    return _read_opinions(path, Path(model).name if Path(model).exists() else model)


def kept_path(data_dir: Path, model: str, n_samples: int, seed: int) -> Path:
    """Path of the kept answers of a model, named by the digests of model and data.

    Parameters
    ----------
    data_dir : Path
    model : str
        Folder, file or registry address.
    n_samples, seed : int

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If a registered model cannot be loaded.
    """
    file = Path(model) / layout.MODEL_H5 if Path(model).is_dir() else Path(model)
    digest = file_digest(file) if file.is_file() else _registered_digest(model)
    name = f"answers_{digest[:16]}_{data_digest(data_dir)[:16]}_{n_samples}_{seed}.npz"
    return data_dir / layout.EYEBALL_CACHE / name


def _registered_digest(model: str) -> str:
    """The md5 of a registered model, asked in a process of its own since the registry's client is large."""
    code = "import sys; from gotorb.models import find_model; print(find_model(sys.argv[1]).digest)"
    return _run_python("-c", code, model).split()[-1].partition(":")[2]


def _run_python(*words: str) -> str:
    """Output of a Python of its own; the last line of its errors is the message of ours."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        (*_, last) = done.stderr.strip().splitlines() or ["the process was killed; free memory and try again"]
        raise ModelError(last.removeprefix("gotorb.errors.ModelError: "))
    return done.stdout.strip()


def write_opinions(
    path: Path, *, score: np.ndarray, samples: np.ndarray | None, places: dict[str, np.ndarray], vectors: np.ndarray,
    threshold: float | None = None, probability: np.ndarray | None = None,
) -> Path:  # fmt: skip
    """Keep a model's answers, whole or not at all.

    Parameters
    ----------
    path : Path
    score : ndarray
        (n,).
    samples : ndarray or None
        (n, n_samples).
    places : dict of ndarray
        (n, 2) maps by name.
    vectors : ndarray
        (n, n_components).
    threshold : float, optional
        Score at or above which the model calls a row real.
    probability : ndarray, optional
        (n,) calibrated probabilities of being real.

    Returns
    -------
    Path
    """
    kept: dict[str, Any] = {f"map_{name}": values.astype(np.float32) for name, values in places.items()}
    kept |= {} if samples is None else {"samples": samples.astype(np.float16)}
    kept |= {"score": score.astype(np.float32), "vectors": vectors.astype(np.float32)}
    kept |= {} if threshold is None else {"threshold": np.float64(threshold)}
    kept |= {} if probability is None else {"probability": probability.astype(np.float32)}
    with whole_file(path) as aside:
        np.savez(aside, **kept)
    return path


def _read_opinions(path: Path, name: str) -> Opinions:
    """Read answers that `write_opinions` kept."""
    with np.load(path, allow_pickle=False) as kept:
        score, vectors = kept["score"], kept["vectors"]
        samples, probability = kept.get("samples"), kept.get("probability")
        threshold = float(kept["threshold"]) if "threshold" in kept else None
        places = {key.removeprefix("map_"): kept[key] for key in kept.files if key.startswith("map_")}
    table = pd.DataFrame({"score": score.astype(float)})
    if samples is not None:
        summary = summarise_samples(samples.astype(np.float32))
        table = table.assign(**{key: getattr(summary, key) for key in SCORE_COLUMNS[1:]}, score=summary.mean)
    if probability is not None and threshold is not None:
        p = probability.astype(float)
        table = table.assign(confidence=np.where(table["score"] >= threshold, p, 1 - p))
    return Opinions(
        name=name, table=table, samples=samples, places=places, vectors=vectors, threshold=threshold,
        calibrated=probability is not None,
    )  # fmt: skip


N_COMPONENTS = 30


def run_model(model: str, data_dir: Path, out_path: Path, *, n_samples: int, seed: int) -> Path:
    """Score every row with a model and keep the answers; the latent vectors are held on disk, not in memory.

    Parameters
    ----------
    model : str
    data_dir, out_path : Path
    n_samples, seed : int

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If the model cannot be loaded, nothing names its layers, or it is an exported one.
    DataError
        If the stamps do not fit the model; of larger ones it takes the middle, with a note on stdout.
    """
    from gotorb.training.inference import CompiledModel, latent_vectors

    scorer, data = load_scorer(model), open_dataset(data_dir)
    if isinstance(scorer.model, PortableModel):
        raise ModelError(f"{model} is an exported model, which has no posterior and no map; give the model itself")
    compiled = CompiledModel(scorer.model)
    score = compiled.score(_blocks(scorer, data))
    samples = compiled.sample(_blocks(scorer, data), n_samples, seed=seed) if compiled.has_posterior else None
    with tempfile.TemporaryDirectory(dir=out_path.parent) as folder:
        first = latent_vectors(scorer.model, _blocks(scorer, data, np.array([0])))
        vectors = np.memmap(Path(folder) / "vectors", np.float32, "w+", shape=(len(data), first.shape[1]))
        for start in range(0, len(data), BATCH_SIZE * 16):
            rows = np.arange(start, min(start + BATCH_SIZE * 16, len(data)))
            vectors[rows] = latent_vectors(scorer.model, _blocks(scorer, data, rows))
        mean, axes = principal_axes(vectors, n_components=N_COMPONENTS)
        components = np.concatenate([(vectors[at : at + 4096] - mean) @ axes for at in range(0, len(data), 4096)])
        del vectors
    print(tell_middle(scorer, data.size, data_dir))
    return write_opinions(
        out_path, score=score, samples=samples, places=make_maps(components, seed=seed), vectors=components,
        threshold=scorer.threshold,
        probability=scorer.probability(score if samples is None else samples.mean(axis=1, dtype=float)),
    )  # fmt: skip


def _blocks(scorer: Scorer, data: Dataset, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    for _, stamps in data.batches(rows, batch=BATCH_SIZE):
        yield fit_stamps(scorer, stamps, data.layers, data.data_dir)


def main() -> int:
    """Run on the arguments; an error is one line."""
    model, data_dir, out_path, n_samples, seed = sys.argv[1:]
    try:
        run_model(model, Path(data_dir), Path(out_path), n_samples=int(n_samples), seed=int(seed))
    except GotorbError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
