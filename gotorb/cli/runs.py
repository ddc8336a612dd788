"""Give results that this tracking store has not seen their runs: of tags, of a pull, or restored from DVC's cache.

Numbers come from the reports that git keeps, models from DVC's cache; a model that has a run gets no second one.

Examples:
  gotorb runs import --all-tags     # a fresh clone after dvc pull: the comparison in the pages is complete again
  gotorb runs import HEAD
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importer = actions.add_parser("import", help="make the runs that are absent")
    importer.add_argument("revisions", nargs="*", help="tags, branches or commits")
    importer.add_argument("--all-tags", action="store_true", help="every tag that holds results")


def run(args: argparse.Namespace) -> int:
    """Print the names of the runs made."""
    from gotorb.errors import ConfigError
    from gotorb.params import find_params
    from gotorb.tracking.lineage import import_tags, import_versions

    if not args.all_tags and not args.revisions:
        raise ConfigError("nothing to import; name tags or commits, or give --all-tags")
    name = find_params().promote.name
    made = (import_tags(name=name) if args.all_tags else []) + import_versions(args.revisions, name=name)
    print("\n".join(made) if made else "every model has its runs")
    return 0
