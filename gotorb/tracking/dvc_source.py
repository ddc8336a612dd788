"""MLflow's idea of a data set's source, for data that DVC keeps: ``mlflow.data.get_source(run_input).load()``."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from mlflow.data.dataset_source import DatasetSource

from gotorb.tracking.lineage import SOURCE_TYPE, load_data


class DvcSource(DatasetSource):
    """Files of a data set by their md5, and where in the project they stood.

    Parameters
    ----------
    path : str
        Folder in the project.
    files : dict
        File name -> md5.
    """

    def __init__(self, path: str, files: dict[str, str]) -> None:
        self.path, self.files = path, files

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE_TYPE

    def load(self, dst_path: str | None = None) -> str:
        """Bring the files from DVC's cache or remote into a folder, a new one when none is given."""
        return str(load_data(self.to_dict(), Path(dst_path or mkdtemp(prefix="gotorb-data-"))))

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> DvcSource:
        raise NotImplementedError("a DVC source is made by a tracked run, not from an address")

    def to_dict(self) -> dict[str, Any]:
        """Plain form, as MLflow stores it."""
        return {"path": self.path, "files": self.files}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> DvcSource:
        """The inverse of `to_dict`."""
        return cls(source_dict["path"], source_dict["files"])

    def to_json(self) -> str:
        """`to_dict` as json."""
        return json.dumps(self.to_dict(), sort_keys=True)
