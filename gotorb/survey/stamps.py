"""Ready-made stamps of either kind, an archive or alert packets, behind one contract."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from gotorb.errors import DataError
from gotorb.params import ArchiveParams
from gotorb.survey.alerts import find_packets, holds_packets, open_packets
from gotorb.survey.archives import open_archive


class StampSource(Protocol):
    """A table in the source's own columns, and its stamps in the same order."""

    @property
    def table(self) -> pd.DataFrame:
        """One row for each stamp."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the stamps' layers."""

    @property
    def size(self) -> int:
        """Side of a stamp in pixels."""

    def __len__(self) -> int:
        """Number of stamps."""

    def batches(self, batch: int = ...) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Prepared stamps and their missing fractions, a batch at a time."""


def open_stamps(path: Path | str, params: ArchiveParams) -> StampSource:
    """Open alert packets (a ``.avro`` file or a folder of them) or a stamp archive (anything else).

    Raises
    ------
    DataError
        If there is nothing there, or it cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no {path}; give a stamp archive's folder or hdf5, or a folder of alert packets")
    if holds_packets(path):
        return open_packets(find_packets(path), background=params.background, size=params.size)
    return open_archive(path, params)
