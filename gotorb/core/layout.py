"""Every file, folder and column name on disk, and the path builders.

Nothing else in the package spells a file name.
"""

from datetime import UTC, datetime
from pathlib import Path

# --- a data set: one folder, one csv, one hdf5 -------------------------------------------------
LABELS_CSV = "data_labels.csv"
STAMPS_H5 = "data_stamps.h5"
STAMPS_KEY = "src"
IDS_KEY = "id"
CARD_JSON = "card.json"
SUMS_FILE = "SHA256SUMS"
CHANGES_CSV = "changes.csv"
LABEL_ERRORS_CSV = "label_errors.csv"
SHARDS_DIR = "shards"
FACTS_KEY = "facts"
"""Numbers about an image as a whole: minor planets expected and matched, and odd things."""
FACT_COLUMNS = ("radius_deg", "n_expected", "n_matched", "offset_ra_arcsec", "offset_dec_arcsec")
"""Those of them that are columns of the list of images."""
OWNER_FILE = ".owner"
UNFINISHED_FILE = ".unfinished"
RECIPE_FILE = ".recipe.json"
EYEBALL_DB = "eyeball.sqlite"
EYEBALL_CSV = "eyeball.csv"
EYEBALL_CACHE = ".eyeball"

LAYERS = ("science", "template", "difference", "ptp", "min", "max")
"""Layers of a stamp: median science image, template, difference, and the peak-to-peak, minimum and
maximum over the single exposures."""

GOTO_COLUMNS = (
    "id", "image_id", "x", "y", "ra", "dec", "mag", "fwhm", "realbogus", "fits_filepath", "ut", "ncoadd", "label",
    "metalabel", "number",
)  # fmt: skip
"""Columns of data_labels.csv that users of GOTO's recipe know, in their order."""

PROVENANCE_COLUMNS = (
    "candidate_id", "image_name", "jd", "snr", "cnn_realbogus", "object_id", "host_id", "host_offset_arcsec", "rule",
    "catalogue", "n_seen", "missing_fraction", "code_version",
)  # fmt: skip
"""Columns that say which rule, catalogue, image and object made a row."""

LABEL_COLUMNS = GOTO_COLUMNS + PROVENANCE_COLUMNS
SPLIT_COLUMN = "split"
PROBABILITY_COLUMN, WEIGHT_COLUMN = "label_probability", "label_weight"
"""Columns of soft labels: the probability that a row is real, and its weight in training (0: not learned from)."""
SPLITS = ("train", "validation", "test")
METALABELS = ("mp", "randjunk", "marshall", "syntransient", "synfading", "synvariable", "glxresid", "synflash")
SYNTHETIC = ("syntransient", "synfading", "synvariable", "synflash")
"""Metalabels of rows that carry the light, and the candidate id, of a minor planet elsewhere."""
INJECTED = "injected"
"""Metalabel of point sources added to stamps to try a model on; never in a training set."""
REAL, BOGUS, UNKNOWN = 1, 0, -1

LABELLED, EMPTY = "labelled", "empty"
FAILED_STATES = (
    "refused", "outside_root", "missing", "truncated", "missing_part", "inconsistent", "unreadable", "no_lookup",
    "crashed", "failed",
)  # fmt: skip
IMAGE_STATES = (LABELLED, EMPTY, *FAILED_STATES)
"""Final states of an image in a labelling run; each image ends in exactly one of them."""

# --- a model: one folder next to its data ------------------------------------------------------
MODEL_H5 = "model.h5"
META_HKL = "meta.hkl"
PREDICTIONS_CSV = "predictions.csv"
METRICS_JSON = "metrics.json"
SUSPECTS_CSV = "suspects.csv"
"""Rows whose label out-of-fold scores contradict."""
STATE_NPZ = "unfinished.npz"
TENSORBOARD_DIR = "tensorboard"
ONNX_SUFFIX = ".onnx"
ONNX_INPUT = "stamps"
ONNX_KEYS = ("layers", "stamp_size", "threshold", "name", "version", "digest")
"""Description, in an exported model, of the one that it was made from."""

# --- a tuning of hyperparameters ---------------------------------------------------------------
TRIALS_CSV = "trials.csv"
BEST_JSON = "best.json"
TRIALS_PNG = "trials.png"
UNFINISHED_DIR = "unfinished"
TUNED = "tuned"
"""Name of the model that is trained with the best configuration."""

# --- the embedded survey -----------------------------------------------------------------------
IMAGES_CSV = "image.csv"
CANDIDATES_CSV = "candidate.csv"
TRUTH_CSV = "truth.csv"
STORAGE_DIR = "storage"
CATALOGUES_DIR = "catalogues"
XEPHEM_CSV = "xephem.csv"
VARIABLES_CSV = "variables.csv"

# --- a stream of alerts: one folder -------------------------------------------------------------
STREAM_DB = "stream.db"
STATUS_JSON = "status.json"
STREAM_LOCK = ".running"
PACKETS_IN_A_FOLDER = 1000
"""Kept packets of a folder."""
TRAINING_CSV = "training.csv"
"""Scores and measurements of the training set, with which a stream is compared."""

# --- the project -------------------------------------------------------------------------------
PARAMS_YAML = "params.yaml"
PROMOTION_JSON = "reports/promotion.json"
RECEIPT_JSON = "evaluations/promotion.json"
"""The same with the versions of this checkout's registry, which git and DVC's cache do not keep."""
CHOICE_CSV = "evaluations/injections/validation.csv"
"""Scores of transients injected into the images of validation rows, by which models of equal Brier score are chosen."""
OUT_OF_FOLD_CSV = "evaluations/out_of_fold.csv"
"""Scores of all rows, a column for each model, by models of its recipe that never saw the row, for each seed."""
SEED_COLUMN = "training"
ANNOTATIONS_CSV = "eye_labels.csv"
"""In an archive's folder: labels by annotators, read for the table of scores only."""
ENV_FILE = ".env"
MLRUNS_DIR = "mlruns"
SOURCES_DIR = "sources"
STUDIES_DIR = "studies"
STATE_DIR = ".gotorb"
SPEED_JSON = f"{STATE_DIR}/speed.json"
"""Stamps that each model scored per second on this machine."""
DATABASE_DIR = "postgres"


def timestamped(prefix: str, when: datetime | None = None, *, short: bool = False) -> str:
    """Name of a run folder: ``data_YYYYMMDD-HHMMSS``, or ``model_YYMMDD-HHMMSS`` when short.

    Parameters
    ----------
    prefix : str
    when : datetime, optional
        UTC; now when left out.
    short : bool

    Returns
    -------
    str

    Examples
    --------
    >>> timestamped("data", datetime(2020, 3, 4, 5, 6, 7, tzinfo=UTC))
    'data_20200304-050607'
    >>> timestamped("model", datetime(2020, 3, 4, 5, 6, 7, tzinfo=UTC), short=True)
    'model_200304-050607'
    """
    when = when or datetime.now(UTC)
    return f"{prefix}_{when:{'%y%m%d' if short else '%Y%m%d'}-%H%M%S}"


def labels_path(data_dir: Path | str) -> Path:
    """Path of a data set's csv.

    Parameters
    ----------
    data_dir : path

    Returns
    -------
    Path
    """
    return Path(data_dir) / LABELS_CSV


def stamps_path(data_dir: Path | str) -> Path:
    """Path of a data set's hdf5.

    Parameters
    ----------
    data_dir : path

    Returns
    -------
    Path
    """
    return Path(data_dir) / STAMPS_H5


def log_path(run_dir: Path | str) -> Path:
    """Path of the log file inside a run folder: the folder's own name with ``.log``.

    Parameters
    ----------
    run_dir : path

    Returns
    -------
    Path
    """
    return Path(run_dir) / f"{Path(run_dir).name}.log"


def kept_packet(folder: Path | str, topic: str, part: int, offset: int, suffix: str) -> Path:
    """Path of a message that a stream keeps.

    Parameters
    ----------
    folder : path
        ``--keep-packets`` of the stream.
    topic : str
    part, offset : int
        Partition and offset.
    suffix : str
        ``.avro`` for an object container, ``.bin`` for anything else.

    Returns
    -------
    Path
        ``<topic>/<partition>/<thousands>/<offset><suffix>``.
    """
    return Path(folder) / topic / str(part) / str(offset // PACKETS_IN_A_FOLDER) / f"{offset}{suffix}"
