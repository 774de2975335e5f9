"""docker-compose.yml without docker: it reads, and what it runs are commands and files of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from kvstore.cli.main import cli
from kvstore.serving.flags import FLAGS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
MEMBERS = [name for name in SERVICES if SERVICES[name]["command"][0] == "serve"]
DEMO = [name for name in SERVICES if SERVICES[name].get("profiles") == ["demo"]]


def test_members_come_up_by_default_and_the_demo_when_asked_for() -> None:
    assert MEMBERS == ["n1", "n2", "n3"]
    assert set(DEMO) == set(SERVICES) - set(MEMBERS)
    assert len([name for name in DEMO if name.startswith("greeting-")]) == 3


@pytest.mark.parametrize("name", MEMBERS)
def test_flags_of_the_members_exist(name: str) -> None:
    known = {flag.name for flag in FLAGS}
    flags = [each.removeprefix("--").partition("=")[0] for each in SERVICES[name]["command"][1:]]
    assert set(flags) <= known


@pytest.mark.parametrize("name", [name for name in DEMO if name.startswith("greeting-")])
def test_commands_of_the_agents_are_understood(name: str) -> None:
    context = click.Context(cli)
    words = SERVICES[name]["command"]
    agent = cli.get_command(context, words[0])
    assert isinstance(agent, click.Group)
    run = agent.get_command(context, words[1])
    assert run is not None
    assert "--" in words
    run.make_context("run", list(words[2:]), parent=context)


@pytest.mark.parametrize("name", DEMO)
def test_the_demos_files_are_there(name: str) -> None:
    service = SERVICES[name]
    assert service["volumes"] == ["./examples/demo:/demo:ro"]
    words = [*service.get("entrypoint", ()), *service["command"]]
    files = [word for word in words if word.startswith("/demo/")]
    assert files
    for file in files:
        assert (ROOT / "examples" / file.removeprefix("/")).is_file()


def test_ports_are_published_on_loopback_only_and_once() -> None:
    published = [port for each in SERVICES.values() for port in each.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    places = [tuple(port.split(":")[1:2]) + (port.partition("/")[2],) for port in published]
    assert len(set(places)) == len(places)
    assert set(COMPOSE["volumes"]) == set(MEMBERS)
