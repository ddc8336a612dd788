"""Labels of an image's detections by the minor-planet recipe.

A detection at the place of a known minor planet is real; detections far from any, drawn at random, are
bogus. Source: Killestein et al. 2021 (MNRAS 503, 4838), sections 2.2 and 2.3.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import find_nearest, match_one_to_one
from gotorb.core import layout
from gotorb.core.params import LabelParams

LABEL = LabelParams()
VETO_RADIUS_ARCSEC = 5.0


@dataclass(frozen=True)
class MatchRules:
    """Numbers of the recipe.

    Attributes
    ----------
    match_radius_arcsec : float
        Largest distance of a detection from its minor planet.
    mag_limit : float
        Faintest minor planet (V) that makes a label; fainter ones still veto bogus labels.
    min_realbogus, max_bogus_realbogus : float or None
        Optional cuts on the survey's old score (circular: None by default).
    extra_bogus : int
        Bogus detections wanted in an image beyond the number of matches.
    """

    match_radius_arcsec: float = LABEL.match_radius_arcsec
    mag_limit: float = LABEL.mag_limit
    min_realbogus: float | None = LABEL.min_realbogus
    max_bogus_realbogus: float | None = LABEL.max_bogus_realbogus
    extra_bogus: int = LABEL.extra_bogus_per_image


def label_detections(
    detections: pd.DataFrame, planets: pd.DataFrame, rules: MatchRules, *, rng: np.random.Generator
) -> pd.DataFrame:
    """Choose and label detections of one image.

    Parameters
    ----------
    detections : DataFrame
        From `survey.detections.read_detections`.
    planets : DataFrame
        Minor planets of any magnitude in the field: name, ra, dec (deg), mag (V).
    rules : MatchRules
        The recipe.
    rng : Generator
        Draws the bogus.

    Returns
    -------
    DataFrame
        The chosen detections with label, metalabel, number, object_id, rule; minor planets first.

    Examples
    --------
    >>> places = pd.DataFrame({"ra": [10.0, 10.1], "dec": [0.0, 0.0], "mag": [18.0, 19.0], "positive": True})
    >>> planets = pd.DataFrame({"name": ["Ceres"], "ra": [10.0001], "dec": [0.0], "mag": [18.1]})
    >>> chosen = label_detections(places, planets, MatchRules(), rng=np.random.default_rng(1))
    >>> chosen[["label", "metalabel", "number"]].values.tolist()
    [[1, 'mp', 'Ceres'], [0, 'randjunk', '']]
    """
    matched = _match_planets(detections, planets, rules)
    real = detections[matched >= 0]
    names = planets["name"].to_numpy(str)[matched[matched >= 0]]
    real = real.assign(
        label=layout.REAL,
        metalabel="mp",
        number=names,
        object_id=[f"mp:{name}" for name in names],
        rule=f"minor planet within {rules.match_radius_arcsec:g} arcsec, V < {rules.mag_limit:g}",
    )
    bogus = _draw_bogus(detections, planets, rules, n=len(real) + rules.extra_bogus, rng=rng).assign(
        label=layout.BOGUS,
        metalabel="randjunk",
        number="",
        object_id="",
        rule=f"random, no minor planet within {VETO_RADIUS_ARCSEC:g} arcsec",
    )
    return pd.concat([real, bogus], ignore_index=True)


def _match_planets(detections: pd.DataFrame, planets: pd.DataFrame, rules: MatchRules) -> np.ndarray:
    """Row of the minor planet of each detection, -1 for none; each planet to its nearest detection only.

    A negative detection cannot be a minor planet of this image's epoch.
    """
    able = detections["positive"].to_numpy(bool)
    if rules.min_realbogus is not None:
        able = able & (detections["realbogus"] > rules.min_realbogus).to_numpy()
    bright = np.flatnonzero((planets["mag"] < rules.mag_limit).to_numpy())
    chosen = planets.iloc[bright]
    matched = np.full(len(detections), -1)
    found = match_one_to_one(
        detections["ra"][able],
        detections["dec"][able],
        chosen["ra"],
        chosen["dec"],
        radius_arcsec=rules.match_radius_arcsec,
    )
    matched[able] = np.where(found >= 0, bright[found] if len(bright) else -1, -1)
    return matched


def _draw_bogus(
    detections: pd.DataFrame, planets: pd.DataFrame, rules: MatchRules, *, n: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw at most n detections far from every known minor planet, in their order in the table."""
    _, separation = find_nearest(detections["ra"], detections["dec"], planets["ra"], planets["dec"])
    able = separation > max(VETO_RADIUS_ARCSEC, rules.match_radius_arcsec)
    if rules.max_bogus_realbogus is not None:
        able &= (detections["realbogus"] < rules.max_bogus_realbogus).to_numpy()
    rows = np.flatnonzero(able)
    return detections.iloc[np.sort(rng.choice(rows, min(n, len(rows)), replace=False))]
