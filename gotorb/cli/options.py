"""Options of a command: spelled, defaulted and explained as the parameters of the front door that it calls.

Names and defaults come from the function's signature; types, limits and texts from the sections of
`gotorb.core.params`.
"""

import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gotorb.core.params import ArchiveParams, Params, PlaceParams, Section, find_params, read_params

Front = Callable[..., Any]
SectionType = type[Section]
BOUNDS: dict[type, tuple[str, str]] = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"),
                                       Lt: ("lt", "below")}  # fmt: skip
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "anything"}
MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, model folder, model.h5, or an exported model.onnx"
METAVARS: dict[Any, str] = {int: "N", float: "X"}
PLAIN_WIDTH = 400
"""Characters of a table's line where no terminal limits it."""


def add_options(
    parser: argparse.ArgumentParser,
    front: Front,
    *sections: SectionType,
    required: Iterable[str] = (),
    skip: Iterable[str] = (),
    group: str = "",
) -> None:
    """Add an argument for each parameter of a function, class or section that a section describes.

    Parameters of the function without a default become positional arguments, others options. An option that is not
    given is not in the namespace, so that `chosen` passes only what the user chose.

    Parameters
    ----------
    parser : ArgumentParser
        The command's parser.
    front : callable
        The front door, an options class, or a section itself.
    *sections : type of Section
        Sections that describe its parameters, the first first; `PlaceParams` is always asked last.
    required : iterable of str
        Parameters that become required options instead of positional arguments.
    skip : iterable of str
        Parameters that get no argument.
    group : str
        Title in the help under which the arguments stand.
    """
    fields = known_fields(*sections)
    add = parser.add_argument_group(group).add_argument if group else parser.add_argument
    for name, parameter in inspect.signature(front).parameters.items():
        if name in fields and name not in skip:
            positional = parameter.default is inspect.Parameter.empty and name not in required
            _add(add, name, fields[name], parameter.default, positional=positional)


def add_params(parser: argparse.ArgumentParser) -> None:
    """Add ``--params``, by which options that are not given take the values of a params.yaml.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument("--params", metavar="FILE", help="params.yaml to take the options from that are not given")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument("--json", action="store_true", help="print json")


def archive_of(args: argparse.Namespace) -> ArchiveParams:
    """Layout of stamp archives and alert packets, of ``--params`` or of the project here.

    Parameters
    ----------
    args : namespace
        The command's.

    Returns
    -------
    ArchiveParams
        Section ``label.archive``.
    """
    return find_params(args.params).label.archive


def show(args: argparse.Namespace, value: Any, lines: Iterable[str]) -> None:
    """Print a result: as json with ``--json``, else in lines.

    Parameters
    ----------
    args : namespace
        The command's.
    value : any
        Plain values.
    lines : iterable of str
        The same for people.
    """
    print(json.dumps(value, indent=2) if args.json else "\n".join(lines))


def chosen(args: argparse.Namespace, front: Front, *sections: SectionType) -> dict[str, Any]:
    """Arguments for a function: what the user gave, and with ``--params`` the values of these sections.

    Parameters
    ----------
    args : Namespace
        Parsed arguments.
    front : callable
        As for `add_options`.
    *sections : type of Section
        Sections of params.yaml whose values count, the first first.

    Returns
    -------
    dict
        Parameter names and values; what is absent has the function's own default.

    Raises
    ------
    ConfigError
        If the file of ``--params`` cannot be used.
    """
    names = inspect.signature(front).parameters
    given = {name: value for name, value in vars(args).items() if name in names}
    path = getattr(args, "params", None)
    return (_from_file(read_params(path), names, sections) if path and sections else {}) | given


def call(args: argparse.Namespace, front: Front, *sections: SectionType, **more: Any) -> Any:
    """Call a front door with what `chosen` finds, and with `more`.

    Parameters
    ----------
    args : Namespace
        Parsed arguments.
    front : callable
        The front door.
    *sections : type of Section
        As for `chosen`.
    **more
        Arguments that no option gives.

    Returns
    -------
    object
    """
    return front(**chosen(args, front, *sections) | more)


def known_fields(*sections: SectionType) -> dict[str, FieldInfo]:
    """Fields of sections by name; where several have a name the first counts.

    Parameters
    ----------
    *sections : type
        Sections of `gotorb.core.params`.

    Returns
    -------
    dict of FieldInfo
        Field by name.
    """
    fields: dict[str, FieldInfo] = {}
    every: tuple[SectionType, ...] = (*sections, PlaceParams)
    for section in every:
        fields = section.model_fields | fields
    return fields | {"seed": PlaceParams.model_fields["seed"]}


def allowed(field: FieldInfo) -> str:
    """Allowed values of a field in words.

    Parameters
    ----------
    field : pydantic.fields.FieldInfo

    Returns
    -------
    str

    Examples
    --------
    >>> allowed(known_fields(PlaceParams)["seed"])
    'a whole number, at least 0'
    """
    bounds = {BOUNDS[type(one)]: getattr(one, BOUNDS[type(one)][0]) for one in field.metadata if type(one) in BOUNDS}
    kinds = [_kind(kind) for kind in _kinds(field.annotation)]
    if kinds == ["a number"] and set(bounds.values()) == {0, 1}:
        kinds = ["a fraction"]
    words = " or ".join(kinds) + "".join(f", {told} {value:g}" for (_, told), value in bounds.items())
    return words.replace("a fraction, at least 0, at most 1", "a fraction from 0 to 1").replace(
        "a fraction, above 0, below 1", "a fraction between 0 and 1"
    )


def say_next(text: str) -> None:
    """Print the next step on stderr, so that stdout holds results only.

    Parameters
    ----------
    text : str
    """
    print(f"next: {text}", file=sys.stderr)


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table; in colour on a terminal alone, and never cut elsewhere.

    Parameters
    ----------
    rows : sequence of mapping
        Column -> value, the same columns in each; nothing is printed without rows.
    """
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(name, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False, highlight=False).print(table)


def _from_file(params: Params, names: Mapping[str, Any], sections: Iterable[SectionType]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for wanted in reversed(tuple(sections)):
        name = next(key for key, field in Params.model_fields.items() if field.annotation is wanted)
        values |= {key: getattr(getattr(params, name), key) for key in wanted.model_fields}
    values["seed"] = params.seed if values.get("seed") is None else values["seed"]
    return {key: value for key, value in values.items() if key in names}


def _kinds(annotation: Any) -> list[Any]:
    """Parts of a union without None, or the type alone."""
    parts = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    return [part for part in parts if part is not NoneType]


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}" if len(parts) > 1 else f"{parts[0]}"
    if origin in (tuple, list):
        return "several of " + _kind(parts[0]).removeprefix("one of ") if get_origin(parts[0]) is Literal else "a list"
    return "a mapping" if origin is dict else KINDS.get(annotation, "a path")


def _add(add: Front, name: str, field: FieldInfo, default: Any, *, positional: bool) -> None:
    (kind, *more) = _kinds(field.annotation)
    listed = get_origin(kind) in (tuple, list) and not more
    words = allowed(field)
    text = field.description or ""
    if words not in ("text", "a path", "true or false", "a list"):
        text += f"; {words}"
    if positional:
        add(name, type=_reader(field, words), help=text.replace("%", "%%"))
        return
    text += "" if default in (inspect.Parameter.empty, None, "", ()) else f" (default: {_shown(default)})"
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%"), "dest": name}
    if kind is bool:
        options |= {"action": argparse.BooleanOptionalAction}
    else:
        element = FieldInfo.from_annotation(get_args(kind)[0]) if listed else field
        metavar = name.rsplit("_", 1)[-1].upper() if more else METAVARS.get(kind, name.rsplit("_", 1)[-1].upper())
        options |= {"type": _reader(element, words), "metavar": metavar}
        options |= {"nargs": "+"} if listed else {}
        options |= {"required": True} if default is inspect.Parameter.empty else {}
    add(f"--{name.replace('_', '-')}", **options)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return " ".join(map(str, default)) if isinstance(default, tuple | list) else str(default)


def _reader(field: FieldInfo, words: str) -> Callable[[str], Any]:
    """A function that makes a value of a word of the command line; null, lists and mappings as in YAML."""
    annotation: Any = field.annotation
    adapter = TypeAdapter[Any](Annotated[(annotation, *field.metadata)] if field.metadata else annotation)

    def read(text: str) -> Any:
        for value in _meanings(text):
            try:
                return adapter.validate_python(value)
            except ValidationError:
                continue
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; give {words}")

    return read


def _meanings(text: str) -> list[Any]:
    try:
        return [yaml.safe_load(text), text]
    except yaml.YAMLError:
        return [text]


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a dask cluster.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument("--dask-scheduler-address", "--scheduler", metavar="URL",
                        help="tcp://host:port of a dask cluster to work on")  # fmt: skip


def use_scheduler(args: argparse.Namespace) -> None:
    """Let a command's work go to the cluster that it names.

    Parameters
    ----------
    args : argparse.Namespace
    """
    if args.dask_scheduler_address:
        os.environ["DASK_SCHEDULER_ADDRESS"] = args.dask_scheduler_address
