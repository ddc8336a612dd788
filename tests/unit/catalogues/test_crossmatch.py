"""Matching is right on the whole sphere and gives each object once."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from gotorb.catalogues.crossmatch import find_nearest, match_one_to_one


@pytest.mark.parametrize("centre", [(0.0, 0.0), (359.99, -30.0), (120.0, 89.99), (10.0, -89.999)])
def test_nearest_equals_astropys(centre):
    rng = np.random.default_rng(1)
    sky = SkyCoord(*centre, unit="deg").directional_offset_by(
        rng.uniform(0, 360, 200) * u.deg, rng.uniform(0, 0.1, 200) * u.deg
    )
    first, second = sky[:100], sky[100:]
    index, separation = find_nearest(first.ra.deg, first.dec.deg, second.ra.deg, second.dec.deg)
    theirs, distance, _ = first.match_to_catalog_sky(second)
    np.testing.assert_array_equal(index, theirs)
    np.testing.assert_allclose(separation, distance.arcsec, atol=1e-6)


def test_each_entry_goes_to_its_nearest_position_only():
    ra = np.array([10.0, 10.0001, 20.0])
    matched = match_one_to_one(ra, np.zeros(3), [10.00008, 20.0], [0.0, 0.0], radius_arcsec=1.0)
    assert matched.tolist() == [-1, 0, 1]


def test_empty_catalogue_matches_nothing():
    assert match_one_to_one([1.0], [1.0], [], [], radius_arcsec=5).tolist() == [-1]
