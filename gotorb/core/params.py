"""Parameters and the only home of their defaults.

Front doors take the defaults of their signatures from here, commands take theirs from the front doors, and
``params.yaml`` overrides them for one project. A field's description is the text of the command's option and of
``gotorb params``; its unit stands in brackets.

Sections of `Params` may stand in ``params.yaml``: one section per stage, unknown names refused. The other sections
hold what only a caller decides.
"""

import math
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gotorb.core import layout
from gotorb.core.settings import project_root
from gotorb.errors import ConfigError

SEED = 0
"""Seed of everything random, unless a caller gives another."""
N_SAMPLES = 20
"""Posterior samples of a stamp."""
BATCH_SIZE = 256
"""Stamps that are scored at a time."""
GALAXY_RADIUS_ARCSEC = 8.0
"""Distance from a galaxy within which `clean_data.remove_galaxies` takes bogus out."""

LayerName = Literal["science", "template", "difference", "ptp", "min", "max"]
NetworkName = Literal["vgg6", "bayesian_vgg6"]
ModelName = Literal["vgg6", "bayesian_vgg6", "measured", "fusion"]
"""Networks; trees on measured features; trees and a Bayesian network together."""
ProviderName = Literal["pympc", "skybot"]
MethodName = Literal["bald", "margin", "random"]


class Section(BaseModel):
    """A group of parameters: frozen, no unknown names, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SurveyParams(Section):
    """The embedded survey."""

    n_fields: int = Field(20, ge=1, description="pointings on the sky")
    n_visits: int = Field(3, ge=1, description="visits of each pointing")
    n_exposures: int = Field(3, ge=3, le=8, description="single exposures of a visit")
    size: int = Field(1024, ge=320, le=8192, description="side of an image [pixel]")
    n_asteroids: int = Field(30, ge=0, description="asteroids per visit and 1024 x 1024 pixels, V 15.5-21.6")
    n_training_fields: int = Field(6, ge=1, description="small extra fields on which the old scores are trained")
    n_processes: int = Field(2, ge=1, description="worker processes")
    catalogue: str | None = Field(None, description="XEphem csv of real minor planets; null generates a main belt")


class PacketFields(Section):
    """Names in the alert packets of a survey like ZTF: ids, a record of measurements, and cut-outs."""

    publisher: str = Field("", description="beginning of the packet's publisher; empty: any")
    id: str = Field("candid", description="field of the alert's id")
    object_id: str = Field("objectId", description="field of the object's id")
    candidate: str = Field("candidate", description="field of the record of measurements")
    image: tuple[str, ...] = Field((), strict=False, description="measurements that name an image together")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="ra, dec, magpsf, xpos, ypos, fwhm, isdiffpos, ssdistnr, ssmagnr, ssnamenr: name in the record, "
        "where it differs",
    )
    scores: tuple[str, ...] = Field((), strict=False, description="the survey's own scores, the best one first")
    time: str = Field("jd", description="measurement of the time")
    time_format: Literal["jd", "mjd"] = Field("jd", description="kind of the time")
    time_scale: Literal["utc", "tai"] = Field("utc", description="scale of the time")
    time_at: Literal["start", "middle"] = Field("start", description="part of the exposure that the time is of")
    exposure: str = Field("exptime", description="measurement of the exposure time [s]")
    exposure_else_s: float = Field(30.0, ge=0, description="exposure time where the record has none [s]")
    cutouts: dict[LayerName, str] = Field(
        {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"},
        min_length=1, description="layer of a stamp: field of its cut-out; the source is in the middle",
    )  # fmt: skip
    size: int = Field(63, ge=15, le=501, description="side of a whole cut-out [pixel]")
    detector: tuple[int, int] | None = Field(
        None, strict=False, description="width and height of the image [pixel]: tells where short cut-outs belong"
    )


PACKET_FAMILIES: dict[str, PacketFields] = {
    "winter": PacketFields(
        publisher="WINTER", object_id="objectid", image=("jd", "field"), scores=("rb",), size=81,
        cutouts={"science": "cutout_science", "template": "cutout_template", "difference": "cutout_difference"},
    ),
    "decam": PacketFields(
        publisher="DESIRT", image=("mjd", "band"), scores=("reliability",), size=121, time="mjd", time_format="mjd",
        time_at="middle", columns={"magpsf": "forcediffimmag"},
    ),
    "atlas": PacketFields(
        publisher="ATLAS", image=("pid",), size=61, time="mjd", time_format="mjd", time_at="middle",
        columns={"ra": "RA", "dec": "Dec", "magpsf": "Mag", "xpos": "X", "ypos": "Y"},
        cutouts={"science": "cutoutScience", "difference": "cutoutDifference"},
    ),
    "ztf": PacketFields(image=("jd", "rcid"), scores=("drb", "rb"), detector=(3072, 3080)),
}  # fmt: skip
"""Alert packets that are known without a mapping in params.yaml, besides Rubin's."""


class ArchiveParams(Section):
    """Layout of a stamp archive: one hdf5 of stamps and one csv that describes its rows."""

    stamps_file: str = Field("*_stamps.h5", description="name or pattern of the hdf5 inside the folder")
    table_file: str = Field("*_meta.csv", description="name or pattern of the csv inside the folder")
    stamps_key: str = Field("stamps", description="array in the hdf5")
    ids_key: str = Field("candid", description="array of row ids in the hdf5")
    layers: tuple[LayerName, ...] = Field(
        ("science", "template", "difference"), strict=False, description="layers of a stamp in the hdf5, in order"
    )
    background: Literal["median", "none"] = Field(
        "median", description="background subtracted from each layer of a stamp"
    )
    size: int | None = Field(None, ge=15, description="side of the central part kept of a stamp [pixel]; null: all")
    columns: dict[str, str | list[str]] = Field(
        {"candidate_id": "candid"}, description="our column: the csv's column, or several joined"
    )
    labels: Literal["rules", "proxy"] = Field(
        "rules", description="source of the labels: proxy_column, or rules on the columns named below it"
    )
    proxy_column: str = Field("proxy_label", description="column of 1 (real), 0 (bogus) or nothing")
    asteroid_columns: dict[str, str] = Field(
        default_factory=dict, description="columns of the nearest minor planet: distance [arcsec], mag [mag], name"
    )
    asteroid_match_arcsec: float = Field(2.0, gt=0, description="largest distance from a minor planet [arcsec]")
    catalogued_column: str | None = Field(None, description="column that is 1 at catalogued objects; null: none")
    old_score_column: str | None = Field(None, description="column of the survey's own real/bogus score; null: none")
    max_bogus_score: float = Field(0.3, gt=0, le=1, description="largest old score of a bogus row")
    peer_columns: tuple[str, ...] = Field((), strict=False, description="other classifiers' scores, for comparison")
    packets: dict[str, PacketFields] = Field(
        default_factory=dict, description="alert packets of other surveys like ZTF: names of their fields"
    )


class LabelParams(Section):
    """Rules by which detections get labels."""

    source: Literal["embedded", "gotophoto", "own", "archive", "packets"] = Field(
        "embedded", description="origin of images or stamps"
    )
    adapter: str | None = Field(None, description="Python file that adapts label_data to your own survey")
    n_images: int = Field(100, ge=1, description="difference images to use at most")
    provider: ProviderName = Field(
        "skybot", description="source of minor planets: a local catalogue (pympc) or IMCCE's service (skybot)"
    )
    search_radius_deg: float = Field(
        1.8,
        gt=0,
        le=10,
        description="smallest radius around an image's centre in which minor planets are searched [deg]",
    )
    match_radius_arcsec: float = Field(
        1.0, gt=0, le=60, description="largest distance of a detection from its minor planet [arcsec]"
    )
    mag_limit: float = Field(20.2, gt=0, lt=40, description="faintest minor planet that makes a label, V [mag]")
    min_realbogus: float | None = Field(
        None, ge=0, le=1, description="smallest old score of a minor planet (GOTO's recipe: 0.01); null: any"
    )
    max_bogus_realbogus: float | None = Field(
        None, ge=0, le=1, description="largest old score of a bogus detection (GOTO's recipe: 0.6); null: any"
    )
    check_expected: bool = Field(
        True, description="stop when the expected minor planets are not found, because labels are then wrong"
    )
    extra_bogus_per_image: int = Field(
        4, ge=0, description="bogus in an image in addition to the number of its minor planets"
    )
    stamp_size: int = Field(55, ge=15, le=255, description="side of a stamp [pixel], odd")
    n_processes: int = Field(1, ge=1, description="worker processes")
    chunk: int = Field(4, ge=1, description="images that a worker takes at a time")
    archive: ArchiveParams = Field(ArchiveParams(), description="layout of a stamp archive")


class CheckParams(Section):
    """Check of a few images before a labelling run."""

    n_images: int = Field(3, ge=1, description="images to check when none is named")
    stars: str | None = Field(None, description="catalogue of stars (csv, FITS) to draw; null: none")
    out_dir: Path | None = Field(None, description="folder for a picture of each image; null: no pictures")


class SyntheticParams(Section):
    """Minor planets pasted on galaxies, and bare galaxy residuals."""

    n_per_image: int = Field(12, ge=0, description="transients per image at most")
    jitter_arcsec: float = Field(7.0, ge=0, description="largest offset from the galaxy's centre [arcsec]")
    search_radius_arcsec: float = Field(600.0, gt=0, description="largest distance of a host from its minor planet "
                                        "[arcsec]")  # fmt: skip
    min_mag: float = Field(16.0, description="brightest minor planet used, V [mag]")
    max_mag: float = Field(19.5, description="faintest minor planet used, V [mag]")
    max_galaxy_mag: float = Field(18.0, description="faintest host galaxy, B [mag]")
    n_residuals_per_transient: float = Field(1.0, ge=0, description="bare galaxies for each transient")
    negative_fraction: float = Field(0.0, ge=0, le=1, description="transients that fade instead of brighten")
    n_variables_per_image: int = Field(0, ge=0, description="known variable stars that brighten or fade, at most")
    n_flashes_per_image: int = Field(0, ge=0, description="bogus whose light is in one exposure only")
    snr_of: Literal["planets", "detections"] | None = Field(
        None, description="minor planets are dimmed so that synthetic rows are as faint as the labelled planets of the "
        "image, or as all of its detections; null: no dimming",
    )  # fmt: skip


class CleanParams(Section):
    """Rules by which random bogus that are probably real, or too many of a kind, are left out."""

    variables: str | None = Field(None, description="catalogue of variable stars (csv, FITS); null: none")
    variable_radius_arcsec: float = Field(3.0, gt=0, description="largest distance from a variable star [arcsec]")
    variable_action: Literal["remove", "flip"] = Field(
        "remove", description="treatment of detections at variable stars; flip: relabel them as real"
    )
    provider: ProviderName | None = Field(
        None, description="source of minor planets for a second check, useful with a newer catalogue; null: no check"
    )
    match_radius_arcsec: float = Field(2.0, gt=0, le=60, description="largest distance from a minor planet [arcsec]")
    search_radius_deg: float = Field(
        1.8, gt=0, le=10, description="radius around an image's centre in which minor planets are searched [deg]"
    )
    new_sources: bool = Field(False, description="remove probable unknown asteroids and supernovae")
    galaxy_radius_arcsec: float | None = Field(
        None, gt=0, description="largest distance from a GLADE galaxy [arcsec]; null: no check. Removes galaxies' own "
        "residuals too",
    )  # fmt: skip
    max_galaxy_mag: float | None = Field(None, description="faintest such galaxy, B [mag]; null: all")
    cosmic_rays: bool = Field(False, description="remove detections seen in exactly one exposure")
    flagged: str | None = Field(None, description="csv with the column image_id: images flagged as bad; null: none")
    n_keep: int = Field(10, ge=0, description="rows kept of a flagged image")


class DatasetParams(Section):
    """Rules by which rows are divided into train, validation and test."""

    test_fraction: float = Field(0.2, gt=0, lt=1, description="fraction of rows in the test split")
    validation_fraction: float = Field(0.15, gt=0, lt=1, description="fraction of rows in the validation split")
    link_radius_arcsec: float = Field(3.0, ge=0, description="detections closer than this stay in one split [arcsec]")
    grouping: Literal["linked", "none"] = Field(
        "linked", description="linked rows stay together; none divides by rows and leaks, to measure the leak"
    )
    soft_scores: tuple[str, ...] | None = Field(
        None, strict=False, description="columns of earlier classifiers' scores that count as labellers of soft "
        "labels, next to catalogues and annotators; []: without scores; null: no soft labels",
    )  # fmt: skip
    soft_method: Literal["labellers", "mean"] = Field(
        "labellers", description="soft labels by a model of how each labeller errs, or by the mean of the scores and "
        "annotations of a row",
    )  # fmt: skip
    without: tuple[str, ...] = Field((), strict=False, description="metalabels left out, for experiments")
    label_noise: float = Field(
        0.0, ge=0, le=0.5, description="fraction of train and validation labels flipped on purpose, for experiments"
    )


class TrainParams(Section):
    """Training of networks."""

    models: tuple[ModelName, ...] = Field(
        ("bayesian_vgg6",), min_length=1, strict=False, description="models to train, in this order"
    )
    layers: tuple[LayerName, ...] = Field(
        ("science", "template", "difference", "ptp"), min_length=1, strict=False,
        description="layers of a stamp used for training",
    )  # fmt: skip
    epochs: int = Field(40, ge=1, description="epochs at most")
    batch_size: int = Field(64, ge=1, description="stamps of a training step")
    learning_rate: float = Field(1e-3, gt=0, description="step size of Adam; 3e-5 suits 10^5 rows and more")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(
        "constant", description="learning rate over the epochs; cosine: lowered to 0; one_cycle: raised in the first "
        "three tenths of the steps, then lowered to 0",
    )  # fmt: skip
    patience: int = Field(10, ge=1, description="epochs without improvement after which training stops")
    dropout: float = Field(0.01, ge=0, lt=1, description="fraction of the units or feature maps that dropout removes")
    crop: int | None = Field(
        None, ge=20, description="side of the central part of a stamp that networks see [pixel]; null: all"
    )
    normalise: Literal["l2", "clipped", "noise", "none", "auto"] = Field(
        "l2", description="first layer: the norm of each layer of a stamp; clipped: the same, after each layer is cut "
        "off at its brightest central pixel; noise: one unit, the difference's noise, for all; auto: the best of these "
        "out of fold",
    )  # fmt: skip
    disturbed: float = Field(
        0.25, ge=0, le=1, description="fraction of the training stamps with a hot pixel, cosmic ray, bright star or "
        "masked area far from the source",
    )  # fmt: skip
    ema: float | None = Field(
        None, gt=0, lt=1, description="momentum of a moving average of the weights, which is kept; null: no average"
    )
    orientations: Literal[1, 8] = Field(
        1, description="orientations of a stamp over which a fusion averages its network's logits"
    )
    network_weight: float | None = Field(
        None, ge=0, le=1, description="weight of a fusion's network; null: 0.3, or one that validation rows prefer"
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads; part of the result's identity. null: as many as the process has"
    )
    seed: int | None = Field(None, ge=0, description="seed of the trainings; null: the project's seed")
    init_from: str | None = Field(
        None, description="model to start from: folder, model.h5 or models:/name@alias; null: random weights"
    )
    freeze: int | str | list[str] | None = Field(
        None, description="layers of init_from kept as they are: the first so many, or beginnings of names; null: none"
    )
    n_trees: int = Field(400, ge=1, le=10_000, description="trees of measured and fusion")


class TuneParams(Section):
    """Search of the hyperparameters of bayesian_vgg6."""

    method: Literal["hyperband", "random", "bayesian"] = Field("hyperband", description="search method")
    objective: Literal["val_binary_crossentropy", "val_loss", "val_auc", "val_average_precision", "val_accuracy"] = (
        Field("val_binary_crossentropy", description="quantity that ranks trials; val_loss holds the L2 penalty too")
    )
    max_trials: int | None = Field(8, ge=1, description="trials at most; null: Hyperband decides")
    max_epochs: int = Field(6, ge=1, description="epochs of the longest trial")
    factor: float = Field(math.e, ge=2, description="Hyperband: ratio of epochs and trials of successive rounds")
    iterations: int = Field(2, ge=1, description="Hyperband: number of repetitions")
    max_parameters: int = Field(1_000_000, ge=1, description="weights of a network at most; larger ones are skipped")
    n_workers: int = Field(1, ge=1, description="trials at a time; part of the result's identity")
    space: dict[str, float | int | str | list[float | int | str]] = Field(
        default_factory=dict, description="narrower limits: [lowest, highest], or the names to choose from"
    )


class EvaluateParams(Section):
    """Evaluation of models."""

    models: tuple[Literal["vgg6", "bayesian_vgg6", "measured", "fusion", "tuned"], ...] | None = Field(
        None, min_length=1, strict=False, description="of train.models, and tuned; null: train.models"
    )
    n_samples: int = Field(N_SAMPLES, ge=2, description="posterior samples of a stamp")
    n_bootstrap: int = Field(500, ge=10, description="resamples for the intervals")
    threshold_fpr: float | None = Field(
        None, gt=0, lt=1, description="false-positive rate of the operating threshold; null: smallest mean error"
    )


class RecoveryParams(Section):
    """Transients that are injected into the held-out images to measure the found fraction of models."""

    n_per_image: int = Field(60, ge=1, description="transients injected into an image")
    min_mag: float = Field(16.0, description="brightest transient [mag]")
    max_mag: float = Field(21.0, description="faintest transient [mag]")
    max_offset_arcsec: float = Field(8.0, gt=0, description="largest distance from the host's centre [arcsec]")
    hostless_fraction: float = Field(0.2, ge=0, le=1, description="fraction of transients without a host")
    max_galaxy_mag: float = Field(18.0, description="faintest host galaxy, B [mag]")
    fpr: float = Field(
        0.02, gt=0, lt=1, description="false-positive rate on validation rows at which models are compared"
    )


class PeersParams(Section):
    """Comparison with other classifiers whose scores came with the stamps."""

    n_folds: int = Field(5, ge=0, description="trainings that score every row out of fold; 0: held-out rows only")
    n_seeds: int = Field(3, ge=1, description="repetitions of these trainings by other seeds, for their spread")
    models: tuple[str, ...] = Field(
        (), description="imported models that score the rows: folders or models:/NAME@ALIAS"
    )
    annotations: str | None = Field(
        None, description="csv with the ids of rows and the label that annotators agreed on (agreed: 1, 0 or empty), "
        "only for the table of scores; null: eye_labels.csv of the archive's folder, where there is one",
    )  # fmt: skip


class AdoptParams(Section):
    """Start of a survey's classifier from another survey."""

    parent: Path | None = Field(None, description="labelled data set of another survey, or model measured or fusion")
    keep: float = Field(0.95, gt=0, lt=1, description="fraction of each class that the conformal sets hold")
    strength: float = Field(3.0, gt=0, description="labels that the parent's opinion is worth at each node of a tree")


class ImportParams(Section):
    """Import of a model that was trained elsewhere."""

    layers: tuple[str, ...] = Field(
        (), description="layers of the stamps, in the order in which the network takes them"
    )
    size: int | None = Field(None, ge=1, description="side of the stamps [pixel]; null: as the file says")
    normalise: Literal["l2", "noise", "none"] = Field("none", description="normalisation of stamps before the network")
    real_column: int | None = Field(None, ge=0, description="column of the output that is the score of the real")
    threshold: float = Field(0.5, ge=0, le=1, description="lowest score of a real row")
    logits: bool = Field(False, description="the output is before the sigmoid or softmax")
    reference: Path | None = Field(None, description="npz with stamps x and the scores p that the network gave them")
    registry: bool = Field(True, description="register the model in the tracking store")


class PromoteParams(Section):
    """Registration of the best model."""

    name: str = Field("gotorb", min_length=1, description="registered name")
    metric: Literal["auc"] = Field("auc", description="quantity that compares models")


LINKS = {
    "Aladin Lite": "https://aladin.cds.unistra.fr/AladinLite/?target={ra}%20{dec}&fov=0.05",
    "SIMBAD": "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={ra}%20{dec}&Radius=10&Radius.unit=arcsec",
    "NED": "https://ned.ipac.caltech.edu/conesearch?search_type=Near%20Position%20Search&in_csys=Equatorial"
    "&in_equinox=J2000&ra={ra}d&dec={dec}d&radius=0.5",
    "Legacy Survey": "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&layer=ls-dr10&zoom=16&mark={ra},{dec}",
    "PS1": "https://ps1images.stsci.edu/cgi-bin/ps1cutouts?pos={ra}%20{dec}&filter=color&size=240",
    "TNS": "https://www.wis-tns.org/search?ra={ra}&decl={dec}&radius=10&coords_unit=arcsec",
    "Fritz": "https://fritz.science/alerts?ra={ra}&dec={dec}&radius=3&radius_unit=arcsec&group_by_obj=true",
    "ALeRCE": "https://alerce.online/?ra={ra}&dec={dec}&radius=10&page=1",
    "MPChecker": "https://minorplanetcenter.net/cgi-bin/mpcheck.cgi?year={year}&month={month}&day={day}&which=pos"
    "&ra={ra_hms}&decl={dec_dms}&TextArea=&radius=5&limit=22&oc=500&sort=d&mot=h&tmot=s&pdes=u&needed=f&ps=n&type=p",
}
"""Services that the pages link to by position and time; nothing is asked of them until a link is followed."""


LINK_VALUES = ("ra", "dec", "ra_hms", "dec_dms", "jd", "mjd", "date", "year", "month", "day", "id", "object_id")
"""Values of a row that the addresses of links may hold in braces."""


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0, description="seed of all random numbers")
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
    links: dict[str, str] = Field(LINKS, description="services that pages link to: name and template of the address")

    @field_validator("links")
    @classmethod
    def _link_only_to_web_pages(cls, links: dict[str, str]) -> dict[str, str]:
        for name, template in links.items():
            if not template.startswith(("https://", "http://")):
                raise ValueError(f"link {name!r} is no address ({template}); begin it with https://")
            unknown = {field for _, field, _, _ in Formatter().parse(template) if field is not None} - set(LINK_VALUES)
            if unknown:
                raise ValueError(f"link {name!r} wants {sorted(unknown)[0]!r}; choose of {', '.join(LINK_VALUES)}")
        return links

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


class PlaceParams(Section):
    """Inputs and outputs of a call, and its seed."""

    data_dir: Path | None = Field(None, description="folder of a data set")
    csv_path: Path | None = Field(None, description="csv with the columns photometry_id and label (1 real, 0 bogus)")
    model: str | None = Field(None, description="models:/NAME@ALIAS, models:/NAME/VERSION, model folder or model.h5")
    meta: Path | None = Field(None, description="meta.hkl of the model; null: next to the model")
    out_dir: Path | None = Field(None, description="folder to write into")
    out_path: Path | None = Field(None, description="file to write")
    name: str | None = Field(None, description="name of the new folder; an interrupted run's name resumes it")
    resume: bool = Field(True, description="keep what an interrupted run of this name has finished")
    seed: int = Field(SEED, ge=0, description="seed of all random numbers; equal seeds give equal results")


class FitParams(Section):
    """Choices of `classifier.train` that params.yaml does not make."""

    model: ModelName = Field("bayesian_vgg6", description="model to train")
    network: str | None = Field(
        None, description="trained Bayesian network of fusion: folder or model.h5; null: bayesian_vgg6 next to the new "
        "model if its recipe is the same, else one is trained",
    )  # fmt: skip
    optimizer: str = Field("adam", description="Keras name of the optimizer")
    loss: str = Field("binary_crossentropy", description="Keras name of the loss")
    metrics: tuple[str, ...] = Field((), description="Keras names of metrics besides accuracy and AUC")
    monitor: str = Field("val_loss", description="quantity that decides which epoch is best")
    monitor_mode: Literal["auto", "min", "max"] = Field("auto", description="direction in which it gets better")
    model_kwargs: dict[str, Any] | None = Field(None, description="more options of the network")
    real_column: int | None = Field(
        None, ge=0, le=1, description="column of the real in the output of an own network that ends with a softmax"
    )
    augment: bool = Field(True, description="flip and turn the training stamps")
    class_weights: str | None = Field("balanced", description="weight of each class's loss")
    tensorboard: bool = Field(False, description="write TensorBoard's files into the model's folder")
    verbose: int = Field(0, ge=0, le=2, description="Keras' progress: 0 none, 1 a bar, 2 a line per epoch")


class ScoreParams(Section):
    """Scores of images, archives and packets, in files and on pages."""

    n_samples: int = Field(N_SAMPLES, ge=0, description="posterior samples of a stamp; 0: plain scores only")
    threshold: float | None = Field(None, ge=0, le=1, description="lowest score of a real row; null: the model's own")
    n_processes: int = Field(1, ge=1, description="sources scored at a time")
    poll_s: float = Field(10.0, gt=0, description="time between looks at a watched folder [s]")
    batch_size: int = Field(BATCH_SIZE, ge=1, description="stamps scored at a time")
    features: bool = Field(False, description="add a column for each measured feature to the csv")
    neighbours: Path | None = Field(None, description="labelled data set whose most similar rows are shown")
    saliency: bool = Field(False, description="add a map of where the network looks (Grad-CAM)")
    eyeball: str = Field("", description="address of an eyeball to which ids lead, such as http://127.0.0.1:8650")
    data: Path | None = Field(None, description="training set with which the night is compared")
    evaluation: Path | None = Field(None, description="evaluation of the model, whose validation rows prove keep")
    keep: float = Field(
        0.99,
        gt=0,
        lt=1,
        description="with an evaluation: fraction of each class called right or left to an annotator",
    )
    n_audit: int = Field(100, ge=0, description="hidden detections drawn for labelling")


class StreamParams(Section):
    """Scores of alert streams."""

    group: str = Field("", description="consumer group; empty: GOTORB_KAFKA_GROUP in .env")
    schemas: str = Field("", description="folder of Avro schemas, or address of a schema registry; empty: by .env")
    start: str = Field("committed", description="first alerts: committed, earliest, latest, or a time (UTC)")
    until: str = Field("", description="last alerts: end (of the topic now), a time, or a number; empty: none")
    batch: int = Field(32, ge=1, le=10_000, description="alerts scored at a time")
    wait: float = Field(0.25, gt=0, le=60, description="longest wait for a full batch [s]")
    workers: int = Field(1, ge=1, description="processes that read and score")
    samples: int = Field(0, ge=0, description="posterior samples of a stamp; 0: plain scores only")
    threshold: float | None = Field(None, ge=0, le=1, description="lowest score of a real row; null: the model's own")
    publish: str = Field("", description="topic to which scores are published")
    above: float | None = Field(None, ge=0, le=1, description="lowest score published; null: the threshold")
    keep_packets: Path | None = Field(None, description="folder in which every packet is kept")
    data: Path | None = Field(None, description="training set with which inputs and scores are compared")
    strict: bool = Field(False, description="exit code 4 when alerts are missing because they expired at the broker")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="port of Prometheus metrics on this machine")
    max_dead: int = Field(100, ge=1, description="unreadable packets in a row at which the stream stops")
    max_dead_fraction: float = Field(0.5, gt=0, le=1, description="fraction unreadable of the last 1000, likewise")
    status_s: float = Field(5.0, gt=0, description="time between writes of status.json [s]")
    pause_s: float = Field(10.0, gt=0, description="time of a batch after which its partitions pause [s]")
    retry_s: float = Field(5.0, gt=0, description="first wait before an unknown schema is asked for again [s]")
    patience_s: float = Field(600.0, ge=0, description="wait for the schema of a lone packet [s]")


class AlertsParams(Section):
    """Data sets of alert packets."""

    labels: tuple[Literal["asteroid", "synthetic", "flags", "dipole", "vanished"], ...] = Field(
        ("asteroid", "synthetic", "flags", "dipole", "vanished"), strict=False, description="rules that give labels"
    )
    n_synthetic: int | None = Field(None, ge=0, description="sources pasted on Rubin's alerts; null: one per asteroid")
    size: int | None = Field(None, ge=15, description="side of the central part kept of a stamp [pixel]; null: all")
    seed: int = Field(SEED, ge=0, description="seed of the pasted sources")


class WhyParams(Section):
    """Explanation of one score."""

    n_samples: int = Field(50, ge=2, description="posterior samples of a stamp")
    model: str = Field("models:/gotorb@champion", description="model in question")


class AskParams(Section):
    """Choice of the rows to label next."""

    n: int = Field(100, ge=1, description="rows wanted")
    method: MethodName = Field("margin", description="measure of gain of a label; margin was best in our study")
    n_samples: int = Field(30, ge=2, description="posterior samples of a stamp")
    already: tuple[Path, ...] = Field((), description="csv files of earlier rounds, whose rows are not chosen again")


class CurvesParams(Section):
    """Learning curves of ways to choose labels."""

    methods: tuple[MethodName, ...] = Field(("bald", "margin", "random"), description="ways to choose; with random")
    n_start: int = Field(100, ge=1, description="rows labelled at first")
    n_step: int = Field(100, ge=1, description="rows chosen in a round")
    n_rounds: int = Field(5, ge=1, description="rounds of choosing")
    seeds: tuple[int, ...] = Field((1, 2, 3, 4, 5), description="seed of each repetition")
    n_steps: int = Field(400, ge=1, description="optimizer steps of a training")
    n_epochs: int = Field(10, ge=1, description="epochs into which the steps are divided")
    network: NetworkName = Field("bayesian_vgg6", description="network to train")
    batch_size: int = Field(32, ge=1, description="stamps of a training step")
    n_samples: int = Field(N_SAMPLES, ge=2, description="posterior samples of a stamp")
    threads: int = Field(2, ge=1, description="CPU threads; part of the result's identity")
    n_pool: int | None = Field(None, ge=1, description="train rows that take part; null: all")
    restart: bool = Field(False, description="start again where the kept rounds are of other data or another plan")


class EyeballParams(Section):
    """Pages for labelling, and the use of the decisions."""

    predictions: Path | None = Field(None, description="predictions.csv of an evaluation, instead of a model")
    labeller: str = Field("", description="name of the annotator; the page asks when it is empty")
    order: Literal["as_is", "uncertain", "bald", "disagreement", "suspects", "random"] = Field(
        "as_is", description="first order of the rows"
    )
    blind: bool = Field(False, description="begin with labels and scores hidden")
    n_samples: int = Field(N_SAMPLES, ge=2, description="posterior samples of a stamp")
    rows: Path | None = Field(None, description="csv with ids of the rows to show, in its order; null: all rows")
    gold: Path | None = Field(None, description="csv with id and label of rows known to be right, mixed in unseen")
    repeat: float = Field(0.0, ge=0, lt=1, description="fraction of the rows that is shown twice")
    journal: Path | None = Field(None, description="journal of decisions; null: eyeball.sqlite of the data set")
    host: str = Field("127.0.0.1", description="address on this machine")
    port: int = Field(8650, ge=0, le=65535, description="port; 0: a free one")
    flagged: Literal["keep", "remove"] = Field("keep", description="what happens to flagged rows")
    unsure: Literal["keep", "remove"] = Field("keep", description="what happens to rows on which all were unsure")
    most_stamps: int = Field(2000, ge=0, description="rows whose stamps are in the explorer's page")


class FetchParams(Section):
    """Catalogues of stars and galaxies, fetched from VizieR."""

    variables: Path = Field(Path("catalogues/variables.csv"), description="csv of variable stars to write or add to")
    galaxies: Path = Field(Path("catalogues"), description="folder in which GLADE/ is written or added to")
    tables: tuple[Literal["atlas", "gaia"], ...] = Field(
        ("atlas", "gaia"), min_length=1, description="of variable stars: ATLAS (Heinze et al. 2018), Gaia DR3"
    )
    max_mag: float = Field(18.5, description="faintest galaxy, B [mag]")
    margin_deg: float = Field(0.1, ge=0, description="reach beyond an image's corners [deg]")
    min_interval_s: float = Field(1.0, ge=0, description="time between two questions to the server [s]")
    attempts: int = Field(4, ge=1, description="times that a question is asked, until it is answered")


class DecideParams(Section):
    """Thresholds, comparisons and promotions."""

    data_dir: Path = Field(Path("data/dataset"), description="divided data set whose test rows decide")
    n_bootstrap: int = Field(1000, ge=10, description="resamples for the paired intervals")
    real_fraction: float = Field(0.05, gt=0, lt=1, description="part of a night's detections that is real")
    n_detections: int = Field(1000, ge=1, description="detections of a night")
    alpha: float = Field(0.01, gt=0, lt=1, description="chance at which a worse result counts as worse; of each slice")
    max_ece: float = Field(
        0.02,
        gt=0,
        le=1,
        description="calibration error tolerated in any case; a larger one must be explained by chance",
    )
    max_changed: float = Field(
        0.01,
        ge=0,
        le=1,
        description="fraction of clear calls that a hot pixel far from the source may change in any case",
    )
    min_rows: int = Field(20, ge=1, description="rows of the smallest slice that decides")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one level of dotted names.

    Parameters
    ----------
    tree : dict
    prefix : str
        Put before each name.

    Returns
    -------
    dict

    Examples
    --------
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

    Parameters
    ----------
    path : path

    Returns
    -------
    Params

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
        raise ConfigError(f"{path} is not valid YAML: {where}; fix the line named here") from None
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_describe(error)}") from None


def find_params(path: Path | str | None = None) -> Params:
    """Params of the given file, else of the project here, else the defaults.

    Parameters
    ----------
    path : path, optional

    Returns
    -------
    Params

    Raises
    ------
    ConfigError
        As for `read_params`.
    """
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
