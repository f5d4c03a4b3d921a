"""compose.yaml and Dockerfile, as far as a machine without Docker's engine can tell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from optnas.cli.commands import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "compose.yaml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def rendered(password: str) -> dict[str, Any]:
    """The file with its variables put in, as Compose does it: `:-` has a default, `:?` must be set."""
    known = {"OPTNAS_PASSWORD": password}
    made = yaml.safe_load(VARIABLE.sub(lambda m: known.get(m[1], m[3] if m[2] == "-" else ""), TEXT))
    assert isinstance(made, dict)
    return made


def test_every_variable_has_a_default_but_the_password_which_must_be_given() -> None:
    demanded = {(m[1], m[2]) for m in VARIABLE.finditer(TEXT)}
    assert {name for name, how in demanded if how != "-"} == {"OPTNAS_PASSWORD"}
    assert ("OPTNAS_PASSWORD", "?") in demanded
    database = rendered("secret")["services"]["database"]
    assert database["environment"]["POSTGRES_PASSWORD"] == "secret"


def test_nothing_is_published_but_the_dashboard_and_that_on_this_machine_only() -> None:
    services = rendered("x")["services"]
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"dashboard": ["127.0.0.1:8080:8080"]}
    assert not any("network_mode" in service for service in services.values())


def test_the_commands_are_commands_of_optnas() -> None:
    services = rendered("x")["services"]
    commands = typer.main.get_command(app).commands
    for name in ("worker", "dashboard"):
        command, *arguments = services[name]["command"]
        options = commands[command].make_context(command, arguments).params
        assert command == name
        environment = services[name]["environment"]
        assert environment["OPTNAS_STORAGE"] == "postgresql://optnas@database/optnas"
        assert environment["PGPASSWORD"] == "x"
        if name == "worker":
            assert (ROOT / options["file"]).is_file()
            assert options["trials"] == 50
            folder = str(options["file"].parent)
            assert f"./{folder}:/work/{folder}:ro" in services[name]["volumes"]


def test_services_wait_for_a_database_that_is_there() -> None:
    made = rendered("x")
    for service in made["services"].values():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in made["services"][other]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in made["volumes"] or (ROOT / source).is_dir()


def test_the_image_is_made_of_what_is_here_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    told = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    kept = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split("\n") if line[:1] == "!"
    ]
    for word, rest in told:
        if word == "COPY":
            sources = shlex.split(rest)[:-1]
            assert all((ROOT / source).exists() for source in sources)
            assert set(sources) <= set(kept)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r"'/src\[(\S+)\]'", "\n".join(lines))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert ["USER", "optnas"] in told
    assert ["WORKDIR", "/work"] in told
    assert ["ENTRYPOINT", '["optnas"]'] in told


def test_compose_itself_understands_the_file() -> None:
    compose = [shutil.which("docker") or "docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*compose, "version"], capture_output=True).returncode
    ):
        pytest.skip("needs the plugin `docker compose`")
    words = [*compose, "--file", str(ROOT / "compose.yaml"), "config", "--quiet"]
    given = {**os.environ, "OPTNAS_PASSWORD": "x"}
    assert subprocess.run(words, env=given, check=False).returncode == 0
    del given["OPTNAS_PASSWORD"]
    refused = subprocess.run(words, env=given, capture_output=True, text=True, check=False)
    assert "export OPTNAS_PASSWORD" in refused.stderr
