"""Write Rubin's alert schemas as gotorb ships them, names and types only: ``python -m pipelines.alert_schemas FOLDER``.

FOLDER holds a folder for each version with its .avsc files, as python/lsst/alert/packet/schema of lsst/alert_packet.
"""

import json
import sys
from pathlib import Path

from fastavro.schema import load_schema

from gotorb.core.files import write_text
from gotorb.survey.alerts.schemas import SHIPPED, plain_schema


def main() -> None:
    """Write all versions below the folder named on the command line."""
    write_text(SHIPPED, shipped_text(Path(sys.argv[1])))


def shipped_text(folder: Path) -> str:
    """One line for each version: its number, a tab, its schema as JSON.

    Parameters
    ----------
    folder : Path
        Folder of .avsc files, searched with all its subfolders.

    Returns
    -------
    str
    """
    found = {}
    for path in folder.rglob("lsst.v*_*.alert.avsc"):
        major, minor = path.name.split(".")[1].removeprefix("v").split("_")
        schema = json.loads(json.dumps(load_schema(str(path), _write_hint=False)))
        found[int(major), int(minor)] = json.dumps(plain_schema(schema), separators=(",", ":"))
    return "".join(f"{major}.{minor}\t{text}\n" for (major, minor), text in sorted(found.items()))


if __name__ == "__main__":
    main()
