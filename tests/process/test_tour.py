"""The tour of docs/services.md, the start of README.md and docs/cli.md, typed as they stand.

Their commands run in one cluster, started as the tour starts it, and print what is shown there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kvstore.client import Client
from kvstore.client.registry import Instance
from kvstore.client.registry.values import to_json
from tests.support.examples import run_examples
from tests.support.pages import Command, Page, plain
from tests.support.servers import ROOT
from tests.support.terminals import Running, Screen, Terminals, until
from tests.support.tools import require

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

SERVICES, CLI, README = ROOT / "docs" / "services.md", ROOT / "docs" / "cli.md", ROOT / "README.md"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    """A cluster as the tour begins it, but for its ports."""
    terminals = Terminals(tmp_path_factory.mktemp("tour"))
    shown = Page(SERVICES).take("kvstore local")
    try:
        base = f" --base-port={terminals.members[0].client}"
        terminals.begin(replace(shown, typed=shown.typed + base)).says()
        yield terminals
    finally:
        terminals.close()


@pytest.fixture
def terminals(cluster: Terminals) -> Iterator[Terminals]:
    """Without services; what a page began is ended behind it."""
    yield cluster
    cluster.end()
    with Client(cluster.endpoints) as client:
        client.delete("/kvstore/services/", prefix=True)


@pytest.fixture
def client(terminals: Terminals) -> Iterator[Client]:
    with Client(terminals.endpoints) as client:
        yield client


def test_the_tour_of_services(terminals: Terminals, client: Client) -> None:
    page = Page(SERVICES)
    page.take("kvstore local")
    terminals.begin(page.take("kvstore service register payment")).says()
    doomed = terminals.begin(page.take("kvstore service register payment")).says()
    for command in page.before("kvstore service drain"):
        terminals.run(command)

    watch = terminals.begin(page.take("kvstore service watch")).says(2)
    for command in page.before("kvstore service top"):
        terminals.run(command)
    watch.says(4)

    client.registry.register_instance(instance("cart", "cart-1", ttl_s=60))
    with Screen(terminals, page.take("kvstore service top"), width=90, height=20) as screen:
        doomed.kill()
        killed = time.time()
        while_it_falls_silent(page, terminals)
        healthy = for_scripts(page, terminals)
        watch.says()
        silent = datetime.fromisoformat(watch.text().split("\n")[4].split()[0]).timestamp()
        assert 5 < silent - killed < 20
        screen.shows()
        screen.press(b"q")
        screen.ends()
    watch.finish()
    until(lambda: '"left":true' in healthy.text())
    terminals.run(page.take("kvstore service history"))

    every_way_to_register(page, terminals, client)
    for command in page.before("kvstore service guard confirm"):
        terminals.run(command)
    fall_silent(client, "gone")
    terminals.run(page.take("kvstore service guard confirm"))
    fall_silent(client, "lost")
    for command in page.rest():
        terminals.play(command)
    terminals.finish()
    for tool in terminals.missing:
        require(tool)


def while_it_falls_silent(page: Page, terminals: Terminals) -> None:
    """What changes nothing of the services, in the ten seconds that have to pass anyway."""
    terminals.run(page.take("kvstore service register payment --port 8080 -n"))
    terminals.run(page.take("kvstore service status payment payment-1 "))
    found = terminals.run(page.take("kvstore service get payment -w json"))
    assert "127.0.0.1:8080\n" in found or "jq" in terminals.missing
    found = terminals.run(page.take("etcdctl get"))
    assert "/payment/payment-1\n" in found or "etcdctl" in terminals.missing
    assert "no guard" in terminals.run(page.take("kvstore service guard show"))
    unchecked = page.take("kvstore service register db --address 10.0.1.9")
    said = terminals.run(replace(unchecked, typed=f"! {unchecked.typed}"))
    assert "--enable-agentless-checks" in said  # as the page says: this cluster is without


def for_scripts(page: Page, terminals: Terminals) -> Running:
    """What is named in the table of JSON is in it; the watch sees only who gets requests."""
    rows = re.findall(r"^\| `((get|watch|history) .*?)` \| (.*) \|$", page.text, re.MULTILINE)
    assert [kind for _, kind, _ in rows] == ["get", "watch", "history"]
    for words, kind, meaning in rows:
        command = page.command(f"kvstore service {words}", words)
        if kind == "watch":
            watch = terminals.begin(replace(command, typed=f"{command.typed} --healthy")).says()
            printed = watch.text()
            assert json.loads(printed.split("\n")[0])["snapshot"] is True
        else:
            printed = terminals.run(command)
            assert isinstance(json.loads(printed), list)
        if kind == "history":
            revision = json.loads(printed)[0]["revision"]
            then = replace(command, typed=f"{command.typed} --revision {revision}")
            printed += terminals.run(then)
        missing = {name for name in re.findall(r"`(\w+)`", meaning) if f'"{name}"' not in printed}
        assert not missing, (words, printed)
    return watch


def every_way_to_register(page: Page, terminals: Terminals, client: Client) -> None:
    """The table of section Register; the program that the agent starts is any."""
    program = terminals.directory / "payment"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    before = len(client.registry.get_instances("payment"))
    agent = terminals.begin(page.take("kvstore agent run")).says()
    terminals.begin(page.take("kvstore service register payment --port 8080 --heartbeat")).says()
    (in_python,) = re.findall(r"^\| `(client\..*?)` \|", page.text, re.MULTILINE)
    registration = eval(in_python, {"client": client})
    until(lambda: len(client.registry.get_instances("payment")) == before + 3)
    registration.deregister()
    agent.interrupt()  # DNS was asked, and cannot acknowledge: it drains for five seconds

    terminals.run(page.take("kvstore service register db --address db.example.org"))
    told = json.dumps(to_json(client.registry.get_instances("payment").instances[0]))
    terminals.run(page.take("kvstore service register payment --json -"), told)

    make = re.search(r"`(kvstore service namespace create shop)`, then `(-n shop)`", page.text)
    assert make
    for typed in (make[1], f"kvstore service register cart --port 1 {make[2]}"):
        terminals.run(page.command(typed, make[0]))


def fall_silent(client: Client, prefix: str) -> None:
    """Instances of `payment`, enough for its guard; returns when it holds them."""
    for number in range(4):
        client.registry.register_instance(
            instance("payment", f"{prefix}-{number}", ttl_s=1, grace_s=1)
        )
    until(lambda: any(each.guard for each in client.registry.list_services()))


def instance(service: str, id: str, **times_s: Any) -> Instance:
    return Instance(service=service, id=id, address="127.0.0.1", ports={"main": 1}, **times_s)


def test_the_command_line(terminals: Terminals) -> None:
    page = Page(CLI)
    server = page.take("kvstore serve")
    assert "..." in server.typed  # names other machines, and is not all that is to be typed
    for command in page.rest():
        terminals.play(command)
    terminals.finish()


def test_the_readme(
    terminals: Terminals, client: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    require("etcdctl")
    page = Page(README)
    first = client.status().header.revision + 1  # in the page: 2
    for command in page.before("kvstore get greeting --rev"):
        terminals.play(command)
    past = page.take("kvstore get greeting --rev")
    typed = re.sub(r"--rev (\d+)", lambda found: f"--rev {first - 2 + int(found[1])}", past.typed)
    terminals.run(replace(past, typed=typed))
    for command in page.before(""):
        terminals.play(command)
    run_examples(README, terminals.endpoints, tmp_path, capsys, at_least=1)

    terminals.finish()
    kill_the_leader(terminals, client, page.take(""))
    for command in page.rest():
        terminals.run(command)


def kill_the_leader(terminals: Terminals, client: Client, told: Command) -> None:
    """The others say what is shown, in any order, and whichever they are."""
    status = [client.status(endpoint=each) for each in terminals.endpoints.split(",")]
    leads = [each.leader == each.header.member_id for each in status].index(True)
    name = terminals.members[leads].name
    before = len(terminals.cluster.text())
    os.kill(terminals.member(name), signal.SIGKILL)

    def untold() -> set[str]:
        printed = terminals.cluster.text()[before:].split("\n")
        return {*map(of_any, told.said or ())} - {*map(of_any, printed)}

    try:
        until(lambda: not untold())
    except AssertionError:
        terminals.fail(told, f"not said: {untold()}", terminals.cluster.text()[before:])
    assert f"local  {name} has ended" in terminals.cluster.text()


def of_any(line: str) -> str:
    """A line of the cluster, whichever member says it, of whichever term."""
    return re.sub(r"\b(node|term )\d+", r"\1N", plain(line))
