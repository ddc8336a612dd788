"""Small made-up stamp archives and alert packets, and where the real ones are."""

import gzip
import io
import os
from pathlib import Path
from typing import Any

import fastavro
import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

SIZE = 63
CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
CANDIDATE: dict[str, Any] = {
    "jd": 2459000.5, "rcid": 7, "magpsf": 18.5, "ra": 150.1, "dec": 2.2, "xpos": 1500.0, "ypos": 1500.0, "fwhm": 2.1,
    "rb": 0.9, "drb": 0.99, "ssdistnr": -999.0, "ssmagnr": -999.0, "ssnamenr": "null",
}  # fmt: skip


def real_data(name: str) -> Path:
    """A folder of real data; the test is skipped where there is none."""
    root = Path(os.environ.get("GOTORB_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"no real data in {root / name}; set GOTORB_TEST_DATA to the folder that holds {name}/")
    return root / name


def make_image(seed: int = 0, shape: tuple[int, int] = (SIZE, SIZE), sky: float = 0.0) -> np.ndarray:
    """Noise of 1 with a blob in the middle of a whole cut-out."""
    y, x = np.indices(shape) - SIZE // 2
    noise = np.random.default_rng(seed).normal(sky, 1, shape)
    return (noise + 50 * np.exp(-(x**2 + y**2) / 8)).astype(np.float32)


def pack(image: np.ndarray) -> bytes:
    """An image as the gzipped FITS of a packet."""
    buffer = io.BytesIO()
    fits.PrimaryHDU(image).writeto(buffer)
    return gzip.compress(buffer.getvalue(), mtime=0)


def write_packet(
    path: Path,
    candid: int | None = 1,
    *,
    images: np.ndarray | None = None,
    cutouts: dict[str, bytes | None] | None = None,
    leave_out: tuple[str, ...] = (),
    **candidate: Any,
) -> Path:
    """Write a packet with the fields that ours reads; `cutouts` replaces the bytes of some cut-outs."""
    stamp = np.stack([make_image(layer) for layer in range(3)], axis=-1) if images is None else images
    data = {name: pack(stamp[..., layer]) for layer, name in enumerate(CUTOUTS)} | (cutouts or {})
    inner = {name: value for name, value in (CANDIDATE | candidate).items() if name not in leave_out}
    record: dict[str, Any] = {"candid": candid, "objectId": "ZTF18abcdefg", "candidate": inner}
    record |= {name: None if one is None else {"fileName": "x.fits.gz", "stampData": one} for name, one in data.items()}
    record = {name: value for name, value in record.items() if name not in leave_out}
    with path.open("wb") as file:
        fastavro.writer(file, _schema(record), [record])
    return path


def _schema(record: dict[str, Any]) -> Any:
    kinds = {int: "long", float: "double", str: "string", type(None): "null"}
    stamp = {"name": "stampData", "type": "bytes"}
    cutout = {"type": "record", "name": "cutout", "fields": [{"name": "fileName", "type": "string"}, stamp]}
    inner = [{"name": name, "type": ["null", kinds[type(value)]]} if value is not None else
             {"name": name, "type": "null"} for name, value in record.get("candidate", {}).items()]  # fmt: skip
    fields: list[dict[str, Any]] = []
    for name in record:
        if name == "candidate":
            fields.append({"name": name, "type": {"type": "record", "name": "inner", "fields": inner}})
        elif name in CUTOUTS:
            fields.append({"name": name, "type": ["null", cutout]})
            cutout = "cutout"  # type: ignore[assignment]
        else:
            fields.append({"name": name, "type": ["null", "long", "string"]})
    return fastavro.parse_schema({"type": "record", "name": "alert", "fields": fields})


def make_table(n: int) -> pd.DataFrame:
    """Rows of an archive with the columns of the packets, in turn an asteroid, an old low score, nothing."""
    table = pd.DataFrame([CANDIDATE] * n)
    kind = np.arange(n) % 3
    return table.assign(
        candid=[str(10**17 + row) for row in range(n)],
        objectId=[f"ZTF{row:03d}" for row in range(n)],
        jd=2459000.5 + np.arange(n),
        ra=np.linspace(10, 20, n),
        ssdistnr=np.where(kind == 0, 0.5, np.nan),
        ssmagnr=np.where(kind == 0, 18.7, np.nan),
        ssnamenr=np.where(kind == 0, [f"{row}" for row in range(n)], None),
        drb_used=np.where(kind == 1, 0.01, 0.5),
        proxy_catalog=0,
        proxy_label=np.select([kind == 0, kind == 1], [1.0, 0.0], np.nan),
        peer=np.linspace(0, 1, n),
    )


def write_archive(folder: Path, n: int = 9, *, size: int = SIZE, table: pd.DataFrame | None = None) -> Path:
    """Write an archive of n stamps; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = make_table(n) if table is None else table
    stamps = np.random.default_rng(1).normal(100, 1, (n, size, size, 3)).astype(np.float32)
    with h5py.File(folder / "my_stamps.h5", "w") as file:
        file["stamps"], file["candid"] = stamps, make_table(n)["candid"].to_numpy().astype("S")
    table.to_csv(folder / "my_meta.csv", index=False)
    return folder
