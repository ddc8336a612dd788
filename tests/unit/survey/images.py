"""Small FITS files of every kind that surveys write."""

import bz2
import gzip
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

NY, NX = 300, 400
"""More than one band of rows, and several tiles of 128 x 128."""
KINDS = ("float32", "float64", "int16", "int32", "uint16", "uint32", "scaled", "blank", "rows.fz", "squares.fz",
         "int.fz", "gzip.fz", "gz", "bz2", "xz")  # fmt: skip
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def make_header(*, ra: float = 150.0, dec: float = 2.0, sip: bool = True) -> fits.Header:
    """WCS of 1.24 arcsec per pixel, bent by up to a pixel and a half."""
    projection = "TAN-SIP" if sip else "TAN"
    header = fits.Header({"CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}", "JD": 2459000.5})
    header.update({"CRVAL1": ra, "CRVAL2": dec, "CRPIX1": NX / 2, "CRPIX2": NY / 2})
    header.update({"CD1_1": -1.24 / 3600, "CD1_2": 2e-6, "CD2_1": 2e-6, "CD2_2": 1.24 / 3600})
    if sip:
        header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-5, "A_1_1": 1e-5, "B_0_2": -3e-5, "B_2_0": 1e-5})
    return header


def make_pixels(seed: int = 0) -> np.ndarray:
    """(NY, NX) of noise around 100, float32, with a hole of NaN."""
    pixels = np.random.default_rng(seed).normal(100, 9, (NY, NX)).astype(np.float32)
    pixels[40:50, 60:75] = np.nan
    return pixels


def make_hdu(kind: str, name: str, header: fits.Header, seed: int = 0) -> Any:
    """Image HDU of one of `KINDS`; those of packed files are float32."""
    pixels = make_pixels(seed)
    whole = np.nan_to_num(pixels, nan=0)
    if kind == "scaled":
        hdu = fits.ImageHDU(whole, header, name)
        hdu.scale("int16", bscale=0.01, bzero=100.0)
        return hdu
    if kind == "blank":
        hdu = fits.ImageHDU(np.where(np.isnan(pixels), -32768, whole).astype(np.int16), header, name)
        hdu.header["BLANK"] = -32768
        return hdu
    if kind in ("rows.fz", "squares.fz"):
        return fits.CompImageHDU(pixels, header, name, tile_shape=(128, 128) if kind == "squares.fz" else None)
    if kind == "gzip.fz":
        return fits.CompImageHDU(pixels, header, name, compression_type="GZIP_2", quantize_level=0)
    if kind == "int.fz":
        return fits.CompImageHDU(whole.astype(np.uint16), header, name, tile_shape=(50, 70))
    return fits.ImageHDU(pixels if kind in PACKERS or kind[0] == "f" else whole.astype(kind), header, name)


def write_image(
    path: Path,
    kind: str = "float32",
    names: Sequence[str] = ("IMAGE",),
    *,
    table: Mapping[str, Any] | None = None,
    seed: int = 0,
    **where: Any,
) -> Path:
    """Write planes of one kind, and a table PHOTOMETRY_DIFF of the given columns."""
    hdus = [make_hdu(kind, name, make_header(**where), seed + i) for i, name in enumerate(names)]
    if table is not None:
        columns = [make_column(name, np.asarray(values)) for name, values in table.items()]
        hdus.append(fits.BinTableHDU.from_columns(columns, name="PHOTOMETRY_DIFF"))
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    if kind in PACKERS:
        path.write_bytes(PACKERS[kind](path.read_bytes()))
    return path


def make_column(name: str, values: np.ndarray) -> fits.Column:
    """Table column of numbers, text or bool."""
    code = {"f": "D", "i": "K", "b": "L", "U": f"{max(1, values.dtype.itemsize // 4)}A"}[values.dtype.kind]
    return fits.Column(name, code, array=values)
