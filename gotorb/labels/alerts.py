"""Labels of alert packets: asteroids and pasted sources are real, bogus needs evidence, and the rest has no label.

A survey publishes what it believes in, so an alert that matches nothing known is real as often as not. The survey's own
score (`drb`, `reliability`) takes no part in the labels; it is a peer for comparison.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import shift
from scipy.spatial import cKDTree

import gotorb
from gotorb.core import layout
from gotorb.core.constants import MJD_ZERO
from gotorb.core.params import AlertsParams
from gotorb.errors import PacketError
from gotorb.labels.archive import MAX_MAG_DIFFERENCE, choose_labels
from gotorb.survey.alerts import PacketFolder
from gotorb.survey.alerts.content import NJY_ZERO_MAG, RUBIN, RUBIN_CUTOUTS, Alert, read_alert
from gotorb.survey.alerts.cutouts import put_whole, read_cutout, read_errors
from gotorb.survey.alerts.records import Record
from gotorb.survey.pixels import crop_stamps, prepare_stamps

log = logging.getLogger(__name__)
ASTEROID_ARCSEC = {RUBIN: 0.5}
"""Largest distance from a known asteroid, by survey; Rubin's orbits are its own."""
ELSE_ARCSEC = 2.0
INJECTED = ("pixelFlags_injected", "pixelFlags_injectedCenter")
"""Flags of sources that the survey itself pasted: such alerts are left out."""
FLAGS = ("pixelFlags_cr", "pixelFlags_saturated", "pixelFlags_edge", "pixelFlags_bad", "glint_trail", "nbad")
"""Rubin's flags, and ZTF's number of bad pixels, that are evidence of an artefact."""
STATIC_SNR, STATIC_FLUXES = 20.0, 10.0
"""A bright static source (Rubin): this significant in the template, and so many times brighter than the difference."""
STATIC_ARCSEC, STATIC_MAG, STATIC_BRIGHTER_MAG, N_NEGATIVE = 1.5, 18.0, 2.0, 8
"""The same for ZTF: at this distance in the reference image, this bright, and so much brighter than the difference,
with this many negative ones of the 25 pixels about the alert."""
VANISHED_DAYS, VANISHED_NIGHTS, FIELD_DEG, ECLIPTIC_DEG = 14.0, 3, 0.1, 30.0
"""A source vanished that no later alert of its object follows, though after so many days so many nights have alerts
within the field; at this ecliptic latitude or more, for unknown asteroids vanish too."""
OBLIQUITY_DEG = 23.4393
SNR_RANGE = (5.0, 100.0)
"""Significance of pasted sources, uniform in its logarithm."""
MAX_HOST_SNR, MAX_RESIDUAL, CORE = 20.0, 2.0, 3
"""An alert takes a pasted source when its own is fainter, and when its PSF takes it away: the chi squared of a pixel
within this many of the middle."""
SYNTHETIC_RULE = "PSF pasted with the packet's own variance"


class Pasted(NamedTuple):
    """A pasted source: the stamp, and the true flux with its error of fit, in the unit of the pixels."""

    stamp: np.ndarray
    flux: float
    error: float


def label_alerts(table: pd.DataFrame, params: AlertsParams) -> pd.DataFrame:
    """Give alerts our columns and labels.

    Parameters
    ----------
    table : DataFrame
        Records of alerts, see `survey.alerts.content.Alert`.
    params : AlertsParams
        Rules that are used.

    Returns
    -------
    DataFrame
        Columns of `layout.LABEL_COLUMNS` and ``peer_survey``, the survey's own score; label -1 where no rule holds.

    Examples
    --------
    >>> from gotorb.survey.alerts import find_packets, open_packets
    >>> label_alerts(open_packets(find_packets(Path("packets"))).table, AlertsParams())[["id", "label", "metalabel"]]
      id  label   metalabel
    0  1     -1  unlabelled
    1  2     -1  unlabelled
    """
    asteroid = _find_asteroids(table)
    rules = {
        "asteroid": (asteroid != "", layout.REAL, "mp", "known asteroid within 0.5 arcsec (Rubin) or 2 arcsec"),
        "flags": (_any_flag(table, FLAGS), layout.BOGUS, "flagged", "flag of an artefact"),
        "dipole": (_find_dipoles(table), layout.BOGUS, "dipole", "dipole on a bright static source"),
        "vanished": (_find_vanished(table), layout.BOGUS, "vanished", "never seen again"),
    }
    found = choose_labels(table.index, [rule for name, rule in rules.items() if name in params.labels])
    taken = {"candidate_id": "candid", "image_id": "image_id", "x": "xpos", "y": "ypos", "ra": "ra", "dec": "dec",
             "mag": "magpsf", "fwhm": "fwhm", "snr": "snr", "jd": "jd"}  # fmt: skip
    known = {ours: table[theirs] for ours, theirs in taken.items() if theirs in table}
    objects = table["objectId"].astype(str).where(asteroid == "", "mp:" + asteroid)
    rows = pd.DataFrame(known | found, index=table.index).assign(
        id=table["candid"],
        number=asteroid,
        object_id=objects,
        catalogue="",
        host_id="",
        code_version=gotorb.__version__,
    )
    return rows.reindex(columns=list(layout.LABEL_COLUMNS)).assign(peer_survey=_numbers(table, "survey_score"))


def _numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers; NaN where the survey has none."""
    if name not in table:
        return pd.Series(np.nan, index=table.index)
    return pd.to_numeric(table[name], errors="coerce").astype(float)


def _any_flag(table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """True where a flag is set; None is not set."""
    return pd.concat([_numbers(table, name).fillna(0) > 0 for name in names], axis=1).any(axis=1)


def _find_asteroids(table: pd.DataFrame) -> pd.Series:
    """Name of the known asteroid at each alert; "" for none."""
    largest = table["survey"].map(ASTEROID_ARCSEC).fillna(ELSE_ARCSEC).to_numpy(float)
    distance, difference = _numbers(table, "ssdistnr"), _numbers(table, "ssmagnr") - _numbers(table, "magpsf")
    rubin = table["survey"] == RUBIN  # whose match has no limit of magnitude
    near = (distance >= 0) & (distance <= largest) & (rubin | (difference.abs() <= MAX_MAG_DIFFERENCE))
    return table["ssnamenr"].fillna("unnamed").astype(str).where(near, "")


def _find_dipoles(table: pd.DataFrame) -> pd.Series:
    static, error = _numbers(table, "templateFlux"), _numbers(table, "templateFluxErr")
    rubin = (_numbers(table, "isDipole") > 0) & (static > STATIC_SNR * error)
    rubin &= static > STATIC_FLUXES * _numbers(table, "psfFlux").abs()
    mag = _numbers(table, "magnr")
    ztf = _numbers(table, "distnr").between(0, STATIC_ARCSEC) & (_numbers(table, "nneg") >= N_NEGATIVE)
    ztf &= (mag < STATIC_MAG) & (mag < _numbers(table, "magpsf") - STATIC_BRIGHTER_MAG)
    return rubin | ztf


def _find_vanished(table: pd.DataFrame) -> pd.Series:
    """True for the only alert of an object in a field that has alerts of several later nights."""
    ra, dec, jd = (_numbers(table, name).to_numpy() for name in ("ra", "dec", "jd"))
    lon, lat, tilt = np.radians(ra), np.radians(dec), math.radians(OBLIQUITY_DEG)
    ecliptic = np.degrees(np.arcsin(np.sin(lat) * math.cos(tilt) - np.cos(lat) * math.sin(tilt) * np.sin(lon)))
    objects = table["objectId"].astype(str)
    single = (objects.map(objects.value_counts()) == 1) & ~objects.isin(["", "0"])
    single &= ~(_numbers(table, "ndethist") > 1) & (np.abs(ecliptic) >= ECLIPTIC_DEG)
    places = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    tree, chosen = cKDTree(places), np.flatnonzero(single)
    found = np.zeros(len(table), bool)
    for row in chosen:
        near = jd[tree.query_ball_point(places[row], 2 * math.sin(math.radians(FIELD_DEG) / 2))]
        found[row] = len(set(np.floor(near[near > jd[row] + VANISHED_DAYS]))) >= VANISHED_NIGHTS
    return pd.Series(found, index=table.index)


@dataclass(frozen=True, kw_only=True)
class AlertStamps:
    """Stamps of alerts, and behind them those of pasted sources; a `survey.archives.StampSource`.

    Attributes
    ----------
    folder : PacketFolder
        The packets.
    kept : ndarray
        (n,) True for the alerts that are used.
    table : DataFrame
        Rows of the data set.
    pasted : ndarray
        (m, size, size, n_layers) as read, not prepared.
    layers : tuple of str
        Names of the stamps' layers.
    size : int
        Side of a stamp in pixels.
    """

    folder: PacketFolder
    kept: np.ndarray
    table: pd.DataFrame
    pasted: np.ndarray
    layers: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return len(self.table)

    def batches(self, batch: int = 512) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield prepared stamps, a batch at a time.

        Parameters
        ----------
        batch : int
            Largest number of stamps of a batch.

        Yields
        ------
        stamps : ndarray
            (m, size, size, n_layers), float32.
        missing : ndarray
            (m,) fraction of pixels without data.
        """
        first = 0
        for stamps, missing in self.folder.batches(batch):
            kept = self.kept[first : first + len(stamps)]
            first += len(stamps)
            yield stamps[kept], missing[kept]
        for start in range(0, len(self.pasted), batch):
            stamps, missing = prepare_stamps(self.pasted[start : start + batch], self.folder.background)
            yield crop_stamps(stamps, self.folder.size), missing


def make_alert_rows(folder: PacketFolder, params: AlertsParams) -> AlertStamps:
    """Label alert packets, and paste sources on some without a label.

    Parameters
    ----------
    folder : PacketFolder
    params : AlertsParams

    Returns
    -------
    AlertStamps

    Examples
    --------
    >>> from gotorb.survey.alerts import find_packets, open_packets
    >>> made = make_alert_rows(open_packets(find_packets(Path("packets"))), AlertsParams())
    >>> made.table["metalabel"].tolist(), made.layers
    (['unlabelled', 'unlabelled'], ('science', 'template', 'difference'))
    """
    kept = ~_any_flag(folder.table, INJECTED).to_numpy()
    if not kept.all():
        log.warning("%d alerts of sources that the survey pasted are left out", (~kept).sum())
    rows = label_alerts(folder.table, params)[kept]
    synthetic, stamps = _paste_all(folder, rows, params)
    table = pd.concat([rows, synthetic], ignore_index=True) if len(synthetic) else rows.reset_index(drop=True)
    size = len(stamps[0]) if stamps else 0
    pasted = np.stack(stamps) if stamps else np.empty((0, size, size, len(folder.layers)), np.float32)
    return AlertStamps(folder=folder, kept=kept, table=table, pasted=pasted, layers=folder.layers, size=folder.size)


def _paste_all(folder: PacketFolder, rows: pd.DataFrame, params: AlertsParams) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Rows and stamps of pasted sources, as many as wanted or as there are alerts to take them."""
    n = int((rows["metalabel"] == "mp").sum()) if params.n_synthetic is None else params.n_synthetic
    free = rows[(rows["label"] == layout.UNKNOWN) & (folder.table["survey"].reindex(rows.index) == RUBIN)]
    if "synthetic" not in params.labels or not n or free.empty:
        if "synthetic" in params.labels and n:
            log.warning("no sources are pasted: only Rubin's packets hold a PSF and a variance")
        return rows.iloc[:0], []
    rng = np.random.default_rng(params.seed)
    wanted = dict.fromkeys(free["id"].to_numpy(object)[rng.permutation(len(free))])
    found = dict(_paste_in_order(folder, frozenset(wanted), params.seed))
    hosts = list(islice((host for host in wanted if host in found), n))
    if len(hosts) < n:
        log.warning("%d of %d sources are pasted: no other alert's own source is taken away by its PSF", len(hosts), n)
    own = rows.set_index("id", drop=False).loc[hosts]
    table = own.assign(
        id=[f"{host}:synthetic" for host in hosts], label=layout.REAL, metalabel="syntransient", rule=SYNTHETIC_RULE,
        host_id=hosts, mag=[NJY_ZERO_MAG - 2.5 * math.log10(found[host].flux) for host in hosts],
        snr=[found[host].flux / found[host].error for host in hosts], peer_survey=np.nan,
    )  # fmt: skip
    return table, [found[host].stamp for host in hosts]


def _paste_in_order(folder: PacketFolder, hosts: frozenset[str], seed: int) -> Iterator[tuple[str, Pasted]]:
    """Read packets again and paste on those that are wanted; the seed of each is its own."""
    for path in folder.paths:
        for found, record in _read_pairs(folder, path):
            host = str(found.record["candid"])
            rng = np.random.default_rng([seed, int(host) % 2**63]) if host in hosts else None
            if rng is not None and (pasted := paste_source(found, record, rng)) is not None:
                yield host, pasted


def _read_pairs(folder: PacketFolder, path: Path) -> Iterator[tuple[Alert, Record]]:
    reader = folder.reader
    try:
        for record in reader.read_records(path):
            yield read_alert(record, str(path), reader.families, reader.size), record
    except PacketError:  # the first reading has told of it
        return


def paste_source(alert: Alert, record: Mapping[str, Any], rng: np.random.Generator) -> Pasted | None:
    """Replace a Rubin alert's own source by one of known flux, at the same place and with the same PSF.

    The photon noise of the new source comes from the packet's variance: its growth with the pixels of the science image
    is the noise of one unit of flux.

    Parameters
    ----------
    alert : Alert
    record : mapping
        The same as the survey wrote it, with its cut-outs.
    rng : numpy.random.Generator

    Returns
    -------
    Pasted or None
        None where the alert's own source is bright, or is no point source that could be taken away.
    """
    source = record["diaSource"]
    flux, snr = source.get("psfFlux"), source.get("snr") or math.inf
    if flux is None or abs(snr) > MAX_HOST_SNR:
        return None
    stamp, side = alert.stamp.copy(), len(alert.stamp)
    parts = {layer: _read_errors(record[RUBIN_CUTOUTS[layer]], side) for layer in ("science", "difference")}
    if any(one is None for one in parts.values()):
        return None
    variance, psf = parts["difference"]  # type: ignore[misc]
    place = {layer: alert.layers.index(layer) for layer in parts}
    own, error = fit_flux(stamp[..., place["difference"]], variance, psf)
    core = slice(side // 2 - CORE, side // 2 + CORE + 1)
    left = (stamp[..., place["difference"]] - own * psf)[core, core] ** 2 / variance[core, core]
    if not (math.isfinite(own) and np.nanmean(left) < MAX_RESIDUAL):
        return None
    new = error * math.exp(rng.uniform(*np.log(SNR_RANGE)))
    noise = rng.normal(size=(side, side)) * np.sqrt(_photon_noise(stamp, place["science"], parts["science"]) * new)
    for layer, (_, shape) in parts.items():  # type: ignore[misc]
        stamp[..., place[layer]] += (new - own) * shape + noise * np.sqrt(np.clip(shape, 0, None))
    return Pasted(stamp, new, error)


def _photon_noise(stamp: np.ndarray, science: int, errors: tuple[np.ndarray, np.ndarray] | None) -> float:
    """Variance for each unit of flux: the slope of the science image's variance over its pixels, never negative."""
    pixels, variance = stamp[..., science].ravel(), errors[0].ravel() if errors else np.empty(0)
    good = np.isfinite(pixels) & np.isfinite(variance)
    if good.sum() < 3 or np.ptp(pixels[good]) == 0:
        return 0.0
    return max(0.0, float(np.polyfit(pixels[good].astype(float), variance[good].astype(float), 1)[0]))


def _read_errors(value: Any, side: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Variance and PSF of a cut-out on the stamp's pixels; the PSF at the source, its sum 1 before the cut."""
    data = value["stampData"] if isinstance(value, dict) else value
    try:
        cutout, (variance, psf) = read_cutout(data), read_errors(data)
    except (OSError, ValueError, KeyError):
        return None
    if cutout.reference is None or variance.shape != cutout.pixels.shape:
        return None
    x, y = (math.floor(one + 0.5) for one in cutout.reference)
    whole = np.full((side, side), np.nan, np.float32)
    put_whole(whole, variance, side // 2 - x, side // 2 - y)
    moved = shift(psf, (cutout.reference[1] - y, cutout.reference[0] - x), order=3)
    placed = np.zeros((side, side))
    put_whole(placed, moved, side // 2 - psf.shape[1] // 2, side // 2 - psf.shape[0] // 2)
    return whole, placed


def fit_flux(pixels: np.ndarray, variance: np.ndarray, psf: np.ndarray) -> tuple[float, float]:
    """Fit the flux of a point source at a known place.

    Parameters
    ----------
    pixels, variance : ndarray
        (size, size); NaN where there are no data.
    psf : ndarray
        (size, size), sum 1 over all of the PSF.

    Returns
    -------
    flux, error : float
        In the unit of the pixels; NaN where no pixel has data.

    Examples
    --------
    >>> psf = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    >>> flux, error = fit_flux(8 * psf, np.ones((3, 3)), psf)
    >>> round(flux, 6), round(error, 2)
    (8.0, 2.67)
    """
    good = np.isfinite(pixels) & np.isfinite(variance) & (variance > 0)
    weight = psf[good] / variance[good].astype(float)
    norm = float((weight * psf[good]).sum())
    if not norm > 0:
        return math.nan, math.nan
    return float((weight * pixels[good]).sum()) / norm, 1 / math.sqrt(norm)


def describe_alert(record: Record, alert: Alert | None, rows: pd.DataFrame) -> dict[str, Any]:
    """Describe an alert in plain values.

    Parameters
    ----------
    record : dict
        As the survey wrote it.
    alert : Alert, optional
        None for a packet without cut-outs.
    rows : DataFrame
        One row, from `label_alerts`.

    Returns
    -------
    dict

    Examples
    --------
    >>> from gotorb.survey.alerts import find_packets, open_packets
    >>> table = open_packets(find_packets(Path("packets"))).table
    >>> described = describe_alert(table.iloc[0].to_dict(), None, label_alerts(table, AlertsParams()))
    >>> described["alert"], described["mag"], described["label"]
    ('1', 18.5, -1)
    """
    row = rows.iloc[0]
    flat = {**record, **(record.get("diaSource") or {}), **(record.get("candidate") or {})}
    lists = {name: len(value) for name, value in record.items() if isinstance(value, list)}
    return {
        "alert": row["candidate_id"], "object": row["object_id"], "image": row["image_id"],
        "ra": float(row["ra"]), "dec": float(row["dec"]), "mjd": float(row["jd"]) - MJD_ZERO,
        "mag": float(row["mag"]), "survey_score": float(row["peer_survey"]), "asteroid": row["number"],
        "flags": sorted(name for name, value in flat.items() if value is True), "history": lists,
        "stamp": None if alert is None else list(alert.stamp.shape),
        "missing": None if alert is None else round(float(np.isnan(alert.stamp).mean()), 4),
        "label": int(row["label"]), "rule": row["rule"],
    }  # fmt: skip
