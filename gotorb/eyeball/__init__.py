"""Look at stamps and decide: pages for labelling and for exploring a model's latent space, and the decisions.

Examples
--------
>>> from gotorb import eyeball
>>> eyeball.serve("data_20201105-203000", model="models:/gotorb@champion")  # doctest: +SKIP
>>> eyeball.agreement("data_20201105-203000")  # doctest: +SKIP
>>> eyeball.export("data_20201105-203000", name="data_looked_at")  # doctest: +SKIP
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gotorb.core import layout
from gotorb.core.params import SEED, EyeballParams, LabelParams, find_params
from gotorb.core.settings import read_settings
from gotorb.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gotorb.eyeball.rows import Rows


EYEBALL, LABEL = EyeballParams(), LabelParams()


def serve(
    data_dir: Path | str,
    *,
    model: str | None = None,
    predictions: Path | str | None = None,
    labeller: str = EYEBALL.labeller,
    order: str = EYEBALL.order,
    blind: bool = EYEBALL.blind,
    seed: int = SEED,
    n_samples: int = EYEBALL.n_samples,
    rows: Path | str | None = None,
    gold: Path | str | None = EYEBALL.gold,
    repeat: float = EYEBALL.repeat,
    journal: Path | str | None = None,
    stamp_size: int = LABEL.stamp_size,
    params: Path | str | None = None,
    host: str = EYEBALL.host,
    port: int = EYEBALL.port,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve the pages for a data set until interrupted: eyeball at ``/``, the latent explorer at ``/explorer``.

    Parameters
    ----------
    data_dir : path
        A data set, labelled or not; or what `gotorb score` reads: an image, a folder of images, a stamp archive, alert
        packets, a night of `gotorb night`, a stream's folder. Its stamps and decisions go into ``<name>.eyeball``.
    model : str, optional
        Model folder, ``model.h5`` or registry address, run on all rows before the pages open, in a process of its
        own; its answers are kept in the data set's folder. The explorer needs one.
    predictions : path, optional
        predictions.csv of an evaluation, instead of a model; the latest in a model's folder next to the data when
        both are left out.
    labeller : str
        Name of the labeller; the page asks when it is empty.
    order : str
        The first order (`gotorb.eyeball.rows.ORDERS`).
    blind : bool
        Labels, scores and other annotators' decisions are not sent to the page, and no key shows them.
    seed : int
        Of the order random, of posterior samples and maps.
    n_samples : int
        Posterior samples of each row.
    rows : path, optional
        csv with ids of the rows to show, in its order; all rows when left out.
    gold : path, optional
        csv with id and label of rows whose label is known; they are mixed into the others, one to every ten.
    repeat : float
        Fraction of the rows that are shown a second time, at least 40 rows later. Gold rows and repeats make the
        server blind; `agreement` gives accuracy and self-agreement.
    journal : path, optional
        The journal of decisions; eyeball.sqlite in the data set's folder when left out.
    stamp_size : int
        Side of the stamps that are cut from images, pixels.
    params : path, optional
        params.yaml with the layout of stamp archives and with the links; that of the project when left out.
    host, port : str, int
        Address on this machine; port 0 takes a free one.
    on_ready : callable
        Called with the page's address as soon as it can be opened.

    Raises
    ------
    DataError, ModelError
        If data set, journal or model cannot be used.
    ConfigError
        If the address is not of this machine or taken, or the order unknown or not possible.

    Examples
    --------
    >>> serve("data/dataset", model="models/small", order="uncertain", labeller="ann")  # doctest: +SKIP
    """
    import uvicorn

    from gotorb.eyeball.decisions import Journal
    from gotorb.eyeball.exchange import open_source
    from gotorb.eyeball.rows import find_given, read_gold, usable_orders
    from gotorb.eyeball.server import Start, make_app
    from gotorb.visualise.pages import Guard, check_bind, own_names

    check_bind(host)
    data_dir = open_source(data_dir, find_params(params).label.archive, stamp_size)
    shown = open_rows(data_dir, model=model, predictions=predictions, n_samples=n_samples, seed=seed)
    given = () if rows is None else find_given(rows, shown.data.table)
    known = () if gold is None else tuple(read_gold(gold, shown.data.table).index)
    shown = replace(shown, links=find_params(params).links, given=given, gold=known, repeated=repeat)
    blind = blind or shown.probes.hidden
    if not usable_orders(shown.table).get(order):
        usable = ", ".join(name for name, is_usable in usable_orders(shown.table).items() if is_usable)
        raise ConfigError(
            f"order {order!r} is not possible for {data_dir} (possible: {usable}); give a model or scores"
        )
    with _bind(host, port) as listening, closing(Journal(_journal_path(data_dir, journal))) as kept:
        port = listening.getsockname()[1]
        app = Guard(make_app(shown, kept, start=Start(labeller, order, seed, blind)), own_names(port))
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        config = uvicorn.Config(app, log_level="error", access_log=False, server_header=False, date_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def open_rows(
    data_dir: Path | str,
    *,
    model: str | None = None,
    predictions: Path | str | None = None,
    n_samples: int = EYEBALL.n_samples,
    seed: int = SEED,
) -> Rows:
    """Rows of a data set with scores of a model.

    Parameters
    ----------
    data_dir : path
    model, predictions : optional
        As for `serve`; at most one of the two.
    n_samples, seed : int
        As for `serve`.

    Returns
    -------
    Rows

    Raises
    ------
    DataError, ModelError
        As for `serve`.
    ConfigError
        If both a model and predictions are given.

    Examples
    --------
    >>> len(open_rows("data/dataset").table)
    20
    """
    from gotorb.dataset.store import open_dataset
    from gotorb.eyeball import inference
    from gotorb.eyeball.rows import Rows

    if model is not None and predictions is not None:
        raise ConfigError("a model and predictions were given; give one of the two")
    data = open_dataset(data_dir)
    if model is not None:
        asked = inference.ask_model(str(model), data.data_dir, n_samples=n_samples, seed=seed)
        return Rows(data=data, opinions=asked)
    found = Path(predictions) if predictions is not None else inference.find_predictions(data.data_dir)
    if found is None:
        return Rows(data=data, opinions=inference.no_opinion(len(data)))
    return Rows(data=data, opinions=inference.read_predictions(found, data.table["id"]))


def _journal_path(data_dir: Path | str, journal: Path | str | None = None) -> Path:
    """Path of the journal of decisions."""
    return Path(data_dir) / layout.EYEBALL_DB if journal is None else Path(journal)


def _read_journal(data_dir: Path | str, journal: Path | str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Last decision, and last tags and note, of each labeller on each row (`Journal.current`, `Journal.marks`).

    Raises
    ------
    DataError
        If there is no journal, or it is broken.
    """
    from gotorb.eyeball.decisions import Journal

    path = _journal_path(data_dir, journal)
    if not path.exists():
        raise DataError(f"no journal {path}, so no decisions yet; run `gotorb eyeball {data_dir}`")
    with closing(Journal(path)) as kept:
        return kept.current(), kept.marks()


def agreement(
    data_dir: Path | str, *, gold: Path | str | None = None, journal: Path | str | None = None
) -> pd.DataFrame:
    """Agreement of labellers with each other and with the data set, on rows that both call real or bogus.

    Parameters
    ----------
    data_dir : path
    gold, journal : path, optional
        As for `serve`.

    Returns
    -------
    DataFrame
        For each two: n rows, percent with Wilson's 95 % interval, Cohen's kappa with its own. With gold rows also
        each labeller's accuracy on these; with repeats each labeller's agreement with their own second look.

    Raises
    ------
    DataError
        If there is no journal, or the gold rows cannot be read.

    Examples
    --------
    >>> agreement("data/dataset")["kappa"].tolist()[0]  # of ann and bob
    0.5
    """
    from gotorb.dataset.store import read_table
    from gotorb.eyeball.decisions import compare_labellers
    from gotorb.eyeball.rows import read_gold

    table, (current, _) = read_table(data_dir), _read_journal(data_dir, journal)
    right = None if gold is None else read_gold(gold, table).rename(table["id"])
    return compare_labellers(current, table.set_index("id")["label"], right)


def export(
    data_dir: Path | str,
    *,
    journal: Path | str | None = None,
    flagged: str = EYEBALL.flagged,
    unsure: str = EYEBALL.unsure,
    out_dir: Path | str | None = None,
    name: str | None = None,
) -> Path:
    """Write a new version of the data set with the labellers' labels; the old one stays as it is.

    Of several labellers the majority decides; a row on which as many say one as the other keeps its label.

    Parameters
    ----------
    data_dir : path
        The data set that was served.
    journal : path, optional
        As for `serve`.
    flagged, unsure : {"keep", "remove"}
        Treatment of rows with the verdict flag, or unsure.
    out_dir, name : optional
        As for `clean_data.clean`.

    Returns
    -------
    Path
        The new folder; its changes.csv is the difference, eyeball.csv has the labels of each labeller.

    Raises
    ------
    DataError
        If there are no decisions.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = export("data/dataset", out_dir=folder, name="looked_at")
    ...     sorted(path.name for path in made.glob("*.csv"))
    ['changes.csv', 'data_labels.csv', 'eyeball.csv']
    """
    from gotorb.dataset.store import run_folder
    from gotorb.eyeball.decisions import write_labelled

    source, (current, marks) = Path(data_dir), _read_journal(data_dir, journal)
    with run_folder(out_dir or source.parent, name) as new_dir:
        return write_labelled(source, new_dir, current, marks, flagged=flagged, unsure=unsure)


def write_subjects(data_dir: Path | str, out_path: Path | str, *, rows: Path | str | None = None) -> Path:
    """Write stamps as a subject set of Zooniverse: pictures of science, template and difference, and manifest.csv.

    Parameters
    ----------
    data_dir : path
        A data set.
    out_path : path
        Folder of the pictures.
    rows : path, optional
        csv with ids of the rows; all when left out.

    Returns
    -------
    Path
        The manifest.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = write_subjects("data/dataset", Path(folder) / "subjects")
    ...     len(list(Path(folder, "subjects").glob("*.png")))
    20
    """
    import numpy as np

    from gotorb.dataset.store import open_dataset
    from gotorb.eyeball import exchange
    from gotorb.eyeball.rows import find_given

    data = open_dataset(data_dir)
    chosen = np.arange(len(data)) if rows is None else np.array(find_given(rows, data.table), int)
    return exchange.write_subjects(data, chosen, out_path)


def import_classifications(
    data_dir: Path | str, classifications: Path | str, *, journal: Path | str | None = None
) -> dict[str, int]:
    """Add classifications of Zooniverse's volunteers to the decisions on a data set, each of them once.

    Parameters
    ----------
    data_dir : path
    classifications : path
        The csv of a project's "classification export".
    journal : path, optional
        As for `serve`.

    Returns
    -------
    dict of int
        Number of each label, and of those on other rows.

    Raises
    ------
    DataError
        If the file is no export, or of none of the rows.

    Examples
    --------
    >>> import_classifications("data/dataset", "export.csv")  # doctest: +SKIP
    """
    from gotorb.eyeball import exchange

    return dict(exchange.import_classifications(data_dir, classifications, _journal_path(data_dir, journal)))


def write_labels(data_dir: Path | str, out_path: Path | str, *, journal: Path | str | None = None) -> int:
    """Write labels as csv of photometry_id, image_id and label.

    `label_data.add_marshall_cands` and `clean_data.relabel` read it.

    Parameters
    ----------
    data_dir, out_path : path
    journal : path, optional
        As for `serve`.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    DataError
        If there is no journal, or it is broken.

    Examples
    --------
    >>> write_labels("data/dataset", "labels.csv")  # rows on which annotators agree
    3
    """
    from gotorb.core.files import write_csv
    from gotorb.eyeball.decisions import list_labels

    found = list_labels(Path(data_dir), _read_journal(data_dir, journal)[0])
    write_csv(out_path, found, inert=True)
    return len(found)


def explore(
    data_dir: Path | str, model: str, out_path: Path | str, *, most_stamps: int = EYEBALL.most_stamps, seed: int = SEED
) -> Path:
    """Write the latent explorer as one self-contained page, for instance to be logged as an artifact of a run.

    Parameters
    ----------
    data_dir, model
        As for `serve`.
    out_path : path
        The html file.
    most_stamps : int
        Rows, drawn at random, whose stamps are in the page.
    seed : int
        Of that draw and of the map.

    Returns
    -------
    Path
        The same path.

    Examples
    --------
    >>> explore("data/dataset", "models/small", "map.html")  # doctest: +SKIP
    """
    from gotorb.core.files import write_text
    from gotorb.eyeball.explorer import write_page
    from gotorb.eyeball.server import Start, describe_set
    from gotorb.visualise.pages import read_part

    rows = open_rows(data_dir, model=model, seed=seed)
    names = ("explorer.html", "eyeball.css", "explorer.css", "page.js", "stretch.js", "points.js", "explorer.js")
    templates = {name: read_part(name) for name in names}
    told = describe_set(rows, Start()) | {"made_with": {"most_stamps": most_stamps, "seed": seed}}
    return write_text(out_path, write_page(rows, told, templates, most_stamps=most_stamps, seed=seed))


def get_candidate_data(
    ids: Iterable[int],
    *,
    out_dir: Path | str = ".",
    name: str | None = None,
    stamp_size: int = LABEL.stamp_size,
    n_processes: int = LABEL.n_processes,
) -> Path:
    """Make a data set without labels of candidates of the survey's database, to be looked at and labelled.

    Parameters
    ----------
    ids : iterable of int
        Ids of candidates.
    out_dir, name, n_processes
        As for `label_data.make`.
    stamp_size : int
        Side of the stamps in pixels.

    Returns
    -------
    Path
        The folder; label is -1 and metalabel empty.

    Raises
    ------
    DataError
        If the database knows none of the ids.
    DatabaseError
        If it cannot be reached.

    Examples
    --------
    >>> get_candidate_data([1234, 1235], name="tonight")  # doctest: +SKIP
    """
    from gotorb import label_data
    from gotorb.core.executor import Workers
    from gotorb.dataset.store import run_folder
    from gotorb.labels.jobs import make_shards, make_tasks
    from gotorb.labels.marshall import cut_candidates, make_marshall_tasks, tell_ids
    from gotorb.survey.gotophoto import query_candidates, query_images_by_id

    settings = read_settings()
    labels = pd.Series(layout.UNKNOWN, index=sorted({int(id_) for id_ in ids}))
    with run_folder(out_dir, name) as data_dir:
        candidates = query_candidates(settings, labels.index.tolist())
        if candidates.empty:
            raise DataError(f"none of {len(labels)} ids is a candidate of the database; correct the ids")
        tell_ids(sorted(set(labels.index) - set(candidates["candidate_id"])), "are not in the database")
        images = query_images_by_id(settings, sorted({int(id_) for id_ in candidates["image_id"]}))
        tasks = make_tasks(images, label_data.get_individual_images, settings)
        workers = Workers(n_processes, scheduler=settings.dask_scheduler_address)
        options = label_data.cut_options(stamp_size)
        make_shards(
            data_dir, make_marshall_tasks(tasks, candidates, labels), cut_candidates, options,
            workers=workers, title="candidates",
        )  # fmt: skip
    return data_dir


def _bind(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"port {port} of {host} cannot be used ({error}); choose another with --port") from None
    listening.listen(128)
    return listening
