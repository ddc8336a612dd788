"""Settings of a machine or team: ``.env`` and the environment, read on call, never at import."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gotorb.core import layout
from gotorb.errors import ConfigError

LA_PALMA = (342.1176, 0.877701, 0.478556)
MIN_RHO, MAX_RHO = 0.99, 1.01
"""Distances from the Earth's centre [Earth radii] of places on its surface."""
EARTH_RADIUS_M, ECCENTRICITY_SQUARED, HIGHEST_M = 6_378_137.0, 0.00669437999014, 20_000.0
"""Of WGS84, and the largest height of an observatory."""
OBSERVATORY_CODE = "950"
"""La Palma in the list of the Minor Planet Center."""
SKYBOT_URL = "https://ssp.imcce.fr/webservices/skybot/api/conesearch.php"
SKYBOT_DEADLINE_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values of `.env` and the environment (the environment wins).

    Attributes
    ----------
    gotophoto_db_name, gotophoto_db_user, gotophoto_db_host, gotophoto_db_port : str
        Connection to the database; the password comes from ``~/.pgpass``.
    gotophoto_workdir, gotophoto_storagedir : str
        Root of the paths stored in the database, and root of the files.
    catshtm_dir : str
        Folder that holds ``GLADE/`` in catsHTM format.
    gotorb_mpc_catalogue : str
        XEphem csv of minor planets; empty means pympc's own cache.
    gotorb_observatory : str
        ``longitude [deg East], rho cos phi', rho sin phi'``, or ``lon=..., lat=..., height=...`` (deg, deg, m).
    gotorb_observatory_code : str
        The same observatory by its IAU code, for SkyBoT; empty means 950, La Palma.
    gotorb_skybot_url : str
        Address of SkyBoT's cone search; empty means IMCCE's.
    gotorb_skybot_deadline_s : str
        Seconds after which a look-up by SkyBoT is given up; empty means 180.
    gotorb_cache_dir : str
        Where orbits and answers of SkyBoT are kept; empty means ``gotorb`` in the user's cache folder.
    gotorb_adapter : str
        Python file that adapts `label_data` to your survey, for all commands; see docs/own-survey.md.
    gotorb_alert_schemas, gotorb_schema_registry : str
        Folder of Avro schemas, and address of a Confluent schema registry, of alert packets that bring none along.
    gotorb_vizier_server : str
        Host of a VizieR server (https); empty means CDS's.
    gotorb_kafka_servers, gotorb_kafka_group : str
        Brokers (``host:port,host:port``) and consumer group of a stream.
    gotorb_kafka_security, gotorb_kafka_sasl_mechanism, gotorb_kafka_ca : str
        ``plaintext`` (the default), ``ssl``, ``sasl_plaintext`` or ``sasl_ssl``; ``SCRAM-SHA-512`` and others; file
        of the certificate authority.
    gotorb_kafka_username, gotorb_kafka_password : str
        Account at the brokers. The password is never shown.
    gotorb_kafka_extra : str
        More settings of librdkafka, ``name=value,name=value``; never shown.
    dask_scheduler_address : str
        ``tcp://host:port`` of a dask cluster that labels images; empty means processes of this machine.
    mlflow_tracking_uri : str
        Empty means the sqlite store in ``mlruns/``.
    """

    gotophoto_db_name: str = ""
    gotophoto_db_user: str = ""
    gotophoto_db_host: str = ""
    gotophoto_db_port: str = ""
    gotophoto_workdir: str = ""
    gotophoto_storagedir: str = ""
    catshtm_dir: str = ""
    gotorb_mpc_catalogue: str = ""
    gotorb_observatory: str = ""
    gotorb_observatory_code: str = ""
    gotorb_skybot_url: str = ""
    gotorb_skybot_deadline_s: str = ""
    gotorb_cache_dir: str = ""
    gotorb_adapter: str = ""
    gotorb_alert_schemas: str = ""
    gotorb_schema_registry: str = ""
    gotorb_vizier_server: str = ""
    gotorb_kafka_servers: str = ""
    gotorb_kafka_group: str = ""
    gotorb_kafka_security: str = ""
    gotorb_kafka_sasl_mechanism: str = ""
    gotorb_kafka_ca: str = ""
    gotorb_kafka_username: str = ""
    gotorb_kafka_password: str = field(default="", repr=False)
    gotorb_kafka_extra: str = field(default="", repr=False)
    dask_scheduler_address: str = ""
    mlflow_tracking_uri: str = ""

    def with_values(self, **values: Any) -> "Settings":
        """Copy with some values replaced.

        Parameters
        ----------
        **values
            New values by field.

        Returns
        -------
        Settings
            Changed copy.
        """
        return replace(self, **values)

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Let `read_settings` give these settings while the block runs, in worker processes too."""
        before = dict(os.environ)
        os.environ.update({one.name.upper(): getattr(self, one.name) for one in fields(self)})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    @property
    def observatory(self) -> tuple[float, float, float]:
        """(longitude [deg East], rho cos phi', rho sin phi'); La Palma unless set.

        Raises
        ------
        ConfigError
            If the variable holds neither these three numbers nor ``lon=..., lat=..., height=...``, or no place on
            the Earth.
        """
        text = self.gotorb_observatory
        if not text:
            return LA_PALMA
        try:
            place = _geodetic(text) if "=" in text else tuple(float(part) for part in text.split(","))
            lon, cos_phi, sin_phi = place
        except (ValueError, KeyError):
            raise _odd_observatory(text, "") from None
        rho = math.hypot(cos_phi, sin_phi)
        if not (abs(lon) <= 360 and cos_phi >= 0 and (MIN_RHO <= rho <= MAX_RHO or rho == 0)):
            raise _odd_observatory(text, f" (distance from the Earth's centre {rho:.4g} radii)")
        return lon, cos_phi, sin_phi

    @property
    def observatory_code(self) -> str:
        """IAU code of the observatory."""
        return self.gotorb_observatory_code or OBSERVATORY_CODE

    @property
    def skybot_url(self) -> str:
        """Address of SkyBoT's cone search."""
        return self.gotorb_skybot_url or SKYBOT_URL

    @property
    def skybot_deadline_s(self) -> float:
        """Seconds after which a look-up by SkyBoT is given up.

        Raises
        ------
        ConfigError
            If the variable does not hold a positive number.
        """
        text = self.gotorb_skybot_deadline_s or str(SKYBOT_DEADLINE_S)
        try:
            if 0 < (seconds := float(text)) < float("inf"):
                return seconds
        except ValueError:
            pass
        raise ConfigError(
            f"GOTORB_SKYBOT_DEADLINE_S is {text!r} in .env or the environment; give a number of seconds above 0"
        )

    @property
    def cache_dir(self) -> Path:
        """Folder of the cache, which may be deleted; made at the first use."""
        if self.gotorb_cache_dir:
            return Path(self.gotorb_cache_dir).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gotorb"


def _odd_observatory(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"GOTORB_OBSERVATORY is {text!r}{why} in .env or the environment; give three numbers: longitude in "
        f"degrees East, rho cos phi', rho sin phi' (at most {MAX_RHO}), "
        "or lon=..., lat=..., height=... (degrees, degrees, metres)"
    )


def _geodetic(text: str) -> tuple[float, float, float]:
    """Parallax constants of a place given as ``lon=..., lat=..., height=...`` in any order (WGS84).

    Examples
    --------
    >>> [round(number, 4) for number in _geodetic("lon=-17.8824, lat=28.7603, height=2336")]
    [342.1176, 0.8776, 0.4785]
    """
    given = {name.strip().lower(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    lon, lat, height = (given.pop(name) for name in ("lon", "lat", "height"))
    if given or not (abs(lon) <= 360 and abs(lat) <= 90 and abs(height) <= HIGHEST_M):
        raise ValueError
    sin, cos = math.sin(math.radians(lat)), math.cos(math.radians(lat))
    normal = EARTH_RADIUS_M / math.sqrt(1 - ECCENTRICITY_SQUARED * sin**2)
    rho_cos, rho_sin = (normal + height) * cos, (normal * (1 - ECCENTRICITY_SQUARED) + height) * sin
    return lon % 360, rho_cos / EARTH_RADIUS_M, rho_sin / EARTH_RADIUS_M


def project_root(start: Path | None = None) -> Path:
    """Folder of the project, which holds .env and mlruns/.

    DVC's root inside a stage, else the nearest parent with params.yaml, else here; from the folder of a source or
    a study (``sources/<name>``, ``studies/<name>``) the project that it belongs to.

    Parameters
    ----------
    start : Path, optional
        The working directory when left out.

    Returns
    -------
    Path
    """
    start = Path(os.environ.get("DVC_ROOT") or start or Path.cwd()).resolve()
    with_params = (folder for folder in (start, *start.parents) if (folder / layout.PARAMS_YAML).exists())
    found = next(with_params, start)
    return found.parents[1] if found.parent.name in (layout.SOURCES_DIR, layout.STUDIES_DIR) else found


def read_settings(env_path: Path | None = None) -> Settings:
    """Read `.env` and the environment, which wins.

    Values of `.env` that are missing in the environment are exported, because MLflow, DVC remotes and S3
    clients read the environment themselves.

    Parameters
    ----------
    env_path : Path, optional
        The project's when left out.

    Returns
    -------
    Settings
    """
    from dotenv import dotenv_values

    path = env_path or project_root() / layout.ENV_FILE
    from_file = {key: value for key, value in dotenv_values(path).items() if value}
    for key, value in from_file.items():
        os.environ.setdefault(key, value)
    known = {one.name: one.name.upper() for one in fields(Settings)}
    return Settings(**{name: os.environ.get(variable, "") for name, variable in known.items()})
