"""A VizieR of its own: https on this machine, VOTables made on the spot, and every fault that a server has."""

import datetime
import http.server
import io
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificate(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(1))
    builder = builder.not_valid_after(now + datetime.timedelta(9)).add_extension(place, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    path, encoding = folder / "own.pem", serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, *plain) + builder.sign(key, hashes.SHA256()).public_bytes(encoding))
    return path


class FakeVizier:
    """Tables by VizieR's name, what was asked, and the faults to come.

    Attributes
    ----------
    tables : dict
        Name -> columns; ra, dec [deg] are those of the position.
    asked : list of dict
        Questions, as VizieR's script has them.
    faults : list
        An HTTP status, or the bytes of a page, for each of the next questions; None for a true answer.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, str]] = []
        self.faults: list[Any] = []
        self.host = ""

    def answer(self, script: str) -> tuple[int, bytes]:
        asked = dict(line.partition("=")[::2] for line in script.splitlines())
        self.asked.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return fault, b"busy"
        return 200, fault if fault is not None else self._votable(asked)

    def _votable(self, asked: dict[str, str]) -> bytes:
        columns = self.tables.get(asked["-source"], {})
        rows = Table({name: values for name, values in columns.items() if name not in ("ra", "dec")})
        place = SkyCoord(columns.get("ra", []), columns.get("dec", []), unit="deg")
        rows["_RAJ2000"], rows["_DEJ2000"] = place.ra.deg, place.dec.deg
        sign = max(asked["-c"].rfind("+"), asked["-c"].rfind("-"))
        centre = SkyCoord(float(asked["-c"][:sign]), float(asked["-c"][sign:]), unit="deg")
        near = place.separation(centre).deg <= float(asked["-c.rd"])
        if "Bmag" in asked:
            near &= np.ma.filled(np.ma.asarray(rows["Bmag"], float), 99.0) < float(asked["Bmag"].lstrip("<"))
        buffer = io.BytesIO()
        if near.any():
            rows[near].write(buffer, format="votable")
            return buffer.getvalue()
        return b'<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"></VOTABLE>'


@contextmanager
def serve(folder: Path) -> Iterator[tuple[FakeVizier, Path]]:
    """A running server, and the certificate by which it is trusted."""
    fake, certificate = FakeVizier(), make_certificate(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, body = fake.answer(script) if self.path.startswith("/viz-bin/votable") else (404, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    fake.host = f"127.0.0.1:{server.server_port}"
    yield fake, certificate
    server.shutdown()
    server.server_close()


def masked(values: list[float], hidden: list[bool]) -> MaskedColumn:
    return MaskedColumn(values, mask=hidden)
