"""Networks by name, for ``classifier.train(..., model=models.vgg6)`` and for use on their own.

Keras is imported when a network is built, so importing this module is quick.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gotorb.errors import ModelError

if TYPE_CHECKING:
    import keras

NAMES = ("vgg6", "bayesian_vgg6")


def vgg6(input_shape: tuple[int, int, int], **options: Any) -> "keras.Model":
    """Build the plain network; see `gotorb.training.networks.vgg6` for the options."""
    from gotorb.training import networks

    return networks.vgg6(input_shape, **options)


def bayesian_vgg6(input_shape: tuple[int, int, int], dropout: float = 0.01, **options: Any) -> "keras.Model":
    """Build the Bayesian network; see `gotorb.training.networks.bayesian_vgg6` for the options."""
    from gotorb.training import networks

    return networks.bayesian_vgg6(input_shape, dropout, **options)


def find_network(model: str | Callable[..., "keras.Model"]) -> Callable[..., "keras.Model"]:
    """Return the builder of a network from its name; a callable is returned as it is.

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
        raise ModelError(f"no network {model!r} (has {', '.join(NAMES)}); name one or give a function that builds one")
    return {"vgg6": vgg6, "bayesian_vgg6": bayesian_vgg6}[model]
