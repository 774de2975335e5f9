"""Targets: what operators write: flags, variables, the configuration file, URLs, values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kvstore.api.address import ListenError, _split
from kvstore.cli.options import DURATION
from kvstore.client.endpoints import Endpoint, parse_endpoints
from kvstore.serving.config import build_config
from kvstore.serving.flags import FLAGS_BY_NAME
from kvstore.serving.ports import LayoutError, choose_layout
from kvstore.serving.settings import UsageError, read_settings
from kvstore.serving.urls import BadUrlError, check_advertised, parse_listen
from kvstore.serving.values import (
    BadValueError,
    format_duration,
    parse_bool,
    parse_duration,
    parse_int,
    parse_list,
)
from tests.fuzz.registry import Feed, Refused, Target, plain

__all__ = ("TARGETS", "argv_of")


def argv_of(data: bytes) -> list[str]:
    """The lines as a command line, as the system hands it over: any bytes but zeros."""
    return [os.fsdecode(line) for line in data.replace(b"\0", b"").split(b"\n")]


def _text(data: bytes) -> str:
    return os.fsdecode(data.replace(b"\0", b""))


# ---- flags and files ----------------------------------------------------------------------------


def _feed_flags(data: bytes) -> None:
    build_config(read_settings(argv_of(data), {}))


def _feed_variables(data: bytes) -> None:
    pairs = (line.partition("=") for line in argv_of(data))
    build_config(read_settings([], {name: value for name, _, value in pairs if name}))


@contextmanager
def _config_file() -> Iterator[Feed]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "node.yaml"

        def feed(data: bytes) -> None:
            path.write_bytes(data)
            build_config(read_settings([f"--config-file={path}"], {}))

        yield feed


@contextmanager
def _local_layout() -> Iterator[Feed]:
    """local.json, in which `kvstore local` keeps the ports of its members."""
    with TemporaryDirectory() as directory:

        def feed(data: bytes) -> None:
            (Path(directory) / "local.json").write_bytes(data)
            choose_layout(Path(directory), 1, None, free=lambda _port: True)

        yield feed


def _initial_cluster(data: bytes) -> None:
    flags = [
        "--name=a",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        "--initial-cluster=" + _text(data),
    ]
    build_config(read_settings(flags, {}))


_FLAGS = (
    "--name=infra0\n--data-dir=/nonexistent/d\n--listen-client-urls=http://127.0.0.1:2379",
    "-name\ninfra0\n--pre-vote=false\n--heartbeat-interval=10\n--election-timeout=50",
    (
        "--initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380\n--name=a"
        "\n--initial-advertise-peer-urls=http://10.0.0.1:2380"
    ),
    "--auto-compaction-mode=revision\n--auto-compaction-retention=1000\n--log-level=debug",
    "--auto-compaction-retention=1h30m\n--quota-backend-bytes=8589934592\n--snapshot-count=5",
    '--enable-log-rotation\n--log-rotation-config-json={"maxsize": 1}\n--log-outputs=/no/l',
    "--feature-gates=CompactHashCheck=true\n--experimental-compact-hash-check-time=2m",
    "--listen-metrics-urls=http://[::1]:9000,unix://sock\n--grpc-keepalive-timeout=20s",
)
_YAML = (
    "name: infra0\ndata-dir: /nonexistent/d\nheartbeat-interval: 100\npre-vote: yes\n",
    (
        "initial-cluster: a=http://10.0.0.1:2380\nname: a\n"
        "initial-advertise-peer-urls: http://10.0.0.1:2380\n"
    ),
    "listen-client-urls: [http://127.0.0.1:2379, 'http://[::1]:2379']\nsnapshot-count: 5\n",
    "feature-gates: {CompactHashCheck: true}\ngrpc-keepalive-timeout: 5000000000\n",
    "client-transport-security:\n  cert-file: ''\nlog-outputs: [stderr]\n",
    "proxy: off\nlog-level: &l warn\nlogger: zap\nmetrics: *l\n",
)
_VALUE_WORDS = (
    *(b"=", b",", b"\n", b" ", b"--", b"-", b"true", b"-1", b"0", b"9" * 30, b"9" * 5000, b"1e999"),
    *(
        b"5s",
        b"1h",
        b"ms",
        b"h" * 3,
        b".",
        b"+",
        b"0x10",
        b"nan",
        b"inf",
        "µs".encode(),
        "١".encode(),
    ),
    *(b"http://", b"https://", b"unix://", b"127.0.0.1", b"[::1]", b"[", b"]", b"%", b"@", b":"),
    *(
        b"65536",
        b"?a",
        b"#b",
        b"/",
        b"\xff",
        "é".encode(),
        b"{}",
        b'{"maxsize": 1e400}',
        b"[" * 3000,
    ),
)
_YAML_WORDS = (
    *(b": ", b"- ", b"\n", b"  ", b"|\n", b"&a ", b"*a", b"!!binary ", b"!!python/name:os.system "),
    *(b"!!timestamp ", b"2020-13-45", b"2001-12-14t21:59:43.10-25:00", b"<<: ", b"? ", b"[", b"{"),
    *(
        b"]",
        b"}",
        b"~",
        b"0x" + b"f" * 5000,
        b"1:99:99",
        b".inf",
        b"'",
        b'"',
        b"\t",
        b"#",
        b"---\n",
    ),
    *(
        b"[" * 2000,
        b"{a: " * 500,
        b"- " * 500,
        b'"\\ud800"',
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"0b" * 9,
    ),
)


# ---- single values ------------------------------------------------------------------------------


def _feed_values(data: bytes) -> None:
    """Accepted if it is a value of any kind."""
    text, refusals = _text(data), 0
    for parse in (parse_bool, parse_int, parse_duration):
        try:
            value = parse(text)
        except BadValueError:
            refusals += 1
        else:
            if parse is parse_duration:
                parse_duration(format_duration(abs(value)))
    parse_list(text)
    if refusals == 3:
        raise Refused("no value")


def _feed_cli_duration(data: bytes) -> None:
    from click import BadParameter

    try:
        seconds = DURATION.convert(_text(data), None, None)
    except BadParameter as error:
        raise Refused("no duration") from error
    int(seconds * 1000)


def _feed_urls(data: bytes) -> None:
    """Accepted if one of the two takes it."""
    text, refusals = _text(data), 0
    for read in (parse_listen, check_advertised):
        try:
            found = read(text)
        except BadUrlError:
            refusals += 1
        else:
            if found is not None:
                assert found.is_unix or parse_listen(found.with_port(found.port).text)
    if refusals == 2:
        raise Refused("no URL")


def _feed_endpoints(data: bytes) -> None:
    for endpoint in parse_endpoints(_text(data)):
        assert Endpoint.parse(endpoint.text) == endpoint


def _feed_listen_address(data: bytes) -> None:
    host, port = _split(_text(data))
    assert 0 <= port <= 65535
    assert ":" in _text(data).removeprefix(host)


_URLS = (
    b"http://127.0.0.1:2379",
    b"http://localhost:0",
    b"http://[::1]:1",
    b"unix://a/b",
    b"unix:x",
)


def _seeds(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


_FLAG_WORDS = tuple(f"\n--{name}=".encode() for name in FLAGS_BY_NAME)

TARGETS = (
    Target(
        "flags",
        plain(_feed_flags),
        (UsageError,),
        lambda: _seeds(_FLAGS),
        (*_VALUE_WORDS, *_FLAG_WORDS),
        cost=4,
    ),
    Target(
        "variables",
        plain(_feed_variables),
        (UsageError,),
        lambda: [b"KVSTORE_NAME=a\nKVSTORE_HEARTBEAT_INTERVAL=10\nHOME=/", b"KVSTORE_ELECTON=1"],
        (*_VALUE_WORDS, b"\nKVSTORE_LOG_LEVEL=", b"\nKVSTORE_"),
        cost=4,
    ),
    Target(
        "configuration file",
        _config_file,
        (UsageError,),
        lambda: _seeds(_YAML),
        (*_VALUE_WORDS, *_YAML_WORDS),
        time_s=5.0,  # PyYAML looks a thousand signs ahead, once for each bracket that is open
        memory_mib=64,
        cost=10,
    ),
    Target(
        "initial cluster",
        plain(_initial_cluster),
        (UsageError,),
        lambda: [b"a=http://10.0.0.1:2380", b"a=http://10.0.0.1:2380,b=http://h:1,b=http://h:2"],
        (*_VALUE_WORDS, b"a=http://10.0.0.1:2380"),
        cost=2,
    ),
    Target(
        "values",
        plain(_feed_values),
        (Refused,),
        lambda: [b"true", b"F", b"-17", b"1h2m3.5s", b"100ms", b"0", b"a,b", b".5s"],
        _VALUE_WORDS,
    ),
    Target(
        "durations of commands",
        plain(_feed_cli_duration),
        (Refused,),
        lambda: [b"5s", b"1m30s", b"300ms", b"0", b"1.5h"],
        _VALUE_WORDS,
    ),
    Target("URLs", plain(_feed_urls), (Refused,), lambda: list(_URLS), _VALUE_WORDS),
    Target(
        "endpoints",
        plain(_feed_endpoints),
        (ValueError,),
        lambda: [b"a:1,http://b:2,https://[::1]:3", b"unix:///x", b"host", b"::1"],
        _VALUE_WORDS,
    ),
    Target(
        "listen address",
        plain(_feed_listen_address),
        (ListenError,),
        lambda: [b"127.0.0.1:2379", b"[::1]:0", b"host:1"],
        _VALUE_WORDS,
    ),
    Target(
        "local.json",
        _local_layout,
        (LayoutError,),
        lambda: [
            json.dumps({"members": rows}).encode()
            for rows in ([["node1", 2379, 2380, 2381]], [["a", 1, 2, 3], ["b", 4, 5, 6]])
        ],
        (b"[", b"]", b"{", b"}", b",", b'"a"', b"1e400", b"9" * 5000, b"[" * 5000, b"null", b"NaN"),
    ),
)
