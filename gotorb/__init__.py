"""gotorb: a survey's own images in, a trusted real/bogus classifier out.

From images to scores in five lines; each front door is a module that is imported when it is first used::

    import gotorb

    data_dir = gotorb.label_data.make(n_images=100)          # minor planets are real, unmatched detections bogus
    model, meta = gotorb.classifier.train(data_dir)          # a Bayesian network, in a folder next to the data
    gotorb.classifier.evaluate(model, meta)                  # metrics, intervals and plots of the held-out rows
    gotorb.visualise.make_pages(["night/"], meta["run_dir"], "pages")  # every detection of new images, with its score

The other front doors are ``clean_data``, ``import_data``, ``models``, ``hyperparameter_tuning``, ``active_learning``
and ``eyeball``. ``gotorb --help`` lists the same steps as commands; `gotorb.core.params` holds every default.
"""

import importlib
import os
from types import ModuleType

TITLE = "gotorb: a survey's own images in, a trusted real/bogus classifier out."
FRONT_DOORS = (
    "active_learning", "classifier", "clean_data", "eyeball", "hyperparameter_tuning", "import_data", "label_data",
    "models", "visualise",
)  # fmt: skip
HOMES = {"active_learning": "classifier.active_learning"}
"""Places of front doors that are inside a package."""
__version__ = "0.2.0"
__all__ = [*FRONT_DOORS, "__version__"]

# read by TensorFlow when it is imported: quiet, and oneDNN's kernels, which it would not take by itself on every
# processor that runs them (without them training takes twice as long there)
for _name, _value in {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> ModuleType:
    """Import a front door when it is first used (PEP 562)."""
    if name in FRONT_DOORS:
        return importlib.import_module(f"{__name__}.{HOMES.get(name, name)}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of this module, with front doors that were not used yet."""
    return sorted({*globals(), *FRONT_DOORS})
