"""Alert packets of Rubin, ZTF and surveys like it, one by one and as a source of stamps.

`framing` finds the records in a file or message, `schemas` knows their schemas, `records` decodes them, `content` says
what they mean, `cutouts` reads their images. A packet that cannot be used never stops the others.

References
----------
Masci et al. 2019 (PASP 131, 018003); https://zwickytransientfacility.github.io/ztf-avro-alert/;
https://sdm-schemas.lsst.io (Rubin's alert schemas)
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core.params import BATCH_SIZE, PACKET_FAMILIES, PacketFields
from gotorb.errors import DataError, PacketError
from gotorb.survey.alerts import records
from gotorb.survey.alerts.content import LAYERS, Alert, read_alert
from gotorb.survey.alerts.cutouts import MAX_BYTES
from gotorb.survey.alerts.schemas import SchemaStore, open_store
from gotorb.survey.pixels import crop_stamps, kept_size, prepare_stamps

__all__ = [
    "KEY_SUFFIX", "LAYERS", "MAX_BYTES", "PacketFolder", "PacketReader", "find_packets", "holds_packets", "make_reader",
    "open_packets", "read_packet", "stream_alerts", "stream_packets",
]  # fmt: skip

log = logging.getLogger(__name__)

SUFFIXES = (".avro", ".bin")
"""Names of files that hold alerts: object containers, and messages of a stream."""
KEY_SUFFIX = ".key"
"""Name of a message's key next to the message, which holds the schema in Fink's streams."""
SIZE, QUADRANT = PACKET_FAMILIES["ztf"].size, PACKET_FAMILIES["ztf"].detector or (0, 0)
"""Side of ZTF's cut-outs, and width and height of the image that they come from [pixel]."""


@dataclass(frozen=True, kw_only=True)
class PacketReader:
    """Alerts of files and messages of any framing and survey.

    Attributes
    ----------
    families : mapping of str to PacketFields
        Surveys like ZTF by the names in their packets.
    size : int, optional
        Side of Rubin's stamps, see `content.read_alert`.
    store : SchemaStore
        Schemas, parsed once for all packets.
    """

    families: Mapping[str, PacketFields] = field(default_factory=lambda: PACKET_FAMILIES)
    size: int | None = None
    store: SchemaStore = field(default_factory=open_store)

    def read_message(self, data: bytes, *, key: bytes | None = None, where: str = "message") -> Iterator[Alert]:
        """Read the alerts of a message of a stream.

        Parameters
        ----------
        data : bytes
            Object container, Confluent's wire format, or a bare record.
        key : bytes, optional
            The message's key, which holds the schema in Fink's streams.
        where : str
            For messages of errors.

        Yields
        ------
        Alert

        Raises
        ------
        PacketError
            If it cannot be used.
        """
        for block in records.split_message(data, self.store, key=key):
            yield from map(_raised, self._try_block(block, where))

    def read_file(self, path: Path) -> Iterator[Alert]:
        """Read the alerts of a file, a block of it at a time.

        Parameters
        ----------
        path : Path

        Yields
        ------
        Alert

        Raises
        ------
        PacketError
            If it cannot be used; the alerts before the broken one have come by then.
        """
        yield from map(_raised, self.try_file(path))

    def try_file(self, path: Path) -> Iterator[Alert | PacketError]:
        """Read the alerts of a file; in the place of one that cannot be used comes the error.

        Parameters
        ----------
        path : Path

        Yields
        ------
        Alert or PacketError
            Nothing follows on an error of the file itself.
        """
        try:
            for block in self._blocks(path):
                yield from self._try_block(block, str(path))
        except PacketError as error:
            text = str(error)
            yield PacketError(text if str(path) in text else f"{path} cannot be read as an Avro packet: {text}")
        except OSError as error:
            yield PacketError(f"{path} cannot be read as an Avro packet ({records.one_line(error)}); fetch it again")

    def read_records(self, path: Path) -> Iterator[records.Record]:
        """Read the records of a file as the survey wrote them, cut-outs included.

        Parameters
        ----------
        path : Path

        Yields
        ------
        dict

        Raises
        ------
        PacketError
            If it cannot be decoded.
        """
        for block in self._blocks(path):
            yield from records.read_records(block)

    def _blocks(self, path: Path) -> Iterator[records.Block]:
        """Records of a file; only of a large container are they read one block after the other."""
        key = path.with_suffix(KEY_SUFFIX)
        if path.exists() and not path.is_file():
            raise PacketError("no regular file; give files of alerts")
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) <= records.MAX_BLOCK:
                yield from records.split_message(
                    file.read(), self.store, key=key.read_bytes() if key.exists() else None
                )
            elif file.peek(len(records.CONTAINER))[: len(records.CONTAINER)] == records.CONTAINER:
                yield from records.split_container(file, size, self.store)
            else:
                raise PacketError(f"more than {records.MAX_BLOCK} bytes; give one alert in each file")

    def _try_block(self, block: records.Block, where: str) -> Iterator[Alert | PacketError]:
        for number, record in enumerate(records.read_records(block)):
            name = where if block.count == 1 else f"alert {number + 1} of {where}"
            try:
                yield read_alert(record, name, self.families, self.size)
            except PacketError as error:
                yield error


def _raised(found: Alert | PacketError) -> Alert:
    """The alert; an error is raised."""
    if isinstance(found, PacketError):
        raise found
    return found


def make_reader(packets: Mapping[str, PacketFields] | None = None, size: int | None = None) -> PacketReader:
    """Make a reader of the known surveys' packets and those that params.yaml describes, which come first.

    Parameters
    ----------
    packets : mapping, optional
        ``label.archive.packets``.
    size : int, optional
        See `PacketReader`.

    Returns
    -------
    PacketReader
    """
    return PacketReader(families=dict(packets or {}) | {
        name: known for name, known in PACKET_FAMILIES.items() if name not in (packets or {})
    }, size=size)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PacketFolder:
    """Alert packets on disk; unusable ones are left out and counted.

    Attributes
    ----------
    paths : tuple of Path
        Usable files.
    table : DataFrame
        A row for each alert, see `content.Alert`, in the order of `paths`.
    n_skipped : int
        Unusable files and alerts.
    reader : PacketReader
        Reads them again for their stamps.
    layers : tuple of str
    size : int
        Side of the stamps, of which the central pixels are kept.
    background : str
        See `survey.archives.StampArchive`.
    """

    paths: tuple[Path, ...]
    table: pd.DataFrame
    n_skipped: int
    reader: PacketReader
    layers: tuple[str, ...] = LAYERS
    size: int = SIZE
    background: str = "median"

    def __len__(self) -> int:
        return len(self.table)

    def batches(self, batch: int = BATCH_SIZE) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield prepared stamps, a batch at a time.

        Parameters
        ----------
        batch : int
            Largest number of stamps of a batch.

        Yields
        ------
        stamps : ndarray
            (m, size, size, n_layers), float32.
        missing : ndarray
            (m,) fraction of pixels without data.
        """
        alerts = _usable(self.paths, self.reader, _Skipped(quiet=True))
        while block := list(islice(alerts, batch)):
            stamps, missing = prepare_stamps(np.stack([alert.stamp for _, alert in block]), self.background)
            yield crop_stamps(stamps, self.size), missing


@dataclass
class _Skipped:
    """Count of what could not be used, and the first reason."""

    count: int = 0
    first: str = ""
    quiet: bool = False

    def add(self, error: PacketError) -> None:
        self.count, self.first = self.count + 1, self.first or str(error)
        if not self.quiet:
            log.warning("skipped packet: %s", error)


def open_packets(
    paths: Sequence[Path], *, background: str = "median", size: int | None = None, reader: PacketReader | None = None
) -> PacketFolder:
    """Read the records of alert packets.

    Parameters
    ----------
    paths : sequence of Path
        Files of one survey.
    background : {"median", "none"}
        See `survey.archives.StampArchive`.
    size : int, optional
        Central pixels kept of each stamp; all when left out.
    reader : PacketReader, optional
        Of the known surveys when left out.

    Returns
    -------
    PacketFolder

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    reader = reader or make_reader(size=size)
    skipped, rows, used = _Skipped(), [], set()
    layers: tuple[str, ...] = LAYERS
    side = SIZE
    for path, alert in _usable(paths, reader, skipped):
        rows.append(alert.record)
        used.add(path)
        layers, side = alert.layers, len(alert.stamp)
    kept = kept_size(side, size, "alert packets")
    return PacketFolder(
        paths=tuple(path for path in paths if path in used),
        table=pd.DataFrame(rows), n_skipped=skipped.count, reader=reader, layers=layers, size=kept,
        background=background,
    )  # fmt: skip


def stream_packets(
    paths: Sequence[Path], batch: int = BATCH_SIZE, reader: PacketReader | None = None
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Read packets once, a batch at a time, so that any number fits in memory.

    Parameters
    ----------
    paths, batch, reader
        As for `stream_alerts`.

    Yields
    ------
    table : DataFrame
        The records of `read_packet`.
    raw : ndarray
        (m, size, size, n_layers) stamps, NaN where there are no data.

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    for alerts in stream_alerts(paths, batch, reader):
        yield pd.DataFrame([alert.record for alert in alerts]), np.stack([alert.stamp for alert in alerts])


def stream_alerts(
    paths: Sequence[Path], batch: int = BATCH_SIZE, reader: PacketReader | None = None
) -> Iterator[list[Alert]]:
    """Read packets once, a batch at a time, so that any number fits in memory.

    Parameters
    ----------
    paths : sequence of Path
        Files of one survey.
    batch : int
        Largest number of alerts of a batch.
    reader : PacketReader, optional
        Of the known surveys when left out.

    Yields
    ------
    list of Alert
        All of the same survey, with stamps of the same layers and size.

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    alerts = _usable(paths, reader or make_reader(), _Skipped())
    while block := list(islice(alerts, batch)):
        yield [alert for _, alert in block]


def _usable(paths: Sequence[Path], reader: PacketReader, skipped: _Skipped) -> Iterator[tuple[Path, Alert]]:
    """Yield each alert with its file; one that cannot be used is logged and left out.

    Raises
    ------
    DataError
        If there is no usable alert.
    """
    first: Alert | None = None
    known: set[str] = set()
    for path in paths:
        for found in reader.try_file(path):
            odd = found if isinstance(found, PacketError) else _odd_one(found, first or found, path, known)
            if odd is not None:
                skipped.add(odd)
            elif isinstance(found, Alert):
                first = first or found
                known.add(found.record["candid"])
                yield path, found
    if first is None:
        reason = f"; the first: {skipped.first}" if skipped.first else ""
        raise DataError(f"none of {len(paths)} alert packets can be used{reason}; give Avro files of a known survey")


def _odd_one(alert: Alert, first: Alert, path: Path, known: set[str]) -> PacketError | None:
    """Reason to leave an alert out; None for most.

    Stamps of two surveys, or of two sizes, make no set: their pixels mean different things.
    """
    if (alert.survey, alert.layers, alert.stamp.shape) != (first.survey, first.layers, first.stamp.shape):
        return PacketError(
            f"{path} holds an alert of {alert.survey} with stamps {alert.stamp.shape}, the first was of {first.survey} "
            f"with {first.stamp.shape}; give one survey's packets"
        )
    if alert.record["candid"] in known:
        return PacketError(f"{path} holds alert {alert.record['candid']} once more; it counts once")
    return None


def find_packets(path: Path) -> list[Path]:
    """Packets of a folder, by name, or the one packet given.

    Parameters
    ----------
    path : Path
        A folder, or one packet.

    Returns
    -------
    list of Path
        Sorted by name.
    """
    return sorted(one for one in path.iterdir() if _is_packet(one)) if path.is_dir() else [path]


def holds_packets(path: Path) -> bool:
    """True for an alert packet or a folder of them.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
    """
    return any(map(_is_packet, path.iterdir())) if path.is_dir() else _is_packet(path)


def _is_packet(path: Path) -> bool:
    """True for what is named as a packet; a ``.bin`` must also begin as one."""
    if path.suffix.lower() not in SUFFIXES or (path.exists() and not path.is_file()):
        return False
    if path.suffix.lower() == SUFFIXES[0]:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4).startswith((records.CONTAINER, records.CONFLUENT))
    except OSError:
        return False


def read_packet(path: Path, reader: PacketReader | None = None) -> tuple[records.Record, np.ndarray]:
    """Read the one alert of a file.

    Parameters
    ----------
    path : Path
    reader : PacketReader, optional
        Of the known surveys when left out.

    Returns
    -------
    record : dict
        The survey's measurements and our columns, see `content.Alert`.
    stamp : ndarray
        (size, size, n_layers), by default science, template and difference; NaN where there are no data.

    Raises
    ------
    PacketError
        If the file is no packet or holds several alerts, a field is missing, or a cut-out cannot be read.
    """
    alerts = (reader or make_reader()).read_file(Path(path))
    alert = next(alerts, None)
    if alert is None or next(alerts, None) is not None:
        many = "no alert" if alert is None else "several alerts"
        raise PacketError(f"{path} holds {many}; use open_packets or stream_packets, which read any number")
    return alert.record, alert.stamp
