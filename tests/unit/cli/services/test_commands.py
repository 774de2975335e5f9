"""The service commands against a registry in memory: what is asked, printed, refused, and how."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from kvstore.cli.main import cli
from kvstore.pb import registry_pb2 as pb
from tests.support.fake_registry import FakeRegistry
from tests.support.servers import ROOT


class Registry(FakeRegistry):
    """Knows what the service commands ask for besides."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.settings = pb.Settings()

    def _ListServices(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        summary = pb.ServiceSummary(instances=len(self.instances), routable=1)
        summary.name.namespace, summary.name.service = "default", "payment"
        summary.by_status["UP"] = 1
        summary.guard.held, summary.guard.total, summary.guard.state = 3, 4, "engaged"
        return pb.ListServicesResponse(header=self._header(), services=[summary])

    def _GetInstances(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        response = super()._GetInstances(request, context)
        if request.selection.health == pb.Selection.ALL:
            del response.instances[:]
            response.instances.extend(self.instances.values())
        return response

    def _Drain(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return pb.DrainResponse(header=self._header(), instances=self.instances.values())

    def _EndGuard(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return pb.EndGuardResponse(header=self._header(), held=3)

    def _GetSettings(self, request: Any, context: Any) -> Any:
        return pb.GetSettingsResponse(settings=self.settings, stored=True)

    def _SetSettings(self, request: Any, context: Any) -> Any:
        self.settings = request.settings
        return pb.SetSettingsResponse()

    def _History(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return pb.HistoryResponse(header=self._header(), as_of_revision=9, as_of_ms=1_000)

    def _Explain(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        finding = pb.Finding(rule="heartbeat", passes=False, text="none")
        return pb.ExplainResponse(findings=[finding], verdict="it is silent")

    def _CreateNamespace(self, request: Any, context: Any) -> Any:
        return pb.CreateNamespaceResponse(created=True)

    def _DeleteNamespace(self, request: Any, context: Any) -> Any:
        return pb.DeleteNamespaceResponse(existed=False)

    def _ListNamespaces(self, request: Any, context: Any) -> Any:
        return pb.ListNamespacesResponse(namespaces=["default", "shop"])


@pytest.fixture
def registry() -> Iterator[Registry]:
    fake = Registry()
    yield fake
    fake.stop()


class Shell:
    """Runs commands against a registry."""

    def __init__(self, registry: Registry) -> None:
        self.where = f"--endpoints={registry.endpoint}"

    def run(self, *argv: str, code: int = 0, **more: Any) -> Result:
        result = CliRunner().invoke(cli, [self.where, "service", *argv], **more)
        assert result.exit_code == code, result.output
        return result

    def json(self, *argv: str) -> Any:
        return json.loads(self.run(*argv, "-w", "json").stdout)


@pytest.fixture
def shell(registry: Registry) -> Shell:
    return Shell(registry)


def test_registered_once_for_a_day_and_found_as_scripts_want_it(shell: Shell) -> None:
    done = shell.run("register", "payment", "--id=p-1", "--port=8080", "--tag=blue")
    assert done.stdout == "payment/p-1 at 127.0.0.1:8080 is registered\n"
    assert "it is DOWN in 86400s unless" in done.stderr
    (found,) = shell.json("get", "payment")
    wanted = {"id": "p-1", "address": "127.0.0.1", "port": 8080, "status": "UP", "tags": ["blue"]}
    assert wanted.items() <= found.items()
    lines = shell.run("get", "payment").stdout.splitlines()
    assert lines[0].split()[:3] == ["ID", "ADDRESS", "STATUS"]
    assert lines[1].split()[:3] == ["p-1", "127.0.0.1:8080", "UP"]
    assert "p-1" in shell.run("get", "payment", "-w", "table").stdout
    assert pb.GetInstancesResponse.FromString(
        shell.run("get", "payment", "-w", "protobuf").stdout_bytes
    ).instances


def test_registered_from_json_with_flags_on_top(shell: Shell, registry: Registry) -> None:
    told = '{"port": 1, "zone": "a", "ttl_s": 20, "weight": 5}'
    shell.run("register", "payment", "--json", "-", "--zone=b", "--weight=0", input=told)
    (came,) = registry.registered
    assert (came.zone, came.ttl_s, came.weight, came.ports[0].number) == ("b", 20, 0, 1)


@pytest.mark.parametrize(
    ("argv", "given", "code", "said"),
    [
        ([], "", 128, "the instance has no port; give one with --port 8080"),
        (["--port=http"], "", 128, "--port 'http' is not a number such as 8080"),
        (["--port=1", "--ttl=0"], "", 128, "--ttl is 0s; at least 1s makes sense"),
        (["--port=1", "--ttl=1500ms"], "", 128, "--ttl is 1.5s; whole seconds are kept"),
        (["--port=1", "--meta=x"], "", 128, "--meta 'x' is not name=text"),
        (["--port=1", "--weight=-1"], "", 128, "0 to 65535 are allowed"),
        (["--port=1", "--status=ill"], "", 128, "'ill' is no status; one of STARTING"),
        (["--json=-"], "{", 128, "the JSON of the instance cannot be read"),
        (["--json=/no/such"], "", 6, "No such file or directory: /no/such"),
        (["--port=1", "-w", "fields"], "", 4, "fields not supported as output format"),
    ],
)
def test_a_registration_that_cannot_be_meant(
    shell: Shell, registry: Registry, argv: list[str], given: str, code: int, said: str
) -> None:
    done = shell.run("register", "payment", *argv, code=code, input=given)
    assert said in done.stderr
    assert registry.registered == []


def test_a_refusal_of_the_server_is_told_as_it_is(shell: Shell, registry: Registry) -> None:
    sentence = "registry: the port main is 70000; 1 to 65535 are allowed"
    registry.fail["Register"] = (grpc.StatusCode.INVALID_ARGUMENT, sentence)
    assert shell.run("register", "a", "--port=70000", code=1).stderr == f"Error: {sentence}\n"


def test_for_an_unknown_namespace_there_is_advice(shell: Shell, registry: Registry) -> None:
    sentence = "registry: there is no namespace 'shop'; make it first (CreateNamespace)"
    registry.fail["Register"] = (grpc.StatusCode.NOT_FOUND, sentence)
    done = shell.run("register", "a", "-n", "shop", "--port=1", code=1)
    advice = "make it with `kvstore service namespace create shop`"
    assert done.stderr == f"Error: there is no namespace 'shop'; {advice}\n"


def test_all_are_shown_unless_only_healthy_ones_are_asked_for(
    shell: Shell, registry: Registry
) -> None:
    shell.run("register", "payment", "--port=1", "--status=STARTING")
    assert [each["status"] for each in shell.json("get", "payment")] == ["STARTING"]
    assert shell.json("get", "payment", "--healthy") == []
    shell.json("get", "payment", "--healthy-or-else-all", "--tag=a", "--tag=b", "--zone=z")
    asked = registry.asked[-1].selection
    assert asked.health == pb.Selection.HEALTHY_OR_ELSE_ALL
    assert (list(asked.tags), asked.prefer_zone) == (["a", "b"], "z")
    assert "exclude one another" in shell.run("get", "p", "--all", "--healthy", code=128).stderr
    assert "--only-zone wants --zone" in shell.run("get", "p", "--only-zone", code=128).stderr


def test_status_shows_sets_and_speaks_for(shell: Shell, registry: Registry) -> None:
    shell.run("register", "payment", "--id=p-1", "--port=1")
    assert "payment/p-1 in namespace default" in shell.run("status", "payment", "p-1").stdout
    assert shell.json("status", "payment", "p-1", "degraded", "--reported")["status"] == "DEGRADED"
    assert "no instance p-2" in shell.run("status", "payment", "p-2", code=1).stderr
    wrong = (["--release", "UP"], ["--reported"], ["FINE"])
    for argv in wrong:
        shell.run("status", "payment", "p-1", *argv, code=128)


def test_draining_all_has_to_be_said(shell: Shell, registry: Registry) -> None:
    assert "or --all for all of the service" in shell.run("drain", "payment", code=128).stderr
    shell.run("drain", "payment", "--all", "p-1", code=128)
    assert shell.json("drain", "payment", "--all", "--wait=1s", "--reason=moving") == {
        "instances": [],
        "acknowledged": None,
    }
    assert (registry.asked[-1].wait.timeout_ms, registry.asked[-1].reason) == (1000, "moving")


def test_deregistering_waits_and_names_who_lags(shell: Shell, registry: Registry) -> None:
    shell.run("register", "payment", "--id=p-1", "--port=1")
    done = shell.run("deregister", "payment", "p-1", "--wait=100ms")
    assert done.stdout == "payment/p-1 is deregistered\n"
    assert "0 subscribers have acknowledged it" in done.stderr
    again = shell.run("deregister", "payment", "p-1", code=1)
    assert again.stderr.startswith("Error: there is no instance p-1 of payment in namespace")


def test_services_guards_settings_namespaces(shell: Shell, registry: Registry) -> None:
    assert shell.json("list")[0]["guard"]["held"] == 3
    assert "kvstore service guard confirm payment" in shell.run("list").stderr
    assert shell.json("guard", "show")[0]["state"] == "engaged"
    assert "engaged" in shell.run("guard", "show").stdout
    assert shell.run("guard", "show", "pay").stderr == "no guard holds an instance\n"
    assert shell.run("guard", "lift", "payment").stdout.startswith(
        "3 instances of payment are DOWN"
    )
    assert not registry.asked[-1].confirm
    assert shell.json("guard", "confirm", "payment")["held"] == 3
    assert registry.asked[-1].confirm
    shell.run("settings", "set", "payment", "--percent=50")
    told = shell.json("settings", "set", "payment", "--window=1m", "--guard=off")
    assert (told["guard_percent"], told["guard_window_s"], told["guard_enabled"]) == (50, 60, False)
    assert shell.json("settings", "set", "payment", "--reset")["guard_percent"] is None
    assert "give a setting to change" in shell.run("settings", "set", "payment", code=128).stderr
    assert shell.json("namespace", "list") == ["default", "shop"]
    assert shell.run("namespace", "create", "a").stdout == "namespace a is created\n"
    assert "there is no namespace a" in shell.run("namespace", "delete", "a", code=1).stderr


def test_the_past_and_why(shell: Shell, registry: Registry) -> None:
    assert shell.json("history", "payment") == []
    assert registry.asked[-1].newest_first
    then = shell.json("history", "payment", "--at", "2026-01-01T12:00:00Z")
    assert then["revision"] == 9
    assert registry.asked[-1].time_ms == 1_767_268_800_000
    shell.run("history", "payment", "--at=1m", "--revision=3", code=128)
    shell.run("history", "--revision=3", code=128)
    assert "✗ heartbeat  none" in shell.run("explain", "payment", "p-1", "--tag=x").stdout
    assert list(registry.asked[-1].selection.tags) == ["x"]
    assert shell.json("explain", "payment", "p-1")["findings"][0]["passes"] is False


def test_top_without_a_terminal_is_text(shell: Shell) -> None:
    assert "no service is registered" in shell.run("top", "--count=1").stdout
    shell.run("register", "payment", "--id=p-1", "--port=1")
    text = shell.run("top", "--count=2", "--interval=10ms").stdout
    assert text.count("SERVICE  INSTANCES  HEALTH") == 2
    assert shell.json("top", "--count=1")[0]["by_status"] == {"UP": 1}


def test_completion_asks_the_cluster(shell: Shell, registry: Registry) -> None:
    shell.run("register", "payment", "--id=p-1", "--port=1")

    def complete(*words: str) -> list[str]:
        line = " ".join(("kvstore", shell.where, "service", *words))
        environment = {
            "_KVSTORE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) + 2),
        }
        done = CliRunner().invoke(cli, [], env=environment, prog_name="kvstore")
        return done.output.split()

    assert complete("get", "pa") == ["plain,payment"]
    assert complete("deregister", "payment", "p") == ["plain,p-1"]
    assert complete("get", "payment", "-n", "sh") == ["plain,shop"]
    registry.stop()
    assert complete("get", "pa") == []


COMMAND = (sys.executable, "-m", "kvstore.cli.main")


@contextlib.contextmanager
def begun(shell: Shell, *argv: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, shell.where, "service", *argv],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has ended


def test_a_watch_prints_one_object_a_line_at_once(shell: Shell) -> None:
    shell.run("register", "payment", "--id=p-1", "--port=1")
    with begun(shell, "watch", "payment", "-w", "json") as watch:
        assert watch.stdout is not None
        first = json.loads(watch.stdout.readline())
        assert (first["event"], first["snapshot"]) == ("registered", True)
        assert first["instance"]["id"] == "p-1"
        shell.run("deregister", "payment", "p-1")
        second = json.loads(watch.stdout.readline())
        assert second.keys() == {"event", "reason", "revision", "instance", "left"}
        assert (second["event"], second["reason"]["code"]) == ("deregistered", "deregistered")
        watch.send_signal(signal.SIGINT)
        assert watch.communicate(timeout=10) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_registration_with_heartbeats_ends_with_the_command(
    shell: Shell, registry: Registry, number: signal.Signals
) -> None:
    flags = ("--id=p-1", "--port=1", "--heartbeat", "--ttl=1s")
    with begun(shell, "register", "payment", *flags) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "payment/p-1 at 127.0.0.1:1 is registered\n"
        assert registry.instances["p-1"].ttl_s == 1
        running.send_signal(number)
        _, err = running.communicate(timeout=10)
    assert running.returncode == 0, err
    assert "payment/p-1 is deregistered" in err
    assert registry.instances == {}
