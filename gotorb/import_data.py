"""Make labelled data sets of ready-made stamps: the front door next to `label_data`."""

from collections.abc import Sequence
from pathlib import Path

from gotorb.core import layout
from gotorb.core.files import content_states
from gotorb.core.params import AlertsParams, ArchiveParams
from gotorb.dataset.datapack import read_datapack
from gotorb.dataset.folder import unfinished
from gotorb.dataset.store import run_folder, write_dataset
from gotorb.errors import DataError
from gotorb.labels.alerts import make_alert_rows
from gotorb.labels.archive import label_archive, write_stamps
from gotorb.survey.alerts import find_packets, make_reader, open_packets
from gotorb.survey.archives import open_stamps
from gotorb.survey.ids import find_bad_id
from gotorb.survey.pixels import fill_missing


def import_stamps(
    path: Path | str, archive: ArchiveParams, *, out_dir: Path | str = ".", name: str | None = None
) -> Path:
    """Make a labelled data set of ready-made stamps.

    Parameters
    ----------
    path : path
        Folder of a stamp archive (one hdf5, one csv), or of alert packets (``*.avro``).
    archive : ArchiveParams
        Section ``label.archive`` of params.yaml: files, columns and rules.
    out_dir, name
        As for `make`.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    DataError
        If files are missing or broken, a column is absent, or no row gets a label.

    Examples
    --------
    >>> import tempfile, h5py, numpy as np, pandas as pd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(Path(folder) / "our_stamps.h5", "w") as file:
    ...         file["stamps"], file["candid"] = np.ones((2, 21, 21, 3), np.float32), [7, 8]
    ...     pd.DataFrame({"candid": [7, 8], "proxy_label": [1, 0]}).to_csv(Path(folder) / "our_meta.csv", index=False)
    ...     import_stamps(folder, ArchiveParams(labels="proxy"), out_dir=folder, name="ours").name
    'ours'
    """

    files = [Path(path)] if Path(path).is_file() else sorted(one for one in Path(path).rglob("*") if one.is_file())
    states = content_states(files, whole=True)
    source = open_stamps(path, archive)
    rows = label_archive(source.table, archive)
    with run_folder(out_dir, name) as data_dir:
        write_stamps(data_dir, rows, source, {"options": archive.model_dump(), "files": states})
    return data_dir


def import_alerts(
    paths: Sequence[Path | str], alerts: AlertsParams | None = None, archive: ArchiveParams | None = None, *,
    out_dir: Path | str = ".", name: str | None = None,
) -> Path:  # fmt: skip
    """Make a data set of alert packets, labelled without the survey's own score; see `gotorb.labels.alerts`.

    Parameters
    ----------
    paths : sequence of path
        Packets of one survey, or folders of them.
    alerts : AlertsParams, optional
        Rules, number of pasted sources, size of stamps.
    archive : ArchiveParams, optional
        Section ``label.archive`` of params.yaml: packets of other surveys, and the background of stamps.
    out_dir, name
        As for `import_stamps`.

    Returns
    -------
    Path
        The data set's folder. Rows without a label have -1.

    Raises
    ------
    DataError
        If there is no usable packet, or no row gets a label.

    Examples
    --------
    >>> import_alerts(["packets"], name="alerts")  # doctest: +SKIP
    """

    alerts, archive = alerts or AlertsParams(), archive or ArchiveParams()
    if missing := [path for path in paths if not Path(path).exists()]:
        raise DataError(f"no {missing[0]}; give alert packets or folders of them")
    files = [file for path in paths for file in find_packets(Path(path))]
    reader = make_reader(archive.packets, alerts.size)
    source = make_alert_rows(
        open_packets(files, background=archive.background, size=alerts.size, reader=reader), alerts
    )  # fmt: skip
    with run_folder(out_dir, name) as data_dir:
        write_stamps(data_dir, source.table, source)
    return data_dir


def import_datapack(
    path: Path | str,
    *,
    out_dir: Path | str = ".",
    name: str | None = None,
    layers: Sequence[str] | None = None,
) -> Path:
    """Make a data set of a published validation pack (``datapack.hkl``), once; see `gotorb.dataset.datapack`.

    Nothing that the file holds is run. Pixels without a number become 0, as in every data set.

    Parameters
    ----------
    path : path
        The hickle file.
    out_dir, name
        As for `import_stamps`.
    layers : sequence of str, optional
        Names of the layers of its stamps; science, template, difference and peak-to-peak, as many as there are, when
        left out.

    Returns
    -------
    Path
        The data set's folder. Rows have no split: all of them may be used to evaluate a model.

    Raises
    ------
    DataError
        If the file is refused or broken, or its table has no label.

    Examples
    --------
    >>> import_datapack("datapack.hkl", name="validation")  # doctest: +SKIP
    """

    pack = read_datapack(path)
    named = tuple(layers or layout.LAYERS[: pack.stamps.shape[-1]])
    if "label" not in pack.meta or len(named) != pack.stamps.shape[-1]:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, pack.meta))} and {pack.stamps.shape[-1]} layers; a column "
            f"'label' and a name for each layer ({', '.join(named)}) are needed"
        )
    table = pack.meta.reset_index(drop=True)
    ids = table["id"].astype(str) if "id" in table else table.index.astype(str)
    if "id" in table and (problem := find_bad_id(table["id"])):
        raise DataError(f"column 'id' of {path} has {problem}; give each row one id, text or a whole number")
    metalabels = table.get("metalabel", "")
    stamps, missing = fill_missing(pack.stamps.astype("float32"))
    rows = table.assign(id=ids, metalabel=metalabels, missing_fraction=missing)
    recipe = {"options": named, "files": content_states([path], whole=True)}
    with run_folder(out_dir, name) as data_dir, unfinished(data_dir, recipe):
        write_dataset(data_dir, rows, [stamps], layers=named)
    return data_dir
