"""Make labelled data sets of stamps that somebody else cut: the front door beside `label_data`."""

from pathlib import Path

from gotorb.params import ArchiveParams


def import_stamps(
    path: Path | str, archive: ArchiveParams, *, out_dir: Path | str = ".", name: str | None = None
) -> Path:
    """Make a labelled data set of stamps that somebody else cut.

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
    """
    from gotorb.labels.archive import label_archive
    from gotorb.labels.runs import run_folder, write_stamps
    from gotorb.survey.stamps import open_stamps

    source = open_stamps(path, archive)
    rows = label_archive(source.table, archive)
    with run_folder(out_dir, name) as data_dir:
        write_stamps(data_dir, rows, source)
    return data_dir
