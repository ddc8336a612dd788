"""Networks by name, and trained models by path or registry address.

``classifier.train(..., model=models.vgg6)`` takes a network, which may be used on its own too. Keras is imported
when a network is built or read, so importing this module is quick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotorb.core import layout
from gotorb.core.params import TrainParams
from gotorb.errors import ModelError

if TYPE_CHECKING:
    import keras

TRAIN = TrainParams()
NAMES = ("vgg6", "bayesian_vgg6")
ON_FEATURES = ("measured", "fusion")
"""Models that `classifier.train` makes of measured features: trees alone, and trees with a Bayesian network."""


def vgg6(input_shape: tuple[int, int, int], **options: Any) -> "keras.Model":
    """Build the plain network.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers).
    **options
        Of `gotorb.training.networks.vgg6`.

    Returns
    -------
    keras.Model
    """
    from gotorb.training import networks

    return networks.vgg6(input_shape, **options)


def bayesian_vgg6(input_shape: tuple[int, int, int], dropout: float = TRAIN.dropout, **options: Any) -> "keras.Model":
    """Build the Bayesian network.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers).
    dropout : float
        Fraction of feature maps, and of dense units, dropped.
    **options
        Of `gotorb.training.networks.bayesian_vgg6`.

    Returns
    -------
    keras.Model
    """
    from gotorb.training import networks

    return networks.bayesian_vgg6(input_shape, dropout, **options)


def find_network(model: str | Callable[..., "keras.Model"]) -> Callable[..., "keras.Model"]:
    """Return the builder of a network from its name; a callable is returned as it is.

    Parameters
    ----------
    model : str or callable

    Returns
    -------
    callable

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
    """A trained model and who it is.

    Attributes
    ----------
    model : keras.Model
        The network; normalises by itself.
    layers : tuple of str
        Layers it was trained on, in their order; empty when nothing names them.
    name, version : str
        Registered name and version, or the folder's name and the digest of the file, shortened.
    digest : str
        Of the model file, after the name of its kind: ``sha256:`` or, from the registry, ``md5:``.
    meta : dict or None
        Content of its meta file; None from the registry or without one.
    threshold : float
        Score at or above which it calls a row real; 0.5 when nothing names one.
    """

    model: Any
    layers: tuple[str, ...]
    name: str
    version: str
    digest: str
    meta: dict[str, Any] | None = None
    threshold: float = 0.5


def find_model(address: str | Path) -> Origin:
    """Load a trained model by registry address (``models:/gotorb@champion``), folder or file.

    Parameters
    ----------
    address : path

    Returns
    -------
    Origin

    Raises
    ------
    ModelError
        If there is no such model, or it is broken.
    """
    from gotorb.tracking.registry import is_registry_uri, load_registered

    if is_registry_uri(address):
        network, registered = load_registered(str(address))
        return Origin(
            model=network, layers=tuple(registered.layers), name=registered.name, version=registered.version,
            digest=f"md5:{registered.md5}", threshold=registered.operating.threshold,
        )  # fmt: skip
    from gotorb.core.files import file_digest
    from gotorb.training.model_files import load_training

    loaded = load_training(address)
    path = Path(address) / layout.MODEL_H5 if Path(address).is_dir() else Path(address)
    threshold = float((loaded.meta or {}).get("threshold", 0.5))
    layers, digest = tuple((loaded.meta or {}).get("layers", ())), f"sha256:{file_digest(path)}"
    return Origin(
        model=loaded.model,
        layers=layers,
        name=path.resolve().parent.name,
        version=digest[:19],
        digest=digest,
        meta=loaded.meta,
        threshold=threshold,
    )
