"""Sky and pixels: the WCS of a header, and positions by the thousand in one transform."""

import warnings

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, NoConvergence

WCS_CARDS = ("WCSAXES", "CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CD1_", "CD2_", "PC1_", "PC2_", "CROTA",
             "LONPOLE", "LATPOLE", "RADESYS", "EQUINOX", "PV1_", "PV2_", "A_", "B_", "AP_", "BP_", "NAXIS")  # fmt: skip


def read_wcs(header: fits.Header) -> WCS:
    """WCS of a header's WCS cards alone, which is several times faster than of the whole header.

    Raises
    ------
    ValueError
        If the cards contradict each other.
    """
    cards = [card for card in header.cards if card.keyword.startswith(WCS_CARDS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        return WCS(fits.Header(cards))


def sky_to_pixels(wcs: WCS, ra: np.ndarray, dec: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions of sky positions on an image.

    Distortions are fitted to the image and mean nothing far off it, where their inverse diverges. So positions
    more than the image's longer side off it, and those that do not converge, have no pixel.

    Parameters
    ----------
    wcs : WCS
        Of the image, distortions (SIP) included.
    ra, dec : ndarray
        (n,) deg, ICRS.
    shape : (int, int)
        (ny, nx) of the image.

    Returns
    -------
    x, y : ndarray
        (n,) 0-based pixel centres; NaN where there is none.
    """
    if len(ra) == 0:
        return np.empty(0), np.empty(0)
    xy = np.column_stack(wcs.wcs_world2pix(ra, dec, 0))
    beyond, size = max(shape), np.array(shape[::-1])
    near = ((xy > -beyond) & (xy < size + beyond)).all(axis=1)
    xy[~near] = np.nan
    if near.any() and wcs.has_distortion:
        try:
            xy[near] = wcs.all_world2pix(np.column_stack([ra, dec])[near], 0)
        except NoConvergence as failed:
            found = failed.best_solution
            for rows in (failed.divergent, failed.slow_conv):
                if rows is not None:
                    found[rows] = np.nan
            xy[near] = found
    return xy[:, 0].copy(), xy[:, 1].copy()
