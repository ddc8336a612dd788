"""Networks by name, and trained models by path or registry address.

``classifier.train(..., model=models.vgg6)`` takes such a builder of networks, which can also be called alone. Keras is
imported when a network is built or read, so importing this module is fast.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotorb.core import layout
from gotorb.core.params import ImportParams, TrainParams, find_params
from gotorb.errors import ModelError

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
TRAIN, IMPORT = TrainParams(), ImportParams()
NAMES = ("vgg6", "bayesian_vgg6")
ON_FEATURES = ("measured", "fusion")
"""Models of `classifier.train` on measured features: trees alone, and trees with a Bayesian network."""


def vgg6(input_shape: tuple[int, int, int], **options: Any) -> "keras.Model":
    """Build the plain network.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp.
    **options
        Options of `gotorb.training.networks.vgg6`.

    Returns
    -------
    keras.Model

    Examples
    --------
    >>> vgg6((21, 21, 4)).count_params()
    25505
    """
    from gotorb.training import networks

    return networks.vgg6(input_shape, **options)


def bayesian_vgg6(input_shape: tuple[int, int, int], dropout: float = TRAIN.dropout, **options: Any) -> "keras.Model":
    """Build the Bayesian network.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp.
    dropout : float
        Fraction of feature maps, and of dense units, dropped.
    **options
        Options of `gotorb.training.networks.bayesian_vgg6`.

    Returns
    -------
    keras.Model

    Examples
    --------
    >>> bayesian_vgg6((21, 21, 4), dropout=0.2).name
    'bayesian_vgg6'
    """
    from gotorb.training import networks

    return networks.bayesian_vgg6(input_shape, dropout, **options)


def find_network(model: str | Callable[..., "keras.Model"]) -> Callable[..., "keras.Model"]:
    """Find the builder of a network.

    Parameters
    ----------
    model : str or callable
        Name, or the builder itself.

    Returns
    -------
    callable
        Function from the input shape to a network.

    Raises
    ------
    ModelError
        If no network has that name.

    Examples
    --------
    >>> find_network("vgg6") is vgg6
    True
    """
    if callable(model):
        return model
    if model not in NAMES:
        known = ", ".join((*NAMES, *ON_FEATURES))
        raise ModelError(f"no network {model!r} (has {known}); name one or give a function that builds one")
    return {"vgg6": vgg6, "bayesian_vgg6": bayesian_vgg6}[model]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A trained model and its identity.

    Attributes
    ----------
    model : keras.Model
        Network, which includes the normalisation.
    layers : tuple of str
        Layers of the stamps, in order; empty if unknown.
    name, version : str
        Registered name and version, or name of the folder and shortened digest of the file.
    digest : str
        Digest of the model file with its kind: ``sha256:`` or, from the registry, ``md5:``.
    meta : dict or None
        Content of its meta file; None without one, and for models from the registry.
    threshold : float
        Score at or above which it calls a row real; 0.5 if unknown.
    imported : bool
        True for a network trained elsewhere, or fine-tuned from such a network.
    calibration : tuple of float, optional
        Temperature and offset: probability = sigmoid(logit(score) / temperature + offset).
    """

    model: Any
    layers: tuple[str, ...]
    name: str
    version: str
    digest: str
    meta: dict[str, Any] | None = None
    threshold: float = 0.5
    imported: bool = False
    calibration: tuple[float, float] | None = None


def find_model(address: str | Path) -> Origin:
    """Load a trained model.

    Parameters
    ----------
    address : path
        Registry address (``models:/gotorb@champion``), folder or file.

    Returns
    -------
    Origin

    Raises
    ------
    ModelError
        If there is no such model, or it is broken.

    Examples
    --------
    >>> find_model("models/small").name
    'small'
    """
    from gotorb.tracking.registry import is_registry_uri, load_registered

    if is_registry_uri(address):
        network, registered = load_registered(str(address))
        return Origin(
            model=network, layers=tuple(registered.layers), name=registered.name, version=registered.version,
            digest=f"md5:{registered.md5}", threshold=registered.operating.threshold,
            imported="imported" in registered.tags, calibration=_scale(registered.operating._asdict()),
        )  # fmt: skip
    from gotorb.core.files import file_digest
    from gotorb.training.importing import load_model

    loaded = load_model(address)
    path = Path(address) / layout.MODEL_H5 if Path(address).is_dir() else Path(address)
    meta, digest = loaded.meta or {}, f"sha256:{file_digest(path)}"
    return Origin(
        model=loaded.model, layers=tuple(meta.get("layers", ())), name=path.resolve().parent.name,
        version=digest[:19], digest=digest, meta=loaded.meta, threshold=float(meta.get("threshold", 0.5)),
        imported="imported" in meta, calibration=_scale(meta.get("calibration", {})),
    )  # fmt: skip


def _scale(known: Mapping[str, Any]) -> tuple[float, float] | None:
    """Temperature and offset of a calibration; None without one."""
    return None if known.get("temperature") is None else (float(known["temperature"]), float(known["offset"]))


def import_model(
    path: str | Path,
    *,
    name: str,
    layers: Sequence[str],
    size: int | None = IMPORT.size,
    normalise: str = IMPORT.normalise,
    real_column: int | None = IMPORT.real_column,
    threshold: float = IMPORT.threshold,
    logits: bool = IMPORT.logits,
    reference: str | Path | None = None,
    out_dir: str | Path | None = None,
    registry: bool = IMPORT.registry,
) -> Path:
    """Import a network that was trained elsewhere, for scoring, comparison, fine-tuning and promotion.

    Networks of Keras 2, ONNX and SavedModels are rebuilt layer by layer, without running any code in the file
    (`gotorb.training.foreign`, `gotorb.training.onnx_graph`).

    Parameters
    ----------
    path : path
        Whole-model ``.h5`` of Keras 2 or 3, ``.keras`` or ``.onnx`` file, or folder of a SavedModel.
    name : str
        Name of the model's folder, and of the registered model.
    layers : sequence of str
        Layers of the stamps, in the order of the network's input.
    size : int, optional
        Side of the stamps [pixel]; default: the size in the file.
    normalise : {"l2", "noise", "none"}
        Normalisation of the stamps that the network was trained on, which becomes part of it.
    real_column : int, optional
        Column of real in the output; needed for a softmax.
    threshold : float
        Score at or above which it calls a stamp real.
    logits : bool
        True for an output before the sigmoid or softmax, which is then added.
    reference : path, optional
        npz with stamps ``x`` and the network's scores ``p`` of them; other scores are refused.
    out_dir : path, optional
        Parent of the folder; default: ``models``.
    registry : bool
        True to register the model in the tracking store.

    Returns
    -------
    Path
        Folder with model.h5 and meta.hkl.

    Raises
    ------
    ModelError
        If the file cannot be read safely, or its output is not a score in [0, 1] or differs from the reference.
    ConfigError
        If an option is impossible.

    Examples
    --------
    >>> import_model("braai_d6_m9.h5", name="braai", layers=("science", "template", "difference"),
    ...              normalise="l2")  # doctest: +SKIP
    """
    from gotorb.core.files import plain_name
    from gotorb.training import importing

    how = importing.ImportOptions(
        name=plain_name(name), layers=importing.check_layers(layers), size=size, normalise=normalise,
        real_column=real_column, threshold=threshold, logits=logits,
    )  # fmt: skip
    network, meta = importing.import_network(Path(path), how, None if reference is None else Path(reference))
    run_dir = importing.write_import(Path("models" if out_dir is None else out_dir) / how.name, network, meta)
    if registry:
        LOG.info("registered as %s", _register(run_dir, how.name, meta))
    return run_dir


def _register(run_dir: Path, name: str, meta: dict[str, Any]) -> str:
    """Record an imported model as a run and register it; equal files are registered once."""
    from gotorb.tracking.contents import md5
    from gotorb.tracking.registry import register
    from gotorb.tracking.runs import track_stage

    path = run_dir / layout.MODEL_H5
    tags = {"network": name, "layers": ",".join(meta["layers"]), "threshold": f"{meta['threshold']:.6f}"}
    tags |= {"imported": meta["imported"]["file"], "source_sha256": meta["imported"]["sha256"]}
    with track_stage("import", find_params(), name=f"import {name}") as run:
        run.log_params({f"import.{key}": value for key, value in meta["imported"].items()})
        run.log_model(path, tags={"network": name})
    return register(name, run.run_id, md5(path), tags).label
