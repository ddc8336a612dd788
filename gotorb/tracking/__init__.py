"""The only room that imports mlflow: runs, lineage, registry."""

import sys

from gotorb.tracking import mlflow_model

# The description of versions that were registered before names `gotorb.service` as their loader, and MLflow imports it
# by that name. No file is kept for it.
sys.modules.setdefault("gotorb.service", mlflow_model)
