"""Promises of docs/team.md about compose.yaml, checked in the file; containers do not run in tests."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
STAYING = sorted(name for name, service in SERVICES.items() if "restart" in service)
VARIABLES = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))


def test_services_are_database_store_and_tracking_server() -> None:
    assert STAYING == ["mlflow", "postgres", "s3"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", STAYING)
def test_health_is_asked_and_data_outlive_the_container(name: str) -> None:
    service, known = SERVICES[name], yaml.safe_load(TEXT)["volumes"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {volume.split(":")[0] for volume in service["volumes"]} <= set(known)


def test_a_service_waits_for_what_it_needs() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            ready = "service_healthy" if "healthcheck" in SERVICES[needed] else "service_completed_successfully"
            assert how["condition"] == ready


def test_every_variable_is_demanded_and_explained() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in VARIABLES:
        assert re.search(rf"\$\{{{name}:\?", TEXT), f"{name} may be empty"
        assert re.search(rf"^{name}=", example, re.MULTILINE), f"{name} is not in .env.example"
    assert not re.search(r"^POSTGRES_PASSWORD=.", example, re.MULTILINE)


def test_tracking_server_asks_for_a_password_and_is_the_version_of_the_lock() -> None:
    command = " ".join(SERVICES["mlflow"]["command"])
    assert "--app-name basic-auth" in command and "postgresql+psycopg2://" in SERVICES["mlflow"]["environment"]["STORE"]
    locked = re.search(r"^mlflow==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert f"mlflow[auth]=={locked.group(1)}" in SERVICES["mlflow"]["build"]["dockerfile_inline"]
