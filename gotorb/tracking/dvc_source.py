"""MLflow's source of a data set that DVC keeps: ``mlflow.data.get_source(run_input).load()`` brings its files.

MLflow finds this module by its entry point while it is itself being imported. So nothing of ours imports it: a module
that is read before MLflow would be half made when MLflow asks for its class.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from mlflow.data.dataset_source import DatasetSource

from gotorb.tracking.contents import SOURCE_TYPE
from gotorb.tracking.versions import load_data


class DvcSource(DatasetSource):
    """Files of a data set by their md5, and their folder in the project.

    The methods with an underscore are those that MLflow asks of every kind of source.

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
        """Bring the files from DVC's cache or remote.

        Parameters
        ----------
        dst_path : str, optional
            Folder to put them in; a new one when left out.

        Returns
        -------
        str
            The folder.
        """
        return str(load_data(self.to_dict(), Path(dst_path or mkdtemp(prefix="gotorb-data-"))))

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> DvcSource:
        raise NotImplementedError("a DVC source is made by a tracked run, not from an address; give a run's input")

    def to_dict(self) -> dict[str, Any]:
        """Plain form, as MLflow stores it."""
        return {"path": self.path, "files": self.files}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> DvcSource:
        """Inverse of `to_dict` (called by MLflow).

        Parameters
        ----------
        source_dict : dict

        Returns
        -------
        DvcSource
        """
        return cls(source_dict["path"], source_dict["files"])

    def to_json(self) -> str:
        """`to_dict` as json."""
        return json.dumps(self.to_dict(), sort_keys=True)
