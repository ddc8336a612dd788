"""Meaning of alert records: Rubin's, and those of ZTF's family by a mapping of names, in the same columns and units."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import erfa
import numpy as np

from gotorb.core.constants import DAY_S, MJD_ZERO
from gotorb.core.params import PacketFields
from gotorb.errors import PacketError
from gotorb.survey.alerts.cutouts import Cutout, put_whole, read_cutout
from gotorb.survey.alerts.records import Record, one_line

RUBIN = "rubin"
LAYERS = ("science", "template", "difference")
RUBIN_CUTOUTS = {layer: f"cutout{layer.capitalize()}" for layer in LAYERS}
RUBIN_SIZE = 29
"""Side of Rubin's stamps: the smallest cut-outs have 30 pixels, with the source up to half a pixel off the middle."""
MAX_RUBIN_SIDE = 500
NJY_ZERO_MAG = 31.4
"""AB magnitude of 1 nJy."""
MAX_DISTANCE_RANK = 1
"""The asteroid's nearest source: 1. Others close to it are something else."""
MAX_TAI_MINUS_UTC_S = 40.0
SANE_MJD = (15_000.0, 90_000.0)
"""The years 1900 to 2105."""


NOTHING: Record = dict.fromkeys(("fwhm", "rb", "drb", "magpsf", "snr", "xpos", "ypos", "ssdistnr"), math.nan)
NOTHING |= {"ssmagnr": math.nan, "isdiffpos": None, "ssnamenr": None}
"""Columns that not every survey or schema has."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert.

    Attributes
    ----------
    record : dict
        The survey's own measurements, and our columns next to them: candid, objectId, ra, dec [deg], jd (middle of the
        exposure, UTC), magpsf, snr, isdiffpos, survey_score, xpos, ypos, ssdistnr [arcsec], ssmagnr, ssnamenr, survey.
    stamp : ndarray
        (size, size, n_layers), float32, the source in the middle; NaN where there are no data.
    layers : tuple of str
        Names of its layers.
    """

    record: Record
    stamp: np.ndarray
    layers: tuple[str, ...]

    @property
    def survey(self) -> str:
        """Name of the survey: rubin, or the mapping that fits."""
        return str(self.record["survey"])


def read_alert(record: Record, where: str, families: Mapping[str, PacketFields], size: int | None = None) -> Alert:
    """Tell the survey of a record by its fields, and read it.

    Parameters
    ----------
    record : dict
        From `records.read_records`.
    where : str
        The packet, for messages.
    families : mapping of str to PacketFields
        Names in the packets of surveys like ZTF; the first that fits is taken.
    size : int, optional
        Side of Rubin's stamps, whose cut-outs differ in size; `RUBIN_SIZE` when left out.

    Returns
    -------
    Alert

    Raises
    ------
    PacketError
        If no survey has such fields, a value is impossible, or a cut-out cannot be read.
    """
    if isinstance(record.get("diaSource"), dict):
        return _read_rubin(record, where, size)
    name = _find_family(record, where, families)
    return _read_family(record, where, name, families[name])


def _find_family(record: Record, where: str, families: Mapping[str, PacketFields]) -> str:
    """Name of the first survey whose fields a record has."""
    name = next((name for name, fields in families.items() if _fits(record, fields)), None)
    if name is None:
        raise PacketError(
            f"{where} has no candidate, candid or objectId by which a survey is known (has "
            f"{', '.join(map(str, list(record)[:12]))}; known: {RUBIN}, {', '.join(families)}); name its fields in "
            "label.archive.packets in params.yaml"
        )
    return name


def has_cutouts(record: Record) -> bool:
    """True for a record with a cut-out; brokers send packets without any.

    Parameters
    ----------
    record : dict
        From `records.read_records`.

    Returns
    -------
    bool
    """
    return any(value is not None for name, value in record.items() if str(name).lower().startswith("cutout"))


def read_measurements(record: Record, where: str, families: Mapping[str, PacketFields]) -> Record:
    """Read a record without its cut-outs.

    Parameters
    ----------
    record, where, families
        As for `read_alert`.

    Returns
    -------
    dict
        As `Alert.record`.

    Raises
    ------
    PacketError
        As for `read_alert`.
    """
    if isinstance(record.get("diaSource"), dict):
        return _measure_rubin(record, where)
    name = _find_family(record, where, families)
    return _measure_family(record, where, name, families[name])


def _fits(record: Record, fields: PacketFields) -> bool:
    publisher = str(record.get("publisher") or "")
    return (
        (not fields.publisher or publisher.startswith(fields.publisher))
        and isinstance(record.get(fields.candidate), dict)
        and record.get(fields.id) is not None
        and record.get(fields.object_id) is not None
    )


def _measure_family(record: Record, where: str, name: str, fields: PacketFields) -> Record:
    candidate = record[fields.candidate]
    ours = {own: _value(candidate, theirs, where) for own, theirs in fields.columns.items()}
    merged = NOTHING | candidate | ours | {"candid": str(record[fields.id]), "objectId": str(record[fields.object_id])}
    image = "_".join(str(candidate.get(one)) for one in fields.image) if fields.image else merged["candid"]
    merged |= {"image_id": image, "survey": name, "survey_score": _score(candidate, fields)}
    merged |= {"snr": candidate["scorr"]} if "scorr" in candidate and "snr" not in fields.columns else {}
    merged["jd"] = _middle_jd(merged, where, fields)
    _check_place(merged, where)
    return merged


def _read_family(record: Record, where: str, name: str, fields: PacketFields) -> Alert:
    merged = _measure_family(record, where, name, fields)
    place = tuple(_number(merged, one, where) for one in ("xpos", "ypos"))
    layers = tuple(fields.cutouts)
    cutouts = [_read(record.get(theirs), theirs, where, fields.size) for theirs in fields.cutouts.values()]
    side = fields.size if fields.detector else _common_side(cutouts, where)
    stamp = np.full((side, side, len(layers)), np.nan, np.float32)
    with np.errstate(over="ignore"):
        for layer, cutout in enumerate(cutouts):
            put_whole(stamp[..., layer], cutout.pixels, *_corner(cutout.pixels.shape, place, fields, where))
    return Alert(record=merged, stamp=stamp, layers=layers)


def _common_side(cutouts: list[Cutout], where: str) -> int:
    """Side of cut-outs of a survey whose detector is not known: only whole ones show where their source is."""
    shapes = {cutout.pixels.shape for cutout in cutouts}
    (height, width), *others = shapes
    if others or height != width:
        raise PacketError(
            f"cut-outs of {', '.join(f'{nx} x {ny}' for ny, nx in sorted(shapes))} pixels in {where}, and the size of "
            "the detector, at whose edge they may be short, is not known; set detector in label.archive.packets in "
            "params.yaml"
        )
    return int(height)


def _value(candidate: Record, name: str, where: str) -> Any:
    if name not in candidate:
        raise PacketError(f"no {name!r} in {where} (has {', '.join(list(candidate)[:12])}); correct the mapping of "
                          "its fields in label.archive.packets in params.yaml")  # fmt: skip
    return candidate[name]


def _score(candidate: Record, fields: PacketFields) -> float:
    """The survey's own score: the first of its columns that has one."""
    values = (candidate.get(name) for name in fields.scores)
    return next((float(one) for one in values if isinstance(one, int | float)), math.nan)


def _middle_jd(merged: Record, where: str, fields: PacketFields) -> float:
    """Middle of the exposure, JD in UTC."""
    time = _number(merged, fields.time, where) + (MJD_ZERO if fields.time_format == "mjd" else 0.0)
    if fields.time_scale == "tai" and math.isfinite(time):
        time = MJD_ZERO + utc_mjd(time - MJD_ZERO)
    if fields.time_at == "start":
        exposure = _number(merged, fields.exposure, where) if fields.exposure in merged else math.nan
        time += (exposure if exposure > 0 else fields.exposure_else_s) / 2 / DAY_S
    return time


def _corner(shape: tuple[int, int], place: tuple[float, ...], fields: PacketFields, where: str) -> tuple[int, int]:
    """Column and row of a cut-out in a whole stamp; one that ends at the detector's edge is short on that side."""
    if fields.detector is None or shape == (fields.size, fields.size):
        return 0, 0
    (height, width), (nx, ny), size = shape, fields.detector, fields.size
    if not all(map(math.isfinite, place)):
        raise PacketError(
            f"cut-out of {width} x {height} pixels in {where}, and no position on the detector that says which edge "
            "made it short; leave the packet out"
        )
    return size - width if place[0] < nx / 2 else 0, size - height if place[1] < ny / 2 else 0


def _read(value: Any, name: str, where: str, largest: int) -> Cutout:
    """Read a cut-out: bytes, or a record with bytes."""
    try:
        data = value["stampData"] if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ValueError(f"no bytes but {type(data).__name__}")
        cutout = read_cutout(data)
        if max(cutout.pixels.shape) > largest:
            raise ValueError(f"shape {cutout.pixels.shape}, expected at most {largest} x {largest}")
    except Exception as error:
        raise PacketError(f"{name} of {where} cannot be read ({one_line(error)}); fetch the packet again") from None
    return cutout


def _measure_rubin(record: Record, where: str) -> Record:
    source = record["diaSource"]
    if record.get("diaSourceId", source.get("diaSourceId")) != source.get("diaSourceId"):
        raise PacketError(f"{where} has two ids ({record['diaSourceId']} and {source.get('diaSourceId')}); it was "
                          "written with another schema or is damaged, fetch it again")  # fmt: skip
    ours = _rubin_columns(source, where) | _rubin_asteroid(record)
    _check_place(ours, where)
    return NOTHING | source | ours


def _read_rubin(record: Record, where: str, size: int | None) -> Alert:
    measured = _measure_rubin(record, where)
    side = size or RUBIN_SIZE
    stamp = np.full((side, side, len(LAYERS)), np.nan, np.float32)
    for layer, name in enumerate(RUBIN_CUTOUTS.values()):
        cutout = _read(record.get(name), name, where, MAX_RUBIN_SIDE)
        if cutout.reference is None or not all(map(math.isfinite, cutout.reference)):
            raise PacketError(f"{name} of {where} has no CRPIX1, CRPIX2, where its source is; fetch the packet again")
        if max(cutout.pixels.shape) + 1 < side:
            raise PacketError(
                f"{name} of {where} has {max(cutout.pixels.shape)} pixels, stamps of {side} are wanted; use a model "
                "of a smaller size, or set label.archive.size in params.yaml"
            )
        x, y = (math.floor(one + 0.5) for one in cutout.reference)
        put_whole(stamp[..., layer], cutout.pixels, side // 2 - x, side // 2 - y)
    return Alert(record=measured, stamp=stamp, layers=LAYERS)


def _rubin_columns(source: Record, where: str) -> Record:
    """Our columns of a diaSource."""
    flux, negative = _number(source, "psfFlux", where), source.get("isNegative")
    object_id = source.get("diaObjectId") or source.get("ssObjectId") or ""  # Fink writes 0 for none
    return {
        "candid": str(source.get("diaSourceId")),
        "objectId": str(object_id),
        "ra": source.get("ra"),
        "dec": source.get("dec"),
        "jd": MJD_ZERO + utc_mjd(_number(source, "midpointMjdTai", where)),
        "magpsf": NJY_ZERO_MAG - 2.5 * math.log10(abs(flux)) if flux else math.nan,
        "isdiffpos": "f" if (flux < 0 if negative is None else negative) else "t",
        "survey_score": _number(source, "reliability", where),
        "xpos": _number(source, "x", where),
        "ypos": _number(source, "y", where),
        "image_id": f"{source.get('visit')}_{source.get('detector')}",
        "survey": RUBIN,
    }


def _rubin_asteroid(record: Record) -> Record:
    """The known asteroid at a source, in ZTF's names: distance [arcsec], magnitude, name."""
    none = {"ssdistnr": math.nan, "ssmagnr": math.nan, "ssnamenr": None}
    found, orbit = record.get("ssSource") or {}, record.get("mpc_orbits") or record.get("MPCORB") or {}
    ss_id = record["diaSource"].get("ssObjectId") or found.get("ssObjectId")
    distance = found.get("ephOffset")
    if distance is None and found.get("residualRa") is not None and found.get("residualDec") is not None:
        distance = 3600 * math.hypot(found["residualRa"], found["residualDec"])  # schemas 8 and 9: degrees
    if not ss_id or distance is None or (found.get("diaDistanceRank") or 1) > MAX_DISTANCE_RANK:
        return none
    name = found.get("designation") or orbit.get("mpcDesignation") or orbit.get("designation") or ss_id
    mag = found.get("ephVmag")
    mag = found.get("predictedVMagnitude") if mag is None else mag
    return {"ssdistnr": float(distance), "ssmagnr": math.nan if mag is None else mag, "ssnamenr": str(name).strip()}


def utc_mjd(tai_mjd: float) -> float:
    """UTC of a TAI.

    Parameters
    ----------
    tai_mjd : float
        MJD, TAI.

    Returns
    -------
    float
        MJD, UTC; NaN for what is no time.
    """
    if not SANE_MJD[0] < tai_mjd < SANE_MJD[1]:
        return math.nan
    return tai_mjd - _tai_minus_utc(math.floor(tai_mjd - MAX_TAI_MINUS_UTC_S / DAY_S))


@lru_cache(maxsize=4096)
def _tai_minus_utc(day: int) -> float:
    """TAI - UTC [day] through a day of TAI, from the table of leap seconds, without its warning for the future."""
    year, month, _, _ = erfa.jd2cal(MJD_ZERO, day)
    with np.errstate(all="ignore"):
        return float(erfa.ufunc.dat(year, month, 1, 0.0)[0]) / DAY_S


def _number(values: Record, name: str, where: str) -> float:
    """A number, NaN when there is none."""
    value = values.get(name)
    if value is not None and not isinstance(value, int | float):
        raise PacketError(f"{name} of {where} is {value!r}, not a number; give packets of a known alert schema")
    return math.nan if value is None else float(value)


def _check_place(ours: Record, where: str) -> None:
    """Refuse a place or time that cannot be: the sign of a wrong schema, or of damage."""
    ra, dec, mjd = (_number(ours, one, where) for one in ("ra", "dec", "jd"))
    mjd -= MJD_ZERO
    if not (0 <= ra <= 360 and -90 <= dec <= 90 and SANE_MJD[0] < mjd < SANE_MJD[1]):
        raise PacketError(
            f"{where} has the position {ra}, {dec} deg and the time MJD {mjd}; it was written with another schema or "
            "is damaged, fetch it again"
        )
