"""The only room that imports mlflow: runs, lineage, registry."""
