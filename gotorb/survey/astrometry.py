"""World coordinates of an image in ICRS: axes in any order, other frames, and distortions applied or refused."""

import re
import warnings
from typing import Any

import numpy as np
from astropy.coordinates import ICRS, SkyCoord
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import wcs_to_celestial_frame

WCS_CARDS = ("WCSAXES", "CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CD1_", "CD2_", "CD3_", "CD0", "PC1_", "PC2_",
             "PC3_", "PC0", "CROTA", "LONPOLE", "LATPOLE", "RADESYS", "RADECSYS", "EQUINOX", "EPOCH", "PV1_", "PV2_",
             "PV3_", "A_", "B_", "AP_", "BP_", "NAXIS")  # fmt: skip
"""First letters of the cards that make a WCS; parsing these alone is several times faster."""
IRAF_CARDS, TABLE_CARDS = ("WAT",), ("CPDIS", "CQDIS", "DP1", "DP2", "DQ1", "DQ2", "D2IM", "AXISCORR", "CPERR")
"""Cards of distortions: IRAF's polynomials (TNX, ZPX), and tables in further HDUs."""
IRAF_PROJECTIONS, DISTORTIONS = ("TNX", "ZPX"), ("", "SIP")
AXIS_TYPES = {"RA", "GLON"}
"""Longitudes whose frame astropy converts to ICRS; it takes ecliptic and solar ones for ICRS in silence."""
SCALE_CARDS = ("CDELT1", "CD1_1", "CD1_2", "PC1_1", "PC1_2", "CD001001", "CD001002", "PC001001", "PC001002")
"""Without any of these a pixel would be a degree."""
CTYPE = re.compile(r"(?P<axis>\w{1,4}?)-+(?P<projection>\w{3})(?:-(?P<distortion>\w+))?\s*$")


class Astrometry:
    """Conversion between pixels (0-based centres) and ICRS positions.

    Parameters
    ----------
    wcs : WCS
        Two celestial axes, in the order of the header.

    Attributes
    ----------
    wcs : WCS
        Two celestial axes, in the order of the header.
    """

    def __init__(self, wcs: WCS) -> None:
        self.wcs = wcs
        self._frame = wcs_to_celestial_frame(wcs)
        self._longitude = int(wcs.wcs.lng)

    @property
    def scale_arcsec(self) -> float:
        """Side of a pixel of the same area."""
        return float(np.sqrt(abs(np.linalg.det(self.wcs.pixel_scale_matrix))) * 3600)

    def to_sky(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Convert pixels to sky positions.

        Parameters
        ----------
        x, y : array_like
            (n,) 0-based pixel centres.

        Returns
        -------
        ra, dec : ndarray
            (n,) deg, ICRS; NaN where the projection has no sky, and for positions that are not finite.
        """
        xy = np.column_stack([np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))])
        sky, finite = np.full(xy.shape, np.nan), np.isfinite(xy).all(axis=1)
        if finite.any():
            sky[finite] = self.wcs.all_pix2world(xy[finite], 0)
        longitude, latitude = sky[:, self._longitude], sky[:, 1 - self._longitude]
        if isinstance(self._frame, ICRS):
            return longitude, latitude
        place = SkyCoord(longitude, latitude, unit="deg", frame=self._frame).icrs
        return np.asarray(place.ra.deg), np.asarray(place.dec.deg)

    def to_pixels(self, ra: Any, dec: Any, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Convert sky positions to pixels.

        Distortions are fitted to the image and mean nothing far off it, where their inverse diverges. So positions
        more than the image's longer side off it, and those that do not converge, have no pixel.

        Parameters
        ----------
        ra, dec : array_like
            (n,) deg, ICRS.
        shape : (int, int)
            (ny, nx) of the image.

        Returns
        -------
        x, y : ndarray
            (n,) 0-based pixel centres; NaN where there is none.
        """
        ra, dec = np.asarray(ra, float), np.asarray(dec, float)
        if len(ra) == 0:
            return np.empty(0), np.empty(0)
        world = self._world(ra, dec)
        xy = np.array(self.wcs.wcs_world2pix(world, 0))
        beyond, size = max(shape), np.array(shape[::-1])
        near = ((xy > -beyond) & (xy < size + beyond)).all(axis=1)
        xy[~near] = np.nan
        if near.any() and self.wcs.has_distortion:
            try:
                xy[near] = self.wcs.all_world2pix(world[near], 0)
            except NoConvergence as failed:
                found = failed.best_solution
                for rows in (failed.divergent, failed.slow_conv):
                    if rows is not None:
                        found[rows] = np.nan
                xy[near] = found
        return xy[:, 0].copy(), xy[:, 1].copy()

    def _world(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """(n, 2) world coordinates in the frame and the order of the header."""
        if not isinstance(self._frame, ICRS):
            place = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(self._frame).spherical
            ra, dec = place.lon.deg, place.lat.deg
        return np.column_stack([ra, dec] if self._longitude == 0 else [dec, ra])


def wcs_cards(header: fits.Header) -> list[tuple[str, Any]]:
    """Cards that decide an image's world coordinates: two headers with equal cards share them.

    Parameters
    ----------
    header : Header

    Returns
    -------
    list of (str, value)
    """
    names = (*WCS_CARDS, *IRAF_CARDS, *TABLE_CARDS)
    return [(card.keyword, card.value) for card in header.cards if card.keyword.startswith(names)]


def read_astrometry(header: fits.Header, hdus: fits.HDUList | None = None) -> Astrometry:
    """Astrometry of a header.

    Parameters
    ----------
    header : Header
    hdus : HDUList, optional
        The file, for distortions that are tables in other HDUs.

    Returns
    -------
    Astrometry

    Raises
    ------
    ValueError
        If the cards contradict each other, or ask for a projection, frame or distortion that is not supported.
    """
    types = _check_types(header)
    if not any(header.get(name) for name in SCALE_CARDS):
        raise ValueError("no pixel scale")
    names: tuple[str, ...] = WCS_CARDS
    if any(projection in IRAF_PROJECTIONS for _, projection in types):
        names = (*names, *IRAF_CARDS)
    tables = [card.keyword for card in header.cards if card.keyword.startswith(TABLE_CARDS)]
    if tables:
        _check_tables(header, tables, hdus)
        names = (*names, *TABLE_CARDS)
    chosen = fits.Header([card for card in header.cards if card.keyword.startswith(names)])
    _name_polynomial(chosen)
    with warnings.catch_warnings(action="ignore", category=AstropyWarning):
        wcs = WCS(chosen, fobj=hdus if tables else None)
    return Astrometry(_celestial(wcs))


def _check_types(header: fits.Header) -> list[tuple[str, str]]:
    """(axis, projection) of each CTYPE; unknown distortions are refused, since astropy leaves them out in silence."""
    types = []
    for name in ("CTYPE1", "CTYPE2", "CTYPE3"):
        found = CTYPE.match(str(header.get(name, "")))
        if found:
            if (found["distortion"] or "") not in DISTORTIONS:
                raise ValueError(f"{name} {header[name]!r} names a distortion that is not known")
            types.append((found["axis"], found["projection"]))
    return types


def _name_polynomial(header: fits.Header) -> None:
    """Call a TAN header with SCAMP's polynomial what it is, TPV; wcslib tells one by its terms of degree 2 only.

    A tangent plane has no parameters of the latitude axis, so that any PV card of it belongs to a polynomial.
    """
    kinds = {name: CTYPE.match(str(header.get(name, ""))) for name in ("CTYPE1", "CTYPE2")}
    found = {name: kind for name, kind in kinds.items() if kind and kind["projection"] in ("TAN", "TPV")}
    latitude = next((name[-1] for name, kind in found.items() if kind["axis"].endswith(("DEC", "LAT"))), "")
    if len(found) < 2 or not any(header[name] for name in header if name.startswith(f"PV{latitude}_")):
        return
    if any(name in header for name in ("A_ORDER", "B_ORDER")):
        raise ValueError(f"two distortions, SIP (A_ORDER) and a polynomial (PV{latitude}_1)")
    for name, kind in found.items():
        header[name] = header[name][: kind.start("projection")] + "TPV"


def _check_tables(header: fits.Header, tables: list[str], hdus: fits.HDUList | None) -> None:
    for name in tables:
        if name.startswith(("CPDIS", "CQDIS")) and (name[1] == "Q" or str(header[name]).strip().upper() != "LOOKUP"):
            raise ValueError(f"distortion {name} {header[name]!r} is not a look-up table")
    if hdus is None:
        raise ValueError(f"distortion {tables[0]} is a table in another HDU")


def _celestial(wcs: WCS) -> WCS:
    """The two celestial axes, which must be the image's own."""
    if not wcs.has_celestial:
        raise ValueError("no celestial axes")
    if wcs.naxis > 2:
        if {int(wcs.wcs.lng), int(wcs.wcs.lat)} != {0, 1}:
            raise ValueError(f"{wcs.naxis} axes, of which the first two are not both celestial")
        wcs = wcs.celestial
    kind = wcs.wcs.lngtyp.strip()
    if kind not in AXIS_TYPES:
        raise ValueError(f"axes of type {kind}, which are neither equatorial nor galactic")
    if not np.isfinite(wcs.pixel_scale_matrix).all() or np.linalg.det(wcs.pixel_scale_matrix) == 0:
        raise ValueError("a pixel scale of zero")
    return wcs
