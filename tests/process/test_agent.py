"""The agent with real programs and a real cluster: order of the end, codes, crashes, outages."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.client.registry import Health, Instance, InstanceEvent, Selection, Status
from tests.support.agents import (
    PYTHON_SERVICE,
    SHELL_SERVICE,
    Agent,
    await_that,
    is_alive,
)
from tests.support.servers import Cluster, free_ports, make_cluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

ALL = Selection(health=Health.ALL)
Run = Callable[..., Agent]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with make_cluster(tmp_path_factory.mktemp("agents"), size=1) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.endpoints) as client:
        yield client


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Iterator[Run]:
    """Starts agents of this cluster."""
    agents: list[Agent] = []

    def start(*flags: str) -> Agent:
        agents.append(Agent(tmp_path / f"agent{len(agents)}", cluster.endpoints, *flags))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


class Watcher:
    """Hears of a service as a subscriber that acknowledges; notes when it heard of what."""

    def __init__(self, client: Client, service: str, subscriber: str = "") -> None:
        self.heard: list[tuple[float, InstanceEvent]] = []
        self._watch = client.registry.watch(service, selection=ALL, subscriber=subscriber)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for update in self._watch:
            now = time.time()
            self.heard += [(now, event) for event in update.events]

    def events(self) -> list[str]:
        return [event.event for _, event in self.heard]

    def when(self, event: str) -> float:
        await_that(lambda: event in self.events(), f"{event} among {self.events()}")
        return next(at for at, each in self.heard if each.event == event)

    def reason(self, event: str) -> str:
        self.when(event)
        return next(each.reason.text for _, each in self.heard if each.event == event)

    def close(self) -> None:
        self._watch.cancel()
        self._thread.join()


@pytest.fixture
def watching(client: Client) -> Iterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def watch(service: str, subscriber: str = "") -> Watcher:
        watchers.append(Watcher(client, service, subscriber))
        return watchers[-1]

    yield watch
    for watcher in watchers:
        watcher.close()


def found(client: Client, service: str) -> list[Instance]:
    return list(client.registry.get_instances(service, selection=ALL, linearizable=True))


def await_status(client: Client, service: str, status: Status) -> Instance:
    await_that(
        lambda: [each.status for each in found(client, service)] == [status],
        f"{service} {status}",
    )
    return found(client, service)[0]


def results(client: Client, service: str) -> dict[str, Status]:
    """What the checks of the only instance found."""
    (instance,) = found(client, service)
    return {each.name: each.status for each in instance.check_results}


def notes(path: Path) -> dict[str, float]:
    """What a service wrote down: word and time."""
    if not path.exists():
        return {}
    return {word: float(at) for word, at in map(str.split, path.read_text().splitlines())}


def python_service(port: int, path: Path, code: int = 0) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", PYTHON_SERVICE, str(port), str(path), str(code))


def shell_service(path: Path) -> tuple[str, ...]:
    return ("--", "sh", "-c", SHELL_SERVICE, "service", str(path))


def test_from_starting_to_up_and_deregistered_before_the_signal(
    run: Run, client: Client, watching: Callable[..., Watcher], port: int, tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    watcher = watching("payment", "the-watcher")
    flags = ("--service=payment", f"--port=http={port}", "--id=payment-1", "--drain=5s")
    more = ("--tag=blue", "--meta=team=pay", "--zone=a", "--version=1.2", "--weight=3")
    agent = run(*flags, *more, "--check=/healthz", *python_service(port, path, 5))
    instance = await_status(client, "payment", Status.UP)
    assert watcher.events()[:1] == ["registered"]
    assert watcher.heard[0][1].instance.status is Status.STARTING
    assert (instance.id, instance.address, instance.ports) == (
        "payment-1",
        "127.0.0.1",
        {"http": port},
    )
    assert (instance.tags, instance.metadata, instance.zone) == (("blue",), {"team": "pay"}, "a")
    assert (instance.version, instance.weight, instance.drain_s) == ("1.2", 3, 5)
    (result,) = instance.check_results
    assert (result.name, result.output) == ("http", "HTTP 200 OK\nas the state says")
    asked = time.time()
    code = agent.stop()
    took_s = time.time() - asked
    assert code == 5, "the program's own exit code"
    gone, signaled = watcher.when("deregistered"), notes(path)["SIGTERM"]
    assert asked < gone < signaled, "the watcher knew before the program got its signal"
    assert watcher.reason("deregistered") == "stopped by SIGTERM"
    assert "all 1 subscribers know" in agent.log()
    assert took_s < 4, "nobody waits for the drain time when everybody knows"
    assert not found(client, "payment")


def test_a_shell_program_without_a_check_and_who_cannot_acknowledge(
    run: Run, client: Client, watching: Callable[..., Watcher], tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    watcher = watching("shell")
    flags = ("--service=shell", "--port=9000", "--address=10.9.8.7", "--drain=1s")
    agent = run(*flags, "-w", "json", *shell_service(path))
    instance = await_status(client, "shell", Status.UP)
    assert (instance.address, instance.port) == ("10.9.8.7", 9000)
    await_that(lambda: "started" in notes(path), "the program runs")
    asked = time.time()
    assert agent.stop(signal.SIGINT) == 130, "sh was ended by the SIGINT that was passed on"
    assert watcher.when("deregistered") - asked < 0.5
    assert time.time() - asked >= 1.0, "a watch without an id cannot say that it knows"
    assert agent.output() == "hello from the shell\n"
    assert '"msg": "SIGINT: deregistering first"' in agent.log()


def test_a_second_signal_ends_the_waiting_and_a_third_kills(
    run: Run, client: Client, watching: Callable[..., Watcher], tmp_path: Path
) -> None:
    watching("stubborn")
    flags = ("--service=stubborn", "--port=9001", "--drain=30s")
    script = f"trap 'echo got >> {tmp_path}/got' TERM; echo up; while :; do sleep 0.05; done"
    agent = run(*flags, "--", "sh", "-c", script)
    await_status(client, "stubborn", Status.UP)
    await_that(lambda: agent.output() == "up\n", "the program has its trap")
    agent.send(signal.SIGTERM)
    await_that(lambda: "s to find out" in agent.log(), "the agent waits")
    assert not (tmp_path / "got").exists()
    agent.send(signal.SIGTERM)
    await_that(lambda: (tmp_path / "got").exists(), "the signal was passed on")
    agent.send(signal.SIGTERM)
    assert agent.wait() == 137


def test_a_program_that_does_not_stop_is_killed(run: Run, client: Client) -> None:
    flags = ("--service=deaf", "--port=9002", "--drain=0s", "--stop-timeout=300ms")
    agent = run(*flags, "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    await_status(client, "deaf", Status.UP)
    await_that(lambda: agent.output() == "up\n", "the program ignores the signal")
    assert agent.stop() == 137
    assert "has not ended within 0.3 s; killing it" in agent.log()


def test_a_program_that_ends_is_deregistered_at_once(
    run: Run, client: Client, watching: Callable[..., Watcher]
) -> None:
    watcher = watching("short")
    agent = run("--service=short", "--port=9003", "--", "sh", "-c", "sleep 1; exit 3")
    assert agent.wait() == 3
    assert watcher.reason("deregistered") == "sh ended with exit code 3"
    agent = run("--service=short", "--port=9003", "--", "sh", "-c", "sleep 1; kill -9 $$")
    assert agent.wait() == 137
    assert "sh was ended by SIGKILL" in agent.log()
    assert not found(client, "short")


def test_a_check_that_fails_takes_it_out_and_brings_it_back(
    run: Run, client: Client, port: int, tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    state = tmp_path / "notes.state"
    pace = ("--check-interval=100ms", "--unhealthy-after=2", "--healthy-after=2")
    checks = ("--check=/", f"--check=tcp://127.0.0.1:{port}", "--check=cmd:true")
    agent = run("--service=flaky", f"--port={port}", *pace, *checks, *python_service(port, path))
    await_status(client, "flaky", Status.UP)
    everything = {"cmd": Status.UP, "http": Status.UP, "tcp": Status.UP}
    await_that(lambda: results(client, "flaky") == everything, "all results are told")
    state.write_text("503")
    instance = await_status(client, "flaky", Status.DOWN)
    assert instance.reason == ("check_failed", "http: HTTP 503 Service Unavailable")
    assert not instance.silent
    state.write_text("429")
    await_status(client, "flaky", Status.DEGRADED)
    state.write_text("200")
    await_status(client, "flaky", Status.UP)
    assert agent.stop() == 0


def test_signals_of_other_kinds_are_passed_on(
    run: Run, client: Client, port: int, tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    agent = run("--service=hup", f"--port={port}", "--check=tcp", *python_service(port, path))
    await_status(client, "hup", Status.UP)
    agent.send(signal.SIGHUP)
    await_that(lambda: "SIGHUP" in notes(path), "SIGHUP arrived")
    assert agent.process.poll() is None
    assert agent.stop() == 0


def test_something_that_runs_elsewhere(run: Run, client: Client) -> None:
    agent = run("--service=db", "--port=5432", "--address=10.0.1.9", "--ttl=1s")
    await_status(client, "db", Status.UP)
    time.sleep(2.5)  # longer than the TTL: it lives by its heartbeats
    assert found(client, "db")[0].status is Status.UP
    assert agent.stop() == 0
    assert not found(client, "db")


@pytest.mark.parametrize("wanted", [True, False])
def test_an_agent_that_is_killed_takes_its_program_along_if_wanted(
    run: Run, client: Client, tmp_path: Path, wanted: bool
) -> None:
    service = "along" if wanted else "alone"
    flag = "--stop-with-agent" if wanted else "--no-stop-with-agent"
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 60"
    times = ("--ttl=1s", "--grace=1s")
    agent = run(f"--service={service}", "--port=9004", *times, flag, "--", "sh", "-c", script)
    await_status(client, service, Status.UP)
    await_that(lambda: pid_file.exists() and pid_file.read_text().strip(), "the program runs")
    pid = int(pid_file.read_text())
    agent.send(signal.SIGKILL)
    agent.wait()
    if wanted:
        await_that(lambda: not is_alive(pid), "the program ended with its agent", 5.0)
    await_that(lambda: not found(client, service), "expiry has done its work", 10.0)
    if not wanted:
        assert is_alive(pid)
        os.kill(pid, signal.SIGKILL)


def test_killed_with_9_down_and_gone_on_time(
    run: Run, client: Client, watching: Callable[..., Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    """DOWN between last heartbeat + TTL and 1 s later, gone between + grace and 1 s later."""
    ttl_s, grace_s = 2, 3
    watcher = watching("crash")
    times = (f"--ttl={ttl_s}s", f"--grace={grace_s}s")
    for round_ in range(3):
        watcher.heard.clear()
        agent = run("--service=crash", f"--port={9100 + round_}", *times, "--", "sleep", "60")
        await_status(client, "crash", Status.UP)
        time.sleep(0.3 * round_)
        agent.send(signal.SIGKILL)
        agent.wait()
        killed = time.time()
        down, gone = watcher.when("unhealthy"), watcher.when("expired")
        with capsys.disabled():
            print(
                f"\n  killed -9: DOWN after {down - killed:.2f} s, gone after {gone - killed:.2f} s"
                f" (TTL {ttl_s} s, grace {grace_s} s, a heartbeat every {ttl_s / 3:.2f} s)"
            )
        # The last heartbeat was at most a period before.
        period_s = ttl_s / 3 * 1.1 + 0.1
        assert killed - period_s + ttl_s <= down <= killed + ttl_s + 1
        # Not counted from `down`: that may have reached us late on a busy machine.
        assert killed - period_s + ttl_s + grace_s <= gone <= killed + ttl_s + grace_s + 1


def test_an_outage_of_the_cluster_and_its_return(
    run: Run, cluster: Cluster, client: Client, port: int, tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    (server,) = cluster.servers
    flags = ("--service=steady", f"--port={port}", "--ttl=1s", "--grace=1s", "--check=tcp")
    agent = run(*flags, *python_service(port, path, 4))
    first = await_status(client, "steady", Status.UP)
    server.kill()
    await_that(lambda: "does not answer for" in agent.log(), "the agent noticed")
    server.start()
    await_that(lambda: "answers again for" in agent.log(), "the agent is back", 30.0)
    assert await_status(client, "steady", Status.UP).id == first.id
    # Removed behind its back, it comes again by itself, as it is.
    client.delete(f"/kvstore/services/default/steady/{first.id}")
    await_that(lambda: "registered default/steady" in agent.log().partition("again")[2], "again")
    await_status(client, "steady", Status.UP)
    server.kill()
    try:
        asked = time.monotonic()
        assert agent.stop() == 4, "also without a cluster the program is stopped in order"
        assert time.monotonic() - asked < 9
        assert "could not deregister" in agent.log()
        assert "SIGTERM" in notes(path)
    finally:
        server.start()


def test_started_before_the_cluster(
    run: Run, cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    (server,) = cluster.servers
    server.kill()
    agent = run("--service=early", "--port=9005", *shell_service(tmp_path / "notes"))
    await_that(lambda: "started" in notes(tmp_path / "notes"), "the program does not wait")
    await_that(lambda: "does not answer for" in agent.log(), "the agent says so")
    server.start()
    await_status(client, "early", Status.UP)
    assert agent.stop() == 7


def test_many_services_from_a_file(run: Run, client: Client, tmp_path: Path) -> None:
    ports = free_ports(2)
    file = tmp_path / "services.yaml"
    service = tmp_path / "service.py"
    service.write_text(PYTHON_SERVICE)
    file.write_text(
        f"""
stop_timeout: 5s
services:
  - service: one
    port: {ports[0]}
    ttl: 2s
    drain: 0s
    command: [{sys.executable}, {service}, "{ports[0]}", {tmp_path}/one, "0"]
    checks:
      - http: /healthz
        interval: 200ms
  - service: two
    ports: {{http: {ports[1]}, admin: 9100}}
    tags: [a, b]
    meta: {{team: pay}}
    drain: 0s
    command: [{sys.executable}, {service}, "{ports[1]}", {tmp_path}/two, "0"]
    checks:
      - tcp:
        name: open
        interval: 200ms
  - service: elsewhere
    port: 1
    address: 10.0.0.7
    drain: 0s
"""
    )
    agent = run(f"--config={file}")
    for name in ("one", "two", "elsewhere"):
        await_status(client, name, Status.UP)
    assert found(client, "two")[0].ports == {"http": ports[1], "admin": 9100}
    assert found(client, "two")[0].check_results[0].name == "open"
    assert agent.stop() == 0
    for name in ("one", "two", "elsewhere"):
        assert not found(client, name)
    assert notes(tmp_path / "one").keys() >= {"started", "SIGTERM"}
    assert notes(tmp_path / "two").keys() >= {"started", "SIGTERM"}


def test_one_of_several_programs_ends(run: Run, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(
        """
services:
  - {service: left, port: 1, drain: 0s, command: [sh, -c, "sleep 1; exit 9"]}
  - {service: right, port: 2, drain: 0s, command: [sh, -c, "trap 'exit 0' TERM; sleep 60 & wait"]}
"""
    )
    agent = run(f"--config={file}")
    assert agent.wait() == 9
    assert not found(client, "left")
    assert not found(client, "right")
    assert "passing SIGTERM on to sh" in agent.log()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "name a --service and its --port"),
        (("--service=a",), 2, "--port is missing"),
        (("--service=A", "--port=1"), 2, "--service: 'A' is not a name"),
        (("--service=a", "--port=0"), 2, "--port: 0 is not a port"),
        (("--service=a", "--port=1", "--ttl=0"), 2, "--ttl: 0 is too short"),
        (("--service=a", "--port=1", "--ttl=1500ms"), 2, "not a whole number of seconds"),
        (("--service=a", "--port=1", "--check=nfs://x"), 2, "--check: 'nfs://x' is not a check"),
        (("--service=a", "--port=1", "--check=tcp://x"), 2, "--check: check 'tcp': 'x' is not"),
        (("--service=a", "--port=1", "--meta=x"), 2, "--meta: 'x' is not key=value"),
        (("--service=a", "--port=1", "--nosuch"), 2, "No such option"),
        (("--config=/nowhere.yaml",), 2, "/nowhere.yaml: No such file or directory"),
        (("--service=a", "--port=1", "--", "/nowhere/x"), 127, "there is no such file"),
        (("--service=a", "--port=1", "--", "/etc/passwd"), 126, "it is not executable"),
        (("--service=a", "--port=1", "--namespace=nosuch", "--", "sleep", "60"), 125, "nosuch"),
    ],
)
def test_what_cannot_be_is_told(run: Run, flags: tuple[str, ...], code: int, words: str) -> None:
    agent = run(*flags)
    assert agent.wait() == code
    assert words in agent.log()
