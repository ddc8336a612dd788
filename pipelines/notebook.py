"""Run a notebook from top to bottom and keep its pictures in it, without times, paths or warnings of libraries."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TIMEOUT_S = 600


def main() -> None:
    """Execute the notebook named on the command line in its own folder."""
    path = Path(sys.argv[1])
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
