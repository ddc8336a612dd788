"""Tell what belongs to a run, a registered model or a tagged version: data, models, runs, tags, commits.

Everything is joined by content (md5), so it works in any clone and for runs that were made before their commit.

Examples:
  gotorb lineage dataset-v1
  gotorb lineage models:/gotorb@champion
  gotorb lineage 3f0c9e6f1d5b4a0b8f6f0e3a1c2d4e5f --json
"""

import argparse
import json
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", help="run id, models:/NAME/VERSION, models:/NAME@ALIAS, or git tag or commit")
    parser.add_argument("--json", action="store_true", help="print json")


def run(args: argparse.Namespace) -> int:
    """Print the family."""
    from gotorb.tracking.lineage import find_family

    family = find_family(args.what)
    print(json.dumps(family.as_dict(), indent=2) if args.json else "\n".join(describe(family.as_dict())))
    return 0


def describe(family: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = []
    for one in family["data"]:
        lines.append(f"data   csv {one['labels_md5']} hdf5 {one['stamps_md5']}{_where(one)}")
    for one in family["models"]:
        names = ", ".join(one["registered"]) or "not registered"
        aliases = f" ({', '.join(one['aliases'])})" if one["aliases"] else ""
        lines.append(f"model  {one['md5']} {names}{aliases}{_where(one)}")
    lines += [f"run    {one['run_id']} {one['name']} {one['status'].lower()}" for one in family["runs"]]
    return lines or ["nothing is known of it"]


def _where(one: dict[str, Any]) -> str:
    tags = f", tags {', '.join(one['git_tags'])}" if one["git_tags"] else ""
    return f"{tags}, commit {one['commit'][:10]}" if one["commit"] else f"{tags}, not committed"
