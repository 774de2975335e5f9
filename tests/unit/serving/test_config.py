"""From settings to the checked configuration: etcd's rules, and sentences when they are broken."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from kvstore.serving.config import ServerConfig, build_config
from kvstore.serving.settings import UsageError, read_settings


def config(*argv: str) -> ServerConfig:
    return build_config(read_settings(argv, {}))


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        config(*argv)
    return str(caught.value)


def test_the_defaults_are_etcds() -> None:
    made = config()
    node = made.node
    assert (node.name, node.data_dir) == ("default", Path("default.etcd"))
    assert node.initial_cluster == {}
    assert (node.heartbeat_ms, node.election_ms) == (100, 1000)
    assert node.quota_bytes == 2 * 1024**3
    assert node.compact_hash_check_s == 60.0  # the one default of ours: the check is on
    assert node.compaction_sleep_ms == 10.0
    assert [url.text for url in made.client_urls] == ["http://localhost:2379"]
    assert [url.text for url in made.http_urls] == ["http://localhost:2381"]
    assert made.metrics_urls == ()
    assert (made.log.level, made.log.format, made.log.outputs) == (
        logging.INFO,
        "json",
        ("stderr",),
    )
    assert made.grpc.transport == "auto"
    assert made.notes == ()


def test_localhost_is_two_addresses_where_the_machine_has_both() -> None:
    addresses = config().client_urls[0].addresses()
    assert addresses[0] == ("127.0.0.1", 2379)
    assert addresses[1:] in ((), (("::1", 2379),))


def test_a_whole_member_of_three() -> None:
    cluster = "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,b=http://10.0.1.2:2380"
    made = config(
        "--name=b",
        "--listen-peer-urls=http://0.0.0.0:2380",
        "--initial-advertise-peer-urls=http://10.0.1.2:2380,http://10.0.0.2:2380",
        "--listen-client-urls=http://[::]:12379,http://127.0.0.1:2379",
        "--advertise-client-urls=http://infra-b.example:12379",
        f"--initial-cluster={cluster}",
        "--initial-cluster-state=existing",
        "--quota-backend-bytes=-1",
        "--auto-compaction-retention=90m",
        "--feature-gates=CompactHashCheck=true",
        "--listen-metrics-urls=http://127.0.0.1:9100",
    )
    assert made.node.initial_cluster == {
        "a": ("http://10.0.0.1:2380",),
        "b": ("http://10.0.0.2:2380", "http://10.0.1.2:2380"),
    }
    assert made.node.quota_bytes == -1
    assert made.node.auto_compaction_retention == 5400.0
    assert made.node.compact_hash_check_s == 60.0
    assert [url.text for url in made.http_urls] == ["http://[::]:12381", "http://127.0.0.1:2381"]
    assert made.client_urls[0].addresses() == (("::", 12379),)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--election-timeout=400"], "less than 5 heartbeats"),
        (["--election-timeout=50001"], "the most is 50000"),
        (["--heartbeat-interval=0"], "at least 1"),
        (["--listen-client-urls=http://127.0.0.1:2379"], "without --advertise-client-urls"),
        (["--listen-peer-urls=http://example.com:2380"], "needs an IP address"),
        (["--listen-peer-urls=https://127.0.0.1:2380"], "does not serve TLS yet"),
        (["--listen-peer-urls=127.0.0.1:2380"], "must start with http://"),
        (["--listen-peer-urls=http://127.0.0.1"], "has no port"),
        (["--listen-peer-urls=http://127.0.0.1:99999"], "from 0 to 65535"),
        (["--listen-peer-urls=http://127.0.0.1:2380/"], "must not have a path"),
        (["--listen-peer-urls=http://:2380"], "has no host"),
        (["--listen-peer-urls=http://127.0.0.1:1,http://127.0.0.1:1"], "twice"),
        (["--listen-peer-urls="], "at least one URL"),
        (["--listen-metrics-urls=http://localhost:2379"], "both want"),
        (["--listen-peer-urls=http://localhost:2381"], "client port + 2"),
        (["--listen-dns=localhost:2381"], "--listen-dns both want"),
        (["--listen-dns=localhost:2379"], "--listen-dns and --listen-client-urls both want"),
        (["--advertise-client-urls=https://a:1"], "TLS"),
        (["--advertise-client-urls=http://0.0.0.0:2379"], "cannot be dialled"),
        (["--advertise-client-urls=http://a:0"], "port 0"),
        (["--initial-advertise-peer-urls="], "at least one URL"),
        (["--initial-cluster=a=http://h:1"], "no member called 'default'"),
        (["--initial-cluster=default=http://h:1"], "says http://localhost:2380"),
        (["--initial-cluster=default"], "is not name=url"),
        (["--initial-cluster=a=http://h:1,b=http://h:1"], "twice (for a and b)"),
        (["--initial-cluster-state=old"], "must be new or existing"),
        (["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"], "revisions"),
        (["--auto-compaction-retention=soon"], "not a duration"),
        (["--auto-compaction-retention=-1"], "must not be negative"),
        (["--feature-gates=Nope=true"], "no feature gate"),
        (["--feature-gates=CompactHashChek=true"], "did you mean CompactHashCheck?"),
        (["--feature-gates=LeaseCheckpoint=true"], "is refused"),
        (["--feature-gates=InitialCorruptCheck=true"], "is refused"),
        (["--feature-gates=CompactHashCheck"], "needs =true"),
        (["--log-level=loud"], "debug or info"),
        (["--logger=capnslog"], "must be zap"),
        (["--log-outputs="], "at least one output"),
        (["--enable-log-rotation"], "exactly one file"),
        (["--metrics=all"], "basic or extensive"),
        (["--transport=quic"], "auto or grpcio or http2 or native"),
        (["--name="], "must not be empty"),
        (["--name=a=b"], "separate names"),
        (["--listen-peer-urls=unix:///run/peer.sock"], "by TCP alone"),
        (["--data-dir="], "must not be empty"),
        (["--snapshot-count=0"], "at least 1"),
        (["--max-txn-ops=0"], "at least 1"),
        (["--max-request-bytes=33554433"], "the most is 33554432"),
        (["--compaction-sleep-interval=-1s"], "at least 0s"),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(argv: list[str], said: str) -> None:
    assert said in refusal(*argv)


def test_the_cluster_list_of_a_member_that_has_data_need_not_fit(tmp_path: Path) -> None:
    (tmp_path / "member").mkdir()
    made = config(f"--data-dir={tmp_path}", "--initial-cluster=other=http://h:1")
    assert made.node.initial_cluster == {"other": ("http://h:1",)}


def test_the_name_is_part_of_the_default_directory() -> None:
    assert config("--name=infra7").node.data_dir == Path("infra7.etcd")


def test_bare_retentions_are_hours_or_revisions() -> None:
    assert config("--auto-compaction-retention=2").node.auto_compaction_retention == 7200.0
    revisions = config("--auto-compaction-mode=revision", "--auto-compaction-retention=1000")
    assert revisions.node.auto_compaction_retention == 1000.0


def test_the_older_flags_of_gates_count_and_the_gate_itself_wins() -> None:
    old = ["--experimental-compact-hash-check-enabled", "--compact-hash-check-time=5s"]
    assert config(*old).node.compact_hash_check_s == 5.0
    both = config(*old, "--feature-gates=CompactHashCheck=false")
    assert both.node.compact_hash_check_s == 0.0
    assert config("--corrupt-check-time=3m").node.corrupt_check_s == 180.0


def test_risky_and_idle_settings_are_noted() -> None:
    made = config(
        "--unsafe-no-fsync",
        "--quota-backend-bytes=9000000000",
        "--max-request-bytes=20000000",
        "--feature-gates=FastLeaseKeepAlive=false",
        "--max-wals=9",
    )
    assert len(made.notes) == 5


def test_log_rotation_is_read(tmp_path: Path) -> None:
    made = config(
        f"--log-outputs=stderr,{tmp_path}/kv.log",
        "--enable-log-rotation",
        '--log-rotation-config-json={"maxsize": 1, "maxage": 2, "maxbackups": 3}',
    )
    rotation = made.log.rotation
    assert rotation is not None
    assert (rotation.max_bytes, rotation.max_age_s, rotation.max_backups) == (1048576, 172800.0, 3)
    for wrong in ("{", "[]", '{"max": 1}', '{"maxsize": -1}', '{"compress": true}'):
        with pytest.raises(UsageError, match="log-rotation-config-json"):
            config(
                f"--log-outputs={tmp_path}/kv.log",
                "--enable-log-rotation",
                f"--log-rotation-config-json={wrong}",
            )


def test_a_unix_socket_for_clients_has_no_http_port_by_default() -> None:
    made = config("--listen-client-urls=unix:///run/kv.sock", "--advertise-client-urls=http://a:1")
    assert made.client_urls[0].path == "/run/kv.sock"
    assert made.http_urls == ()


def test_dns_is_off_unless_it_is_told_where() -> None:
    made = config().dns
    assert made.addresses == ()
    assert made.settings.main.wire == b"\2kv\5local\0"
    made = config(
        "--listen-dns=127.0.0.1:8600,[::1]:8600,0.0.0.0:53",
        "--dns-zone=Corp.Example",
        "--dns-ttl=30s",
        "--dns-consul-domain=",
        "--dns-prefer-zone=north",
    ).dns
    assert [each.addresses() for each in made.addresses] == [
        (("127.0.0.1", 8600),),
        (("::1", 8600),),
        (("0.0.0.0", 53),),
    ]
    settings = made.settings
    assert settings.main.wire == b"\4corp\7example\0"
    assert (settings.ttl_s, settings.own_zone, len(settings.zones)) == (30, "north", 3)
    assert settings.own_addresses == (b"\x7f\0\0\1", bytes(15) + b"\1"), "not those of everywhere"


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--listen-dns=127.0.0.1", "127.0.0.1.*no port"),
        ("--listen-dns=ns.example:53", "needs an IP address"),
        ("--listen-dns=http://127.0.0.1:53", "an address and a port, as 127.0.0.1:8600"),
        ("--listen-dns=127.0.0.1:70000", "0 to 65535"),
        ("--listen-dns=127.0.0.1:53,127.0.0.1:53", "twice"),
        ("--dns-zone=a b", "'a b' is not a domain name"),
        ("--dns-zone=consul", "both 'consul'"),
        ("--dns-ttl=1500ms", "whole seconds"),
        ("--dns-ttl=-5s", "0 s to 86400 s"),
        ("--dns-consul-datacenter=a.b", "one label"),
    ],
)
def test_what_dns_cannot_be_told(flag: str, sentence: str) -> None:
    assert re.search(sentence, refusal(flag)), refusal(flag)
