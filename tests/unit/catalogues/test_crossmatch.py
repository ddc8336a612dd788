"""Matching is right on the whole sphere and gives each object once."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from gotorb.catalogues.crossmatch import find_nearest, match_one_to_one, unit_vectors


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


PLACES = st.lists(st.tuples(st.floats(0, 360), st.floats(-90, 90)), min_size=1, max_size=12)
"""Anywhere on the sphere, poles and the seam at RA 0 included."""


def near(places):
    """The same places drawn together to within arcseconds of the first one."""
    ra, dec = np.array(places).T
    return ra[0] + (ra - 180) / 36000, np.clip(dec[0] + dec / 36000, -90, 90)


@settings(deadline=None)
@given(PLACES, PLACES)
def test_nearest_is_that_of_all_pairs(places, catalogue):
    first, second = np.array(places).T, np.array(catalogue).T
    index, separation = find_nearest(*first, *second)
    cosine = np.clip(unit_vectors(*first) @ unit_vectors(*second).T, -1, 1)
    best = np.degrees(np.arccos(cosine.max(axis=1))) * 3600
    np.testing.assert_allclose(separation, best, atol=0.01)  # arccos itself is no better near 0
    np.testing.assert_allclose(cosine[np.arange(len(places)), index], cosine.max(axis=1), atol=1e-12)


@settings(deadline=None)
@given(PLACES, PLACES, st.floats(0.1, 10))
def test_match_is_within_the_radius_and_gives_each_entry_once(places, catalogue, radius_arcsec):
    first, second = near(places), near([places[0], *catalogue])
    matched = match_one_to_one(*first, *second, radius_arcsec=radius_arcsec)
    index, separation = find_nearest(*first, *second)
    found = matched[matched >= 0]
    assert len(set(found.tolist())) == len(found)
    assert (separation[matched >= 0] <= radius_arcsec).all()
    for entry in set(index[separation <= radius_arcsec].tolist()):
        rivals = np.flatnonzero((index == entry) & (separation <= radius_arcsec))
        (winner,) = np.flatnonzero(matched == entry)
        assert separation[winner] == separation[rivals].min()
