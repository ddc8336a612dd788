"""gotorb: a survey's own images in, a trusted real/bogus classifier out."""

import os

__version__ = "0.1.0"

# read by TensorFlow when it is imported: quiet, and oneDNN's kernels, which it would not take by itself on every
# processor that runs them (without them training takes twice as long there)
for _name, _value in {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}.items():
    os.environ.setdefault(_name, _value)
