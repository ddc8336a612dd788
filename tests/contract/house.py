"""Measure the structure of the code: files, lines, imports, circles, docstrings. ``python -m tests.contract.house``.

The contract tests hold these figures to the limits of `LIMITS`; docs/architecture.md draws the same tree.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ORDER = (
    "errors", "core", "survey", "catalogues", "stamps", "features", "dataset", "labels", "training", "evaluation",
    "tracking", "simulate", "label_data", "import_data", "clean_data", "models", "classifier", "hyperparameter_tuning",
    "visualise", "eyeball", "streams", "cli", "__main__", "pipelines", "studies",
)  # fmt: skip
"""Rooms from the lowest to the highest: a room imports only rooms before it."""
LIMITS = {
    "files": 190,
    "lines of code": 30_000,
    "names at the top": 22,
    "modules with one importer below 60 lines": 0,
    "circles": 0,
    "imports against the order": 0,
    "dataclasses over five fields built by position": 0,
    "functions with more than five positional arguments": 0,
    "function bodies over 50 lines": 0,
}
"""Largest allowed value of each figure."""
LEAST_DOCUMENTED = 1.0
"""Smallest allowed fraction of public functions with parameters whose docstring has a Parameters section."""
SMALL = 60
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: written by `python -m tests.contract.house --draw` -->", "<!-- end of tree -->"


class Import(NamedTuple):
    """One imported module: where, and whether it is imported with the file."""

    path: Path
    line: int
    module: str
    at_top: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def module_name(path: Path) -> str:
    """Dotted name of a file of the project."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """Room of a module: the name after ``gotorb``, or the folder outside it."""
    parts = module.split(".")
    return parts[1] if parts[0] == "gotorb" and len(parts) > 1 else parts[0]


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    """Python files of folders of the project."""
    return tuple(path for folder in folders or ("gotorb",) for path in sorted((ROOT / folder).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> frozenset[str]:
    """Names of all modules of the project."""
    return frozenset(map(module_name, sources("gotorb", "pipelines", "studies")))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Imports of a file, those under ``if TYPE_CHECKING`` left out; names of modules are resolved to the module."""
    code = tree(path)
    typing_only = {node for block in ast.walk(code) if _is_typing_block(block) for node in ast.walk(block)}
    inside = {
        node
        for function in ast.walk(code)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    return tuple(
        Import(path, node.lineno, module, node not in inside)
        for node in ast.walk(code)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in typing_only
        for module in _imported(node)
    )


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, "imports are absolute"
    full = {f"{node.module}.{alias.name}" for alias in node.names}
    yield from sorted(full & modules())
    if full - modules():
        yield str(node.module)


class House:
    """Figures of the present code."""

    def __init__(self) -> None:
        self.paths = sources("gotorb")
        self.lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in self.paths}

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Module -> modules of the project that it imports."""
        return {
            module_name(path): {found.module for found in imports(path) if found.module in modules()}
            - {module_name(path)}
            for path in sources("gotorb", "pipelines", "studies")
        }

    @cached_property
    def importers(self) -> dict[str, set[str]]:
        """Module -> modules of the package that import it."""
        found: dict[str, set[str]] = defaultdict(set)
        for module, targets in self.graph.items():
            for target in targets:
                found[target].add(module)
        return found

    def lines_of_code(self) -> int:
        """Lines that are neither blank nor part of a docstring."""
        return sum(map(lines_of_code, self.paths))

    def names_at_the_top(self) -> list[str]:
        names = {path.relative_to(ROOT / "gotorb").parts[0].removesuffix(".py") for path in self.paths}
        return sorted(names - {"__init__", "__main__"})

    def small_single(self) -> list[str]:
        """Modules below 60 lines that only one other module imports."""
        return [
            f"{module_name(path)} ({self.lines[path]} lines) of {min(self.importers[module_name(path)])}"
            for path in self.paths
            if path.name not in ("__init__.py", "__main__.py")
            and self.lines[path] < SMALL
            and len(self.importers[module_name(path)]) == 1
        ]

    def circles(self) -> list[str]:
        """Groups of modules that import each other, directly or through others."""
        return [" <-> ".join(group) for group in _strong_components(self.graph) if len(group) > 1]

    def against_order(self) -> list[str]:
        """Imports of a room that comes later in the order."""
        rank = {name: number for number, name in enumerate(ORDER)}
        return [
            found.where
            for path in sources("gotorb", "pipelines", "studies")
            for found in imports(path)
            if found.module in modules()
            and room(module_name(path)) in rank
            and room(found.module) in rank
            and rank[room(found.module)] > rank[room(module_name(path))]
        ]

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
        """Every function with its place, and whether it is public: no part of its name begins with an underscore."""
        for path in self.paths:
            yield from _functions(tree(path), module_name(path), public=True)

    def documented(self) -> tuple[int, int, list[str]]:
        """Public functions with parameters that have a Parameters section, all of them, and those without."""
        public = [
            (place, ast.get_docstring(node) or "")
            for place, node, seen in self.functions()
            if seen and _parameters(node) and not node.name.startswith("run_")  # a command's docstring is its help
        ]
        without = [place for place, text in public if "Parameters\n----" not in text]
        return len(public) - len(without), len(public), without

    def wide_dataclasses(self) -> list[str]:
        """Dataclasses with more than five fields that are not keyword-only."""
        return [
            f"{module_name(path)}.{node.name}"
            for path in self.paths
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ClassDef)
            and any(
                "dataclass" in ast.unparse(one) and "kw_only=True" not in ast.unparse(one)
                for one in node.decorator_list
            )
            and sum(isinstance(one, ast.AnnAssign) for one in node.body) > 5
        ]

    def wide_functions(self) -> list[str]:
        """Functions that take more than five arguments by position."""
        return [
            place
            for place, node, _ in self.functions()
            if len([one for one in (*node.args.posonlyargs, *node.args.args) if one.arg not in ("self", "cls")]) > 5
        ]

    def long_functions(self) -> list[str]:
        """Functions whose body, without its docstring, is over 50 lines."""
        return [place for place, node, _ in self.functions() if _body_lines(node) > 50]

    def repeated_constants(self) -> list[str]:
        """Constants (capitals, with a literal value) that several modules define by the same name."""
        homes: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            for node in tree(path).body:
                names = [one.id for one in getattr(node, "targets", []) if isinstance(one, ast.Name)]
                for name in names if isinstance(getattr(node, "value", None), ast.Constant) else []:
                    if name.isupper():
                        homes[f"{name} = {ast.unparse(node.value)}"].append(module_name(path))  # type: ignore[attr-defined]
        return [f"{name}: {', '.join(where)}" for name, where in sorted(homes.items()) if len(where) > 1]

    def figures(self) -> dict[str, int]:
        """All figures that have a limit."""
        return {
            "files": len(self.paths),
            "lines of code": self.lines_of_code(),
            "names at the top": len(self.names_at_the_top()),
            "modules with one importer below 60 lines": len(self.small_single()),
            "circles": len(self.circles()),
            "imports against the order": len(self.against_order()),
            "dataclasses over five fields built by position": len(self.wide_dataclasses()),
            "functions with more than five positional arguments": len(self.wide_functions()),
            "function bodies over 50 lines": len(self.long_functions()),
        }


def _functions(
    node: ast.AST, place: str, *, public: bool
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    for one in ast.iter_child_nodes(node):
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{place}.{one.name}", one, public and not one.name.startswith("_")
        elif isinstance(one, ast.ClassDef):
            yield from _functions(one, f"{place}.{one.name}", public=public and not one.name.startswith("_"))


def lines_of_code(path: Path) -> int:
    """Lines of a file that are neither blank nor part of a docstring, quotes included."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree(path)):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * ((text.end_lineno or 0) - text.lineno + 1)
    return sum(bool(line.strip()) for line in lines)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return [one.arg for one in every if one.arg not in ("self", "cls")]


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _strong_components(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of a graph, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def draw_tree() -> str:
    """Rooms and files at the top with the first lines of their docstrings, and names of modules, as markdown."""
    lines = []
    for path in sources("gotorb"):
        name = path.relative_to(ROOT / "gotorb").as_posix()
        text = (ast.get_docstring(tree(path)) or "").split("\n")[0].strip()
        if path.name == "__init__.py" and name != "__init__.py":
            modules = ", ".join(f"`{one.stem}`" for one in sorted(path.parent.glob("*.py")) if one != path)
            lines.append(f"- **{path.parent.relative_to(ROOT / 'gotorb').as_posix()}/**: {text} {modules}")
        elif "/" not in name and name != "__init__.py":
            lines.append(f"- `{name}`: {text}")
    return "\n".join(lines)


def drawn() -> str:
    """The tree as docs/architecture.md holds it."""
    return ARCHITECTURE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()


def write_tree() -> None:
    """Draw the tree into docs/architecture.md."""
    before, _, rest = ARCHITECTURE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    ARCHITECTURE.write_text(f"{before}{BEGIN}\n{draw_tree()}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Print the figures next to their limits, and with ``--details`` what counts; ``--draw`` draws the tree."""
    house = House()
    if "--draw" in sys.argv:
        write_tree()
        return 0
    for name, value in house.figures().items():
        print(f"{name:55s} {value:7d}  (limit {LIMITS[name]})")
    n_documented, n_public, without = house.documented()
    least = f"of {n_public} (at least {LEAST_DOCUMENTED:.0%})"
    print(f"{'public functions with parameters, documented':55s} {n_documented:7d}  {least}")
    rooms = Counter(room(module_name(path)) for path in house.paths)
    sizes: Counter[str] = Counter()
    for path in house.paths:
        sizes[room(module_name(path))] += house.lines[path]
    print("rooms: " + ", ".join(f"{name} {rooms[name]} files {sizes[name]} lines" for name in sorted(rooms)))
    if "--details" in sys.argv:
        for name in ("small_single", "circles", "against_order", "wide_dataclasses", "wide_functions", "long_functions",
                     "repeated_constants"):  # fmt: skip
            print(f"\n{name}")
            print("\n".join(f"  {line}" for line in getattr(house, name)()))
        print("\nwithout Parameters")
        print("\n".join(f"  {line}" for line in without))
    return 0


if __name__ == "__main__":
    sys.exit(main())
