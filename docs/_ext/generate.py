"""Pages of the reference that are made from the code: commands, parameters, modules, file names."""

import contextlib
import importlib
import io
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import gotorb
from gotorb.cli import GROUPS, main
from gotorb.cli.options import allowed
from gotorb.core import layout
from gotorb.core.params import Params, Section

HIDDEN = ("__main__", "cli")
"""Rooms without a page: the commands have one of their own."""
EXAMPLES = """Examples that name files run in a small project: `data/dataset` has twenty rows, `models/small` is a
network, `images/visit.fits` shows Ceres, and `catalogues/` has minor planets and galaxies. `np`, `pd` and `Path` are
those of numpy, pandas and pathlib."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", shrink_titles)
    return {"parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    """Import the package as it is used, then write the pages.

    autodoc would import modules with ``TYPE_CHECKING`` set, which pydantic's models do not bear. Unchanged pages keep
    their date, so that Sphinx does not read them again.
    """
    importlib.import_module("mlflow")  # before gotorb.tracking, from which it takes a kind of data source
    here = Path(app.srcdir, "reference")
    pages = {"commands": commands(), "parameters": parameters(), "files": files()}
    pages |= {f"api/{name}": text for name, text in modules()}
    for name, text in pages.items():
        path = here / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands() -> str:
    """The command line: help of each command, by group."""
    parts = ["# Commands\n\nAn option is spelled as the parameter of the Python function that the command calls.\n"]
    for title, names in GROUPS.values():
        parts.append(f"## {title}\n")
        for name in names:
            parts.append(f"### gotorb {name}\n\n```text\n{_help(name)}\n```\n")
    return "\n".join(parts)


def _help(name: str) -> str:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        main([name, "--help"])
    return told.getvalue().rstrip()


def parameters() -> str:
    """Every parameter of params.yaml: default, allowed values, meaning."""
    lines = ["# Parameters\n\nEvery parameter of `params.yaml`. `gotorb params` prints the project's values.\n"]
    for name, section in _sections(Params(seed=0)):
        lines += [f"## {name}\n", "| parameter | default | allowed | meaning |", "|---|---|---|---|"]
        lines += [
            _row(section, field)
            for field in type(section).model_fields
            if not isinstance(getattr(section, field), Section)
        ]
        lines.append("")
    return "\n".join(lines)


def _sections(section: Section, prefix: str = "") -> Iterator[tuple[str, Section]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield f"{prefix}{name}", value
            yield from _sections(value, f"{prefix}{name}.")


def _row(section: Section, name: str) -> str:
    field: Any = type(section).model_fields[name]
    cells = (f"`{name}`", f"`{getattr(section, name)}`", allowed(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def files() -> str:
    """Names on disk and columns, from `gotorb.core.layout`."""
    columns = "\n".join(f"* `{name}`" for name in layout.LABEL_COLUMNS)
    layers, metalabels = (", ".join(f"`{name}`" for name in names) for names in (layout.LAYERS, layout.METALABELS))
    states = "\n".join(f"* `{name}`" for name in layout.IMAGE_STATES)
    return f"""# Files and columns

A data set is a folder with `{layout.LABELS_CSV}` (a row for each stamp) and `{layout.STAMPS_H5}` (array
`{layout.STAMPS_KEY}`, (n, size, size, n_layers), float32; `{layout.IDS_KEY}` holds the ids). Layers are {layers}.
A model is a folder with `{layout.MODEL_H5}` and `{layout.META_HKL}`.

## Columns of {layout.LABELS_CSV}

{columns}

Labels: {layout.REAL} real, {layout.BOGUS} bogus, {layout.UNKNOWN} unknown. Metalabels: {metalabels}.

## States of an image

Each image of a labelling run ends in one of them.

{states}
"""


def modules() -> Iterator[tuple[str, str]]:
    """A page for each public module, and an index of them by room."""
    lines, names = ["# Python functions\n\n" + EXAMPLES], []
    for found in sorted(pkgutil.walk_packages(gotorb.__path__, "gotorb."), key=lambda one: one.name):
        room = found.name.split(".")[1]
        if room in HIDDEN:
            continue
        module = importlib.import_module(found.name)
        depth, first_line = found.name.count("."), (module.__doc__ or "").splitlines()[0]
        link = f"[{found.name}]({found.name}.md): {first_line}"
        lines.append(f"\n## {room}\n\n{link}\n" if depth == 1 else f"* {link}")
        names.append(found.name)
        directive = f"```{{eval-rst}}\n.. automodule:: {found.name}\n   :members:\n```\n"
        yield found.name, f"# {found.name}\n\n{directive}"
    index = "\n".join(names)
    yield "index", "\n".join(lines) + f"\n\n```{{toctree}}\n:hidden:\n\n{index}\n```\n"


def skip_foreign(_: Sphinx, kind: str, name: str, thing: object, skip: bool, options: object) -> bool:
    """Leave out what a module imports, and type aliases."""
    return skip or not str(getattr(thing, "__module__", "")).startswith("gotorb")


def shrink_titles(_: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Make rubrics of the titles in a module's docstring: several modules have one called References."""
    for number in range(1, len(lines) if kind == "module" else 0):
        if lines[number] and not lines[number].strip("-") and lines[number - 1].strip():
            lines[number - 1 : number + 1] = [f".. rubric:: {lines[number - 1]}", ""]
