"""The room that trains networks and draws posteriors; the only one that imports keras at module top."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow tells of missing GPUs on every start otherwise
