"""Comparison of labels and models with the truth of a simulated survey, and of detections with TNS objects.

Only this module reads the truth. Models are evaluated on all detections of the held-out images, labelled or not, as in
a real night. Objects of the Transient Name Server (TNS) are matched to scored detections by position.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import find_nearest
from gotorb.core import layout
from gotorb.core.executor import Workers
from gotorb.core.params import SEED, EvaluateParams, LabelParams
from gotorb.core.settings import read_settings
from gotorb.dataset.store import open_dataset, read_table, run_folder
from gotorb.errors import DataError
from gotorb.evaluation.comparison import roc_comparison
from gotorb.evaluation.evaluate import load_with_meta, score_rows
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import CLEAR_SNR, FPRS, fpr_name, measure_scores, rounded
from gotorb.evaluation.report import OLD_SCORES
from gotorb.evaluation.thresholds import choose_threshold, find_balance, measure_errors
from gotorb.labels.image import LabelOptions, cut_detections
from gotorb.labels.jobs import make_shards, read_images

EVALUATE, LABEL = EvaluateParams(), LabelParams()
TNS_RADIUS_ARCSEC = 2.0
TNS_COLUMNS = {
    "name": "name", "ra": "ra", "declination": "dec", "type": "type", "discoverydate": "discovery_date",
    "discoverymag": "mag",
}  # fmt: skip
"""Column of TNS's public csv -> our name."""
SCORE_COLUMNS = ("candidate_id", "image_id", "kind", "is_real", "mag", "snr")


class TruthTest(NamedTuple):
    """Results of models on detections whose truth is known.

    Attributes
    ----------
    report : dict
        n_images, n_detections, kinds; for each model and old score its metrics; for each model also the comparison with
        the old random forest at fixed false-positive rates, and the errors of clear detections.
    scores : DataFrame
        All detections: `SCORE_COLUMNS`, and a column of scores for each model.
    """

    report: dict[str, Any]
    scores: pd.DataFrame


def read_truth(survey_dir: Path) -> pd.DataFrame:
    """Read the true nature of each candidate of a simulated survey.

    Parameters
    ----------
    survey_dir : Path
        Folder of the simulated survey.

    Returns
    -------
    DataFrame
        candidate_id, kind, is_real and more.

    Examples
    --------
    >>> read_truth(Path("survey"))["kind"].value_counts().to_dict()
    {'minor_planet': 10, 'artefact': 9, 'supernova': 1}
    """
    return pd.read_csv(Path(survey_dir) / layout.TRUTH_CSV, dtype={"candidate_id": str})


def check_labels(data_dir: Path, survey_dir: Path) -> dict[str, Any]:
    """Measure the purity of a data set's labels.

    Parameters
    ----------
    data_dir : Path
        Folder of the data set.
    survey_dir : Path
        Folder of the simulated survey that it was made from.

    Returns
    -------
    dict
        For each metalabel: n, n_right, purity, low, high (95 % Wilson), kinds (counts of true kinds).

    Examples
    --------
    >>> found = check_labels(Path("data/dataset"), Path("survey"))
    >>> found["randjunk"]["n"], found["randjunk"]["n_right"]  # one is a supernova
    (10, 9)
    """
    return _measure_purity(join_truth(read_table(data_dir), read_truth(survey_dir)))


def evaluate_on_truth(
    model_dirs: Sequence[Path],
    detections_dir: Path,
    survey_dir: Path,
    *,
    n_samples: int = EVALUATE.n_samples,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    seed: int = SEED,
) -> TruthTest:
    """Evaluate models and the survey's old scores on all detections of the held-out images, against the truth.

    Parameters
    ----------
    model_dirs : sequence of Path
        Folders of trained models.
    detections_dir : Path
        Detections of images that no model was trained on, from `cut_images`.
    survey_dir : Path
        Folder of their simulated survey.
    n_samples, n_bootstrap, seed
        Posterior samples, resamples of intervals, and seed of both.

    Returns
    -------
    TruthTest

    Examples
    --------
    >>> test = evaluate_on_truth(
    ...     [Path("models/small")], Path("data/dataset"), Path("survey"), n_samples=2, n_bootstrap=20, seed=1
    ... )
    >>> test.report["n_detections"], sorted(test.report["models"])
    (20, ['small'])
    """
    data = open_dataset(detections_dir)
    rows = join_truth(data.table, read_truth(survey_dir))
    rows = rows.assign(label=rows["is_real"], metalabel=rows["kind"])
    report: dict[str, Any] = {"n_images": int(rows["image_id"].nunique()), "n_detections": len(rows)}
    report["kinds"] = {kind: int(count) for kind, count in rows["kind"].value_counts().sort_index().items()}
    report["old_scores"] = {
        name: measure_scores(
            rows.assign(score=rows[name]), 0.5, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed)
        )
        for name in OLD_SCORES
    }
    scores = rows[list(SCORE_COLUMNS)]
    report["models"] = {}
    for model_dir in model_dirs:
        name, (model, meta) = Path(model_dir).name, load_with_meta(model_dir)
        found = score_rows(model, meta, data, n_samples=n_samples, seed=seed)
        report["models"][name] = _measure_model(rows.assign(score=found), float(meta["threshold"]), n_bootstrap, seed)
        scores = scores.assign(**{name: found.round(6)})
    return TruthTest(rounded(report), scores)


def read_thresholds(path: Path | str, fpr: float) -> dict[str, float]:
    """Read the threshold of each model at a true FPR from the report of `evaluate_on_truth`.

    Parameters
    ----------
    path : path
        Report as json.
    fpr : float
        One of `gotorb.evaluation.metrics.FPRS`.

    Returns
    -------
    dict
        Model -> threshold; empty where the report or the FPR is missing.

    Examples
    --------
    >>> read_thresholds("no/truth.json", 0.01)
    {}
    """
    models = json.loads(Path(path).read_text(encoding="utf-8"))["models"] if Path(path).exists() else {}
    found = {name: known.get("threshold_at_fpr", {}).get(fpr_name(fpr)) for name, known in models.items()}
    return {name: float(threshold) for name, threshold in found.items() if threshold is not None}


def cut_images(
    images_dir: Path, image_ids: Collection[str], options: LabelOptions, *, out_dir: Path,
    name: str = "detections", n_processes: int = LABEL.n_processes,
) -> Path:  # fmt: skip
    """Cut stamps of all detections in some images of another data set.

    Parameters
    ----------
    images_dir : Path
        Data set that lists the images.
    image_ids : collection of str
        Images to cut.
    options : LabelOptions
        Options of the stamps (`gotorb.label_data.cut_options`).
    out_dir : Path
        Parent of the new folder.
    name : str
        Name of the new folder.
    n_processes : int
        Number of workers.

    Returns
    -------
    Path
        Unlabelled data set ``out_dir/name``.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.image import LabelOptions
    >>> from gotorb.labels.jobs import read_task
    >>> options = LabelOptions(provider=None, stamp_size=21)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = make_shards(Path(folder), [read_task("images/visit.fits")], cut_detections, options, title="cut")
    ...     cut = cut_images(Path(folder), ["visit"], options, out_dir=Path(folder), n_processes=1)
    ...     len(pd.read_csv(cut / "data_labels.csv"))
    6
    """
    wanted = set(image_ids)
    tasks = [task for task in read_images(images_dir, read_settings()) if task.image_id in wanted]
    with run_folder(out_dir, name) as data_dir:
        make_shards(data_dir, tasks, cut_detections, options, workers=Workers(n_processes), title="cut")
    return data_dir


def _measure_model(rows: pd.DataFrame, threshold: float, n_bootstrap: int, seed: int) -> dict[str, Any]:
    scores = rows["score"].to_numpy(float)
    metrics = measure_scores(rows, threshold, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed))
    against = roc_comparison(
        rows["label"].to_numpy(int),
        scores,
        rows[OLD_SCORES[0]].to_numpy(float),
        n_bootstrap=n_bootstrap,
        rng=np.random.default_rng(seed),
    )
    labels, clear = rows["label"].to_numpy(int), (rows["snr"] >= CLEAR_SNR).to_numpy()
    return metrics | {
        "against_old_random_forest": against.to_dict(orient="records"),
        "clear": _measure_clear(labels[clear], scores[clear], metrics["threshold"]),
        "threshold_at_fpr": {fpr_name(fpr): choose_threshold(labels, scores, max_fpr=fpr) for fpr in FPRS},
    }


def _measure_clear(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Errors of clear detections at the model's threshold, and at the best threshold for these rows."""
    balanced = find_balance(labels, scores)
    found = {"at_threshold": measure_errors(labels, scores, threshold)}
    return found | {
        "min_snr": CLEAR_SNR,
        "balanced_threshold": balanced,
        "at_balanced": measure_errors(labels, scores, balanced),
    }


FROM_DETECTIONS = ("mp", "randjunk")
"""Metalabels of detections; rows of other metalabels are made of several sources."""


def join_truth(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Join detections of a data set with their true nature.

    Parameters
    ----------
    table : DataFrame
        Rows with candidate_id.
    truth : DataFrame
        candidate_id, kind, is_real (1 or 0).

    Returns
    -------
    DataFrame
        Rows of metalabel mp or randjunk, or without one, with kind and is_real.

    Raises
    ------
    DataError
        If a detection is not in the truth, which is then of another survey.

    Examples
    --------
    >>> table = pd.DataFrame({"candidate_id": ["1", "2"], "metalabel": ["mp", "glxresid"], "label": [1, 0]})
    >>> truth = pd.DataFrame({"candidate_id": ["1"], "kind": ["asteroid"], "is_real": [1]})
    >>> join_truth(table, truth)[["candidate_id", "kind", "is_real"]].values.tolist()
    [['1', 'asteroid', 1]]
    """
    own = table[table["metalabel"].isin([*FROM_DETECTIONS, ""])]
    known = truth.assign(candidate_id=truth["candidate_id"].astype(str))[["candidate_id", "kind", "is_real"]]
    joined = own.merge(known, on="candidate_id", how="left", validate="many_to_one")
    unknown = joined["is_real"].isna()
    if unknown.any():
        raise DataError(
            f"candidate {joined['candidate_id'][unknown].iloc[0]} is not in {layout.TRUTH_CSV}; "
            "the labels are of another survey: run the label stage again"
        )
    return joined.assign(is_real=joined["is_real"].astype(int))


def _measure_purity(rows: pd.DataFrame) -> dict[str, Any]:

    purity = {}
    for name, part in rows.groupby("metalabel"):
        n, n_right = len(part), int((part["label"] == part["is_real"]).sum())
        low, high = wilson_interval(n_right, n) or (None, None)
        kinds = {kind: int(count) for kind, count in part["kind"].value_counts().sort_index().items()}
        purity[name] = {"n": n, "n_right": n_right, "purity": n_right / n, "low": low, "high": high, "kinds": kinds}
    return rounded(purity)


def read_tns(path: Path | str) -> pd.DataFrame:
    """Read the public csv of TNS objects (``tns_public_objects.csv``, plain or zipped).

    Parameters
    ----------
    path : path
        The csv, with or without a first line with its date.

    Returns
    -------
    DataFrame
        name, ra, dec (deg, ICRS), type, mag (discovery magnitude), jd (discovery date, UTC).

    Raises
    ------
    DataError
        If a column is missing or a position is not a number.

    Examples
    --------
    >>> import tempfile
    >>> names = "name,ra,declination,type,discoverydate,discoverymag"
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".csv") as file:
    ...     print("2026-01-02 00:00:00", names, "2026a,10.5,-3,SN Ia,2026-01-01,18.2", sep="\\n", file=file, flush=True)
    ...     objects = read_tns(file.name)
    >>> str(objects["name"][0]), float(objects["jd"][0])
    ('2026a', 2461041.5)
    """
    for first in (0, 1):  # the daily file begins with its date
        table = pd.read_csv(path, skiprows=first, dtype=str)
        if set(TNS_COLUMNS) <= set(table.columns):
            break
    else:
        missing = ", ".join(sorted(set(TNS_COLUMNS) - set(table.columns)))
        raise DataError(f"{path} has no column {missing}; give the public csv of objects of TNS")
    table = table[list(TNS_COLUMNS)].rename(columns=TNS_COLUMNS)
    numbers = table[["ra", "dec", "mag"]].apply(pd.to_numeric, errors="coerce")
    bad = numbers[["ra", "dec"]].isna().any(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: {table['name'][bad].iloc[0]} has no position in degrees; give ra and declination in deg"
        )
    dates = pd.to_datetime(table["discovery_date"], utc=True, format="ISO8601")
    jd = dates.map(lambda date: date.to_julian_date())
    return table[["name", "type"]].fillna("").assign(**numbers.astype(float), jd=jd)


def write_tns(survey_dir: Path | str, path: Path | str) -> int:
    """Write the detected supernovae of a simulated survey as a csv of TNS, each at its first detection.

    Parameters
    ----------
    survey_dir : path
        Folder of the simulated survey.
    path : path
        File to write.

    Returns
    -------
    int
        Number of supernovae.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tns("survey", Path(folder) / "tns.csv")
    1
    """
    survey_dir = Path(survey_dir)
    truth = read_truth(survey_dir).query("kind == 'supernova'")
    candidates = pd.read_csv(survey_dir / layout.CANDIDATES_CSV, dtype={"id": str})[["id", "ra", "dec"]]
    images = pd.read_csv(survey_dir / layout.IMAGES_CSV)[["id", "jd"]].rename(columns={"id": "image_id"})
    rows = truth.merge(candidates, left_on="candidate_id", right_on="id").merge(images, on="image_id")
    first = rows.sort_values("jd").drop_duplicates("name")
    dates = pd.to_datetime(first["jd"], unit="D", origin="julian").dt.strftime("%Y-%m-%d %H:%M:%S")
    objects = first.assign(
        type="SN", discoverydate=dates, discoverymag=first["true_mag"].round(3), declination=first["dec"]
    )
    objects[list(TNS_COLUMNS)].to_csv(path, index=False)
    return len(objects)


def match_tns(
    objects: pd.DataFrame, detections: pd.DataFrame, *, threshold: float, radius_arcsec: float = TNS_RADIUS_ARCSEC
) -> pd.DataFrame:
    """Match TNS objects with scored detections.

    Parameters
    ----------
    objects : DataFrame
        From `read_tns`.
    detections : DataFrame
        ra, dec (deg, ICRS), jd (UTC) and score of all detections.
    threshold : float
        Score at or above which a detection is called real.
    radius_arcsec : float
        Largest separation of a detection from an object.

    Returns
    -------
    DataFrame
        A row for each detected object: the columns of `objects`, n_detections, n_real (detections called real),
        best_score, first_jd (first detection), found_jd (first detection called real, NaN without one), delay_days
        (found_jd - first_jd) and found.

    Examples
    --------
    >>> objects = pd.DataFrame({"name": ["a", "b"], "ra": [10.0, 50.0], "dec": [0.0, 0.0], "mag": [18.0, 19.0]})
    >>> detections = pd.DataFrame({"ra": [10.0, 10.0], "dec": [0.0, 0.0], "jd": [1.0, 4.0], "score": [0.2, 0.9]})
    >>> match_tns(objects, detections, threshold=0.5)[["name", "n_detections", "delay_days", "found"]].values.tolist()
    [['a', 2, 3.0, True]]
    """
    index, separation = find_nearest(detections["ra"], detections["dec"], objects["ra"], objects["dec"])
    own = detections.assign(row=index, is_real=detections["score"] >= threshold)[separation <= radius_arcsec]
    groups, real = own.groupby("row"), own[own["is_real"]].groupby("row")
    found = pd.DataFrame({
        "n_detections": groups.size(), "n_real": groups["is_real"].sum(), "best_score": groups["score"].max(),
        "first_jd": groups["jd"].min(), "found_jd": real["jd"].min(),
    })  # fmt: skip
    found = found.assign(delay_days=found["found_jd"] - found["first_jd"], found=found["found_jd"].notna())
    return objects.join(found, how="inner").reset_index(drop=True)


def tns_completeness(matched: pd.DataFrame, *, width_mag: float = 1.0) -> pd.DataFrame:
    """Measure the fraction of detected objects with a detection called real, by discovery magnitude.

    Parameters
    ----------
    matched : DataFrame
        From `match_tns`: mag and found.
    width_mag : float
        Width of a bin [mag].

    Returns
    -------
    DataFrame
        low_mag, n, n_found, fraction, and its 95 % Wilson interval low and high; a row for each bin with objects.

    Examples
    --------
    >>> matched = pd.DataFrame({"mag": [18.2, 18.9, 19.5], "found": [True, False, True]})
    >>> tns_completeness(matched)[["low_mag", "n", "fraction"]].values.tolist()
    [[18.0, 2.0, 0.5], [19.0, 1.0, 1.0]]
    """
    known = matched[matched["mag"].notna()]
    rows = []
    for low_mag, part in known.groupby(np.floor(known["mag"] / width_mag) * width_mag):
        n, n_found = len(part), int(part["found"].sum())
        low, high = wilson_interval(n_found, n) or (np.nan, np.nan)
        rows.append((low_mag, n, n_found, n_found / n, low, high))
    return pd.DataFrame(rows, columns=["low_mag", "n", "n_found", "fraction", "low", "high"])
