"""Hunt for wrong labels in a data set by networks that have not seen them: the front door.

>>> from gotorb import label_errors
>>> found = label_errors.hunt("data_20200304-050607")  # doctest: +SKIP
>>> found.rows.head(20)  # the most doubtful first  # doctest: +SKIP
"""

from pathlib import Path

from gotorb import layout
from gotorb.core.files import write_csv
from gotorb.dataset.store import read_table
from gotorb.errors import DataError
from gotorb.evaluation.label_errors import LIST_COLUMNS, LabelErrors, find_label_errors
from gotorb.params import Params, find_params
from gotorb.peers import score_out_of_fold


def hunt(
    data_dir: Path | str, *, network: str = "bayesian_vgg6", params: Params | None = None, out: Path | str | None = None
) -> LabelErrors:
    """Score every row out of fold and rank the labels that are contradicted.

    Parameters
    ----------
    data_dir : path
        A data set; its own division is not used.
    network : str
        Which network is trained.
    params : Params, optional
        The recipe ``train``, ``peers.n_folds`` (trainings) and the seed; those of the project here when left out.
    out : path, optional
        csv to write, in the form of `evaluation.label_errors.LIST_COLUMNS`; label_errors.csv in the data set's folder
        when left out.

    Returns
    -------
    LabelErrors
        The ranked rows and the noise rate of each metalabel.

    Raises
    ------
    DataError
        If the data set cannot be used or has too few rows for the folds.
    """
    params = find_params() if params is None else params
    scores = score_out_of_fold(Path(data_dir), network, params)
    if scores.empty:
        raise DataError(f"too few labelled rows in {data_dir} for {params.peers.n_folds} folds; lower peers.n_folds")
    rows = read_table(data_dir).set_index("id", drop=False).loc[scores.index].assign(score=scores)
    found = find_label_errors(rows.reset_index(drop=True))
    path = Path(data_dir) / layout.LABEL_ERRORS_CSV if out is None else Path(out)
    write_csv(path, found.rows[list(LIST_COLUMNS)], float_format="%.6f")
    return found
