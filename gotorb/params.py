"""params.yaml as a frozen, validated model: one section per stage, unknown names refused."""

import math
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gotorb import layout
from gotorb.errors import ConfigError
from gotorb.settings import project_root

LayerName = Literal["science", "template", "difference", "ptp", "min", "max"]


class Section(BaseModel):
    """A group of parameters: frozen, no unknown names, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SurveyParams(Section):
    """The embedded survey."""

    n_fields: int = Field(20, ge=1, description="pointings on the sky")
    n_visits: int = Field(3, ge=1, description="visits of each pointing")
    n_exposures: int = Field(3, ge=3, le=8, description="single exposures of a visit")
    size: int = Field(1024, ge=320, le=8192, description="side of an image [pixel]")
    n_asteroids: int = Field(30, ge=0, description="asteroids per visit and 1024x1024 pixels, V 15.5-21.6")
    n_training_fields: int = Field(6, ge=1, description="small extra fields on which the old scores are trained")
    n_processes: int = Field(2, ge=1, description="worker processes")
    catalogue: str | None = Field(None, description="XEphem csv of real minor planets; null generates a main belt")


class ArchiveParams(Section):
    """How to read a stamp archive: one hdf5 of stamps and one csv that describes its rows."""

    stamps_file: str = Field("*_stamps.h5", description="name or pattern of the hdf5 inside the folder")
    table_file: str = Field("*_meta.csv", description="name or pattern of the csv inside the folder")
    stamps_key: str = Field("stamps", description="array in the hdf5")
    ids_key: str = Field("candid", description="array of row ids in the hdf5")
    layers: tuple[LayerName, ...] = Field(("science", "template", "difference"), strict=False)
    background: Literal["median", "none"] = Field("median", description="what is taken off each layer of a stamp")
    size: int | None = Field(None, ge=15, description="central pixels kept of each stamp; null: all")
    columns: dict[str, str | list[str]] = Field(
        {"candidate_id": "candid"}, description="our column: the csv's column, or several joined"
    )
    labels: Literal["rules", "proxy"] = Field("rules", description="where labels come from")
    proxy_column: str = Field("proxy_label", description="column of 1, 0 or nothing")
    asteroid_columns: dict[str, str] = Field(default_factory=dict)
    asteroid_match_arcsec: float = Field(2.0, gt=0)
    catalogued_column: str | None = None
    old_score_column: str | None = None
    max_bogus_score: float = Field(0.3, gt=0, le=1)
    peer_columns: tuple[str, ...] = Field((), strict=False, description="other classifiers' scores, for comparison")


class LabelParams(Section):
    """Which detection gets which label."""

    source: Literal["embedded", "gotophoto", "own", "archive", "packets"] = "embedded"
    adapter: str | None = Field(None, description="Python file that adapts label_data to your own survey")
    n_images: int = Field(100, ge=1, description="difference images to use at most")
    provider: Literal["pympc", "skybot"] = Field("pympc", description="who knows minor planets")
    search_radius_deg: float = Field(1.8, gt=0, le=10)
    match_radius_arcsec: float = Field(1.0, gt=0, le=60)
    mag_limit: float = Field(20.2, gt=0, lt=40, description="faintest minor planet used (V)")
    min_realbogus: float | None = Field(None, ge=0, le=1)
    max_bogus_realbogus: float | None = Field(None, ge=0, le=1)
    extra_bogus_per_image: int = Field(4, ge=0)
    stamp_size: int = Field(55, ge=15, le=255, description="side of a stamp [pixel], odd")
    n_processes: int = Field(2, ge=1)
    chunk: int = Field(4, ge=1, description="images that a worker takes at a time")
    archive: ArchiveParams = ArchiveParams()


class SyntheticParams(Section):
    """Minor planets pasted on galaxies, and bare galaxy residuals."""

    n_per_image: int = Field(12, ge=0)
    jitter_arcsec: float = Field(7.0, ge=0)
    search_radius_arcsec: float = Field(600.0, gt=0)
    min_mag: float = 16.0
    max_mag: float = 19.5
    max_galaxy_mag: float = Field(18.0, description="faintest host galaxy (B)")
    n_residuals_per_transient: float = Field(1.0, ge=0)
    negative_fraction: float = Field(0.0, ge=0, le=1, description="transients that fade instead of brighten")
    n_variables_per_image: int = Field(0, ge=0, description="known variable stars that get or lose light, at most")
    n_flashes_per_image: int = Field(0, ge=0, description="bogus: light in one exposure only, with nothing near")


class CleanParams(Section):
    """Which random bogus are left out because they are probably real, or too many of a kind."""

    variables: str | None = Field(None, description="catalogue of variable stars (csv, FITS); null: none known")
    variable_radius_arcsec: float = Field(3.0, gt=0)
    variable_action: Literal["remove", "flip"] = Field("remove", description="flip: detections at them are real")
    provider: Literal["pympc", "skybot"] | None = Field(
        None, description="who knows minor planets by now; of use with a newer catalogue than the labels'"
    )
    match_radius_arcsec: float = Field(2.0, gt=0, le=60)
    search_radius_deg: float = Field(1.8, gt=0, le=10)
    new_sources: bool = Field(True, description="what looks like an unknown asteroid or supernova")
    galaxy_radius_arcsec: float | None = Field(
        None, gt=0, description="what is this close to a GLADE galaxy; null: no. Takes galaxies' own residuals out, too"
    )
    max_galaxy_mag: float | None = Field(None, description="faintest such galaxy (B); null: all")
    cosmic_rays: bool = Field(False, description="what is seen in exactly one exposure")
    flagged: str | None = Field(None, description="csv with the column image_id: images flagged as bad")
    n_keep: int = Field(10, ge=0, description="rows kept of a flagged image")


class DatasetParams(Section):
    """How rows are divided."""

    test_fraction: float = Field(0.2, gt=0, lt=1)
    validation_fraction: float = Field(0.15, gt=0, lt=1)
    link_radius_arcsec: float = Field(3.0, ge=0)
    grouping: Literal["linked", "none"] = Field(
        "linked", description="linked rows stay together; none divides row by row and leaks: to measure the leak only"
    )
    without: tuple[str, ...] = Field((), strict=False, description="metalabels left out, for experiments")
    label_noise: float = Field(
        0.0, ge=0, le=0.5, description="fraction of train and validation labels flipped on purpose, for experiments"
    )


class TrainParams(Section):
    """How networks are trained."""

    models: tuple[Literal["vgg6", "bayesian_vgg6"], ...] = Field(("bayesian_vgg6",), min_length=1, strict=False)
    layers: tuple[LayerName, ...] = Field(("science", "template", "difference", "ptp"), min_length=1, strict=False)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: lowered to 0 over the epochs")
    patience: int = Field(10, ge=1)
    dropout: float = Field(0.01, ge=0, lt=1)
    normalise: Literal["l2", "noise", "none"] = Field(
        "l2", description="first layer: the norm of each layer of a stamp, or one unit, the difference's noise, for all"
    )
    threads: int = Field(2, ge=1, description="CPU threads; part of the result's identity")
    seed: int | None = Field(None, ge=0, description="of the trainings alone; null: the seed of all")
    init_from: str | None = Field(
        None, description="start from this model: folder, model.h5 or models:/name@alias; null: from random weights"
    )
    freeze: int | str | list[str] | None = Field(
        None, description="layers of init_from kept as they are: first so many, or names, or beginnings"
    )


class TuneParams(Section):
    """How the hyperparameters of bayesian_vgg6 are searched."""

    method: Literal["hyperband", "random", "bayesian"] = Field("hyperband", description="who chooses what is tried")
    objective: Literal["val_binary_crossentropy", "val_loss", "val_auc", "val_average_precision", "val_accuracy"] = (
        Field("val_binary_crossentropy", description="by what a trial is judged; val_loss holds the L2 penalty too")
    )
    max_trials: int | None = Field(8, ge=1, description="trials at most; null: as many as Hyperband wants")
    max_epochs: int = Field(6, ge=1, description="epochs of the longest trial")
    factor: float = Field(math.e, ge=2, description="Hyperband: ratio of epochs and trials of successive rounds")
    iterations: int = Field(2, ge=1, description="Hyperband: how often it starts over")
    max_parameters: int = Field(1_000_000, ge=1, description="of a network; larger ones are not tried")
    n_workers: int = Field(1, ge=1, description="trials at a time; part of the result's identity")
    space: dict[str, float | int | str | list[float | int | str]] = Field(
        default_factory=dict, description="narrower limits: [lowest, highest], or the names to choose from"
    )


class EvaluateParams(Section):
    """How models are judged."""

    models: tuple[Literal["vgg6", "bayesian_vgg6", "tuned"], ...] | None = Field(
        None, min_length=1, strict=False, description="of train.models, and tuned; null: train.models"
    )
    n_samples: int = Field(20, ge=2, description="posterior samples per stamp")
    n_bootstrap: int = Field(500, ge=10)
    threshold_fpr: float | None = Field(
        None, gt=0, lt=1, description="false-positive rate of the operating threshold; null: smallest mean error"
    )


class RecoveryParams(Section):
    """Which transients are injected into the held-out images, to see which of them models find."""

    n_per_image: int = Field(60, ge=1)
    min_mag: float = 16.0
    max_mag: float = 21.0
    max_offset_arcsec: float = Field(8.0, gt=0, description="farthest from the host's centre")
    hostless_fraction: float = Field(0.2, ge=0, le=1)
    max_galaxy_mag: float = Field(18.0, description="faintest host galaxy (B)")
    fpr: float = Field(0.02, gt=0, lt=1, description="false-positive rate on validation rows at which models compare")


class PeersParams(Section):
    """How our classifier is put beside others whose scores came with the stamps."""

    n_folds: int = Field(5, ge=0, description="trainings that score every row out of fold; 0: held-out rows only")


class PromoteParams(Section):
    """Which model becomes champion, under which name."""

    name: str = Field("gotorb", min_length=1)
    metric: Literal["auc"] = "auc"


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0)
    survey: SurveyParams = SurveyParams()
    judge: SurveyParams = SurveyParams(n_fields=30)
    label: LabelParams = LabelParams()
    synthetic: SyntheticParams = SyntheticParams()
    clean: CleanParams = CleanParams()
    dataset: DatasetParams = DatasetParams()
    train: TrainParams = TrainParams()
    tune: TuneParams = TuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    promote: PromoteParams = PromoteParams()
    recovery: RecoveryParams = RecoveryParams()
    peers: PeersParams = PeersParams()

    @model_validator(mode="after")
    def _judge_what_is_trained(self) -> "Params":
        absent = [name for name in self.judged_models if name not in (*self.train.models, layout.TUNED)]
        if absent:
            raise ValueError(f"evaluate.models names {absent[0]}, which train.models does not")
        return self

    @property
    def judged_models(self) -> tuple[str, ...]:
        """Names of the models that are evaluated, audited, and promoted."""
        return self.evaluate.models or self.train.models

    def flat(self) -> dict[str, Any]:
        """Dotted names to plain values, for tracking."""
        return flatten(self.model_dump())


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one level of dotted names.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def read_params(path: Path | str = layout.PARAMS_YAML) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, names an unknown parameter or holds an impossible value.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no {path.name} in {path.resolve().parent}; run inside the project's folder") from None
    except yaml.YAMLError as error:
        where = str(error).replace("\n", " ")
        raise ConfigError(f"{path} is not valid YAML: {where}; mend the line named here") from None
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_describe(error)}") from None


def find_params(path: Path | str | None = None) -> Params:
    """Params of the file given, else of the project here, else the defaults."""
    if path is not None:
        return read_params(path)
    here = project_root() / layout.PARAMS_YAML
    return read_params(here) if here.exists() else Params(seed=0)


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "the whole file"
    if first["type"] == "extra_forbidden":
        return f"unknown parameter {name!r} (value {first['input']!r}); see `gotorb params` for the known ones"
    return f"parameter {name!r} is {first['input']!r}: {first['msg']}; see `gotorb params` for what is allowed"
