"""Files in the user's cache folder: each is put in place whole, and losing them costs only time."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write; it takes the place of `path` when the block ends well, else it goes.

    Examples
    --------
    >>> with whole_file(Path("answer.json")) as aside:  # doctest: +SKIP
    ...     aside.write_text("{}")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
