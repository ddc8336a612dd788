"""Run the pipeline: the embedded survey here, any other source in a folder of its own under sources/.

A source's folder holds its own params.yaml, dvc.yaml, data, models and reports, made from the project's, so
that no tracked file changes; tracking store and DVC cache are shared with the project. A study is such a folder of
the embedded survey, under studies/ and part of the project's repository: its reports and dvc.lock are committed.
studies/ is a DVC project of its own, so that `dvc` commands in the main one never see studies.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from gotorb.core import layout
from gotorb.core.params import Params, read_params
from gotorb.core.settings import read_settings
from gotorb.errors import ConfigError, GotorbError
from gotorb.tracking.contents import change_config, set_remote
from pipelines.agreement import print_results
from pipelines.stage_deps import ROOT, is_code, renew_deps

SOURCES_YAML = Path(__file__).with_name("sources.yaml")
DVC_YAML = "dvc.yaml"
PHASES = (("tune", "retrain", "evaluate@tuned"), ("train",), ("out_of_fold",)), (("truth", "injections"), ("evaluate",))
"""Groups of stages that run next to each other, after `FIRST`: no group waits for the results of another."""
EACH = "evaluate"
"""Stage that has a part for each model; without another group next to it, these parts run next to each other."""
N_LANES = 2
FIRST = "dataset"


def main() -> int:
    """Run `dvc repro` in the right folder."""
    parser = argparse.ArgumentParser(prog="make repro")
    parser.add_argument("--source", default="embedded", help="embedded, gotophoto, own, archive, packets or large")
    parser.add_argument("--data", type=Path, help="folder of the archive or the packets, or your own survey's adapter")
    args = parser.parse_args()
    try:
        read_params()
        here = Path.cwd() if args.source == "embedded" else make_workspace(args.source, args.data)
    except GotorbError as error:
        print(f"make repro: {error}", file=sys.stderr)
        return 1
    set_remote(_dvc_root(here.resolve()))
    code = run_stages(here)
    if code == 0:
        print_results(here)
    return code


def run_stages(here: Path) -> int:
    """Run `dvc repro`; where there is work to do, the stages of `PHASES` first, two at a time.

    DVC has no such option, but two of its processes may run stages of one project (``--single-item``: a process that
    checks what its stages need would find it in use by the other one).

    Parameters
    ----------
    here : Path
        Folder with a dvc.yaml.

    Returns
    -------
    int
        Exit code of the first command that failed, else 0.
    """
    models = yaml.safe_load((here / layout.PARAMS_YAML).read_text())[EACH]["models"]
    parts = [f"{EACH}@{model}" for model in models]
    known = {*yaml.safe_load((here / DVC_YAML).read_text())["stages"], *parts}
    commands = [[["repro", FIRST]]]
    for phase in PHASES:
        groups = [found for group in phase if (found := [name for name in group if name in known])]
        groups = [[part] for part in parts] if groups == [[EACH]] else groups
        commands.append([["repro", "--single-item", *group] for group in groups])
    if _run_dvc(here, [["status", "--quiet"]]) == 0:
        commands = []
    return next(filter(None, (_run_dvc(here, some) for some in (*commands, [["repro"]]))), 0)


def _run_dvc(here: Path, commands: Sequence[Sequence[str]]) -> int:
    """Run DVC commands, `N_LANES` at a time, and wait for all of them; the first exit code that is not 0.

    Lines of commands that run next to each other begin with the names of their stages.
    """
    # one that records the end of a stage holds the project's lock for a moment
    dvc, environment = [sys.executable, "-m", "dvc", "--wait-for-lock"], stage_environment()
    if len(commands) == 1:
        return subprocess.run([*dvc, *commands[0]], cwd=here, env=environment, check=False).returncode

    def run(words: Sequence[str]) -> int:
        with subprocess.Popen(
            [*dvc, *words], cwd=here, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as lane:
            for line in lane.stdout or ():
                print(f"{'/'.join(words[2:]):22s} | {line}", end="", flush=True)
        return lane.returncode

    with ThreadPoolExecutor(N_LANES) as lanes:
        return next(filter(None, list(lanes.map(run, commands))), 0)


def _dvc_root(here: Path) -> Path:
    """Folder of the DVC project that a folder belongs to: a source's own, all studies' one, or the main one."""
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def stage_environment() -> dict[str, str]:
    """This environment with this Python and the project's code first, since the stages call both by name."""
    first = {"PATH": Path(sys.executable).parent, "PYTHONPATH": ROOT}
    known = {name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)])) for name, path in first.items()}
    return os.environ | known


def make_workspace(source: str, data: Path | None) -> Path:
    """Make or refresh the folder in which a source's pipeline runs.

    Raises
    ------
    ConfigError
        If the source is unknown or its data are not there.
    """
    known = yaml.safe_load(SOURCES_YAML.read_text())
    if source not in known:
        raise ConfigError(f"unknown SOURCE={source}; choose one of embedded, {', '.join(known)}")
    if "folder" in known[source]:
        return make_study(known[source])
    if source == "own" and data is None and (adapter := read_settings().gotorb_adapter):
        data = Path(adapter).expanduser()
    if source != "gotophoto" and (data is None or not data.exists()):
        raise ConfigError(f"no DATA={data or ''} for SOURCE={source}; name the folder (own: the .py file): DATA=...")
    name = data.resolve().name.removesuffix(".py") if data else source
    _check_name(data.resolve() if data else Path(source))
    here = Path(layout.SOURCES_DIR, name)
    here.mkdir(parents=True, exist_ok=True)
    set_up_dvc(here)
    params = merge(yaml.safe_load(Path(layout.PARAMS_YAML).read_text()), known[source]["params"])
    params = merge(params, {"promote": {"name": f"{params['promote']['name']}-{name}"}})
    if source == "own":
        params = merge(params, {"label": {"adapter": str(data.resolve() if data else "")}})
    Params.model_validate(params)
    _write_yaml(here / layout.PARAMS_YAML, params)
    _write_yaml(here / DVC_YAML, source_stages(known[source], data.resolve() if data else None, here))
    return here


def set_up_dvc(here: Path) -> None:
    """Make a folder a DVC project that uses the cache of this one; an interrupted call leaves none.

    The cache is named relative to the folder: DVC cannot write a path with other letters than ASCII.
    """
    config = here / ".dvc" / "config"
    wanted = {("core", "no_scm"): "True", ("core", "analytics"): "false"}
    wanted |= {("cache", "dir"): os.path.relpath(Path(".dvc", "cache").resolve(), config.parent.resolve())}
    if not config.parent.exists():
        with TemporaryDirectory(dir=here, prefix=".setup-") as folder:
            made = Path(folder, ".dvc")
            subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
            change_config(made / "config", wanted)
            Path(folder, ".dvcignore").replace(here / ".dvcignore")
            made.rename(config.parent)
    change_config(config, wanted)


def make_study(change: dict[str, Any]) -> Path:
    """Make or refresh a study's params.yaml and dvc.yaml from the project's."""
    here = Path(change["folder"])
    here.mkdir(parents=True, exist_ok=True)
    params = merge(yaml.safe_load(Path(layout.PARAMS_YAML).read_text()), change["params"])
    Params.model_validate(params)
    _write_yaml(here / layout.PARAMS_YAML, params)
    _write_yaml(here / DVC_YAML, source_stages(change, None, here))
    return here


def _check_name(data: Path) -> None:
    """Refuse a folder whose path the shell or DVC's templates would read otherwise, or that names no model."""
    odd = sorted(set(str(data)) & set("'\"$`\\{}\n") | set(data.name) & set(":@"))
    if odd or not data.name:
        raise ConfigError(f"DATA={str(data)!r} cannot name a model ({' '.join(odd) or 'no name'}); rename the folder")


def source_stages(change: dict[str, Any], data: Path | None, here: Path) -> dict[str, Any]:
    """The project's stages, changed for a source, with code found from the source's folder."""
    stages = yaml.safe_load(Path(DVC_YAML).read_text())["stages"]
    stages = {name: stage for name, stage in stages.items() if name not in change["drop"]}
    for name, replacement in change.get("stages", {}).items():
        stages[name] = stages.get(name, {}) | replacement
        if name == "label" or "${data}" in replacement.get("cmd", ""):
            stages[name] = stages[name] | {
                "cmd": replacement["cmd"].replace("${data}", f"'{data}'"),
                "deps": [*stages[name]["deps"], str(data)],
            }
    made = {"survey": "data/survey", "injections": "evaluations/injections"}
    dropped_outs = {made[name] for name in change["drop"] if name in made}
    # files, not folders: outside of its own folder DVC would take __pycache__ for code
    renew_deps(stages, fold=False)
    for stage in stages.values():
        body = stage.get("do", stage)
        body["deps"] = [_from_workspace(dep, here) for dep in body["deps"] if dep not in dropped_outs]
    return {"stages": stages}


def _from_workspace(dep: str, here: Path) -> str:
    return str(Path(*[".."] * len(here.parts), dep)) if is_code(dep) else dep


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the second over the first.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    both = {key: merge(base[key], value) for key, value in change.items() if isinstance(value, dict) and key in base}
    return base | change | both


def _write_yaml(path: Path, tree: dict[str, Any]) -> None:
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=116)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
