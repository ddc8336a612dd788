"""Run notebooks from top to bottom and keep their pictures, without times, paths or warnings of libraries."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TIMEOUT_S = 600


def main() -> None:
    """Execute the notebooks named on the command line, each in its own folder, and write them with their outputs."""
    for path in map(Path, sys.argv[1:]):
        nbformat.write(run_notebook(path), path)


def run_notebook(path: Path) -> nbformat.NotebookNode:
    """Execute a notebook in its own folder.

    Parameters
    ----------
    path : Path
        The notebook; the file does not change.

    Returns
    -------
    NotebookNode
        The notebook with its outputs.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    main()
