"""Known variable stars: a csv or FITS table with ra and dec in degrees (for instance ATLAS-VAR, Heinze et al. 2018)."""

from pathlib import Path

import pandas as pd

from gotorb.errors import CatalogueError


def read_variables(path: Path | str) -> pd.DataFrame:
    """Positions of known variable stars.

    Parameters
    ----------
    path : path
        csv, or FITS table; its columns of position are called ra and dec in any case.

    Returns
    -------
    DataFrame
        ra, dec (deg, ICRS).

    Raises
    ------
    CatalogueError
        If the file is missing, unreadable or without a needed column.
    """
    path = Path(path)
    try:
        table = _read_fits(path) if path.suffix in {".fits", ".fit"} else pd.read_csv(path)
    except FileNotFoundError:
        raise CatalogueError(f"no catalogue of variables {path}; correct clean.variables in params.yaml") from None
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path} cannot be read as a table ({error}); give csv or FITS") from None
    columns = {str(name).lower(): name for name in table.columns}
    absent = [name for name in ("ra", "dec") if name not in columns]
    if absent:
        raise CatalogueError(f"no column {absent[0]!r} in {path} (has {', '.join(map(str, table.columns))}); rename it")
    return pd.DataFrame({name: table[columns[name]].to_numpy(float) for name in ("ra", "dec")})


def _read_fits(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    return Table.read(path).to_pandas()
