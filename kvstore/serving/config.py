"""From settings to a checked ServerConfig; every refusal is a sentence that says what to change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstore.checks.reach import Network, network
from kvstore.checks.spec import BadCheck
from kvstore.node.config import NodeConfig
from kvstore.serving.dns import DnsConfig, build_dns_config
from kvstore.serving.gates import GATE_FLAGS, GATES, parse_gates
from kvstore.serving.logging import LEVELS, LogConfig, Rotation
from kvstore.serving.settings import Settings, UsageError
from kvstore.serving.urls import BadUrlError, ListenUrl, check_advertised, parse_listen
from kvstore.serving.values import BadValueError, format_duration, parse_duration, parse_int

__all__ = ("GrpcConfig", "ServerConfig", "build_config")

DEFAULT_QUOTA_BYTES = 2 * 1024**3
LARGE_QUOTA_BYTES = 8 * 1024**3
LARGE_REQUEST_BYTES = 10 * 1024**2
MAX_REQUEST_BYTES = 32 * 1024**2
"""A request travels between members in one frame, of which there may be 64 MiB."""
MAX_ELECTION_MS = 50_000
MIN_ELECTION_HEARTBEATS = 5
HTTP_PORT_OFFSET = 2
"""Where the HTTP side of a client port is unless told otherwise."""


@dataclass(frozen=True, slots=True)
class GrpcConfig:
    """What the client-facing gRPC server is told."""

    transport: str
    max_request_bytes: int
    max_concurrent_streams: int
    keepalive_min_time_s: float
    keepalive_interval_s: float
    keepalive_timeout_s: float


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything one server process needs to know."""

    node: NodeConfig
    client_urls: tuple[ListenUrl, ...]
    http_urls: tuple[ListenUrl, ...]
    http_on_client_urls: bool
    """The client URLs serve HTTP/1 too, as etcd's do until they are told to split."""
    metrics_urls: tuple[ListenUrl, ...]
    grpc: GrpcConfig
    dns: DnsConfig
    check_networks: tuple[Network, ...] | None
    """Where agentless checks may connect to; None: this member runs none."""
    log: LogConfig
    host_whitelist: tuple[str, ...]
    """Accepted Host names of HTTP requests; empty or `*` accepts all."""
    cors: tuple[str, ...]
    ready_timeout_s: float
    stop_on_stdin_eof: bool
    notes: tuple[str, ...]
    """Sentences to log once at the start."""


def build_config(settings: Settings) -> ServerConfig:
    """The checked configuration; raises UsageError."""
    notes = list(settings.notes)
    _one_of(settings, "metrics", ("basic", "extensive"))
    _one_of(settings, "logger", ("zap",))
    client_urls = _listen_urls(settings, "listen-client-urls")
    if not client_urls:
        raise UsageError("--listen-client-urls must name at least one URL")
    node = _node_config(settings, notes)
    http_urls = _listen_urls(settings, "listen-client-http-urls") or tuple(
        url.with_port(url.port + HTTP_PORT_OFFSET if url.port else 0)
        for url in client_urls
        if not url.is_unix
    )
    metrics_urls = _listen_urls(settings, "listen-metrics-urls")
    dns = build_dns_config(settings)
    _check_distinct(settings, client_urls, dns.addresses, http_urls, metrics_urls)
    return ServerConfig(
        node=node,
        client_urls=client_urls,
        http_urls=http_urls,
        http_on_client_urls="listen-client-http-urls" not in settings.given,
        metrics_urls=metrics_urls,
        grpc=_grpc_config(settings),
        dns=dns,
        check_networks=_check_networks(settings),
        log=_log_config(settings),
        host_whitelist=settings.list("host-whitelist"),
        cors=settings.list("cors"),
        ready_timeout_s=_seconds(settings, "wait-cluster-ready-timeout", 0.0),
        stop_on_stdin_eof=settings.flag("stop-on-stdin-eof"),
        notes=tuple(notes),
    )


def _node_config(settings: Settings, notes: list[str]) -> NodeConfig:
    name = settings.text("name")
    if not name:
        raise UsageError("--name must not be empty")
    if "=" in name or "," in name:
        raise UsageError(f"--name is {name!r}, but '=' and ',' separate names in --initial-cluster")
    data_dir = Path(settings.text("data-dir").replace("${name}", name))
    if not settings.text("data-dir"):
        raise UsageError("--data-dir must not be empty")
    wal_dir = settings.text("wal-dir")
    heartbeat_ms, election_ms = _timing(settings)
    listen_peer_urls = tuple(url.text for url in _listen_urls(settings, "listen-peer-urls"))
    if not listen_peer_urls:
        raise UsageError("--listen-peer-urls must name at least one URL")
    advertise_peer = _advertised(settings, "initial-advertise-peer-urls")
    for flag, urls in (
        ("listen-peer-urls", listen_peer_urls),
        ("initial-advertise-peer-urls", advertise_peer),
    ):
        if any(url.startswith("unix") for url in urls):
            raise UsageError(f"{settings.origin(flag)}: members reach each other by TCP alone")
    advertise_client = _advertised(settings, "advertise-client-urls")
    if "listen-client-urls" in settings.given and "advertise-client-urls" not in settings.given:
        raise UsageError(
            f"{settings.origin('listen-client-urls')} is given without --advertise-client-urls: "
            "name the URLs under which clients reach this member"
        )
    gates = _gates(settings, notes)
    mode, retention = _auto_compaction(settings)
    hash_check_s = _seconds(settings, "compact-hash-check-time", 0.0)
    if settings.flag("unsafe-no-fsync"):
        notes.append("--unsafe-no-fsync is on: a power loss or a crash of the machine loses data")
    return NodeConfig(
        name=name,
        data_dir=data_dir,
        wal_dir=Path(wal_dir) if wal_dir else None,
        listen_peer_urls=listen_peer_urls,
        advertise_peer_urls=advertise_peer,
        advertise_client_urls=advertise_client,
        initial_cluster=_initial_cluster(settings, name, advertise_peer, data_dir),
        initial_cluster_state=_one_of(settings, "initial-cluster-state", ("new", "existing")),
        initial_cluster_token=settings.text("initial-cluster-token"),
        heartbeat_ms=heartbeat_ms,
        election_ms=election_ms,
        pre_vote=settings.flag("pre-vote"),
        initial_election_tick_advance=settings.flag("initial-election-tick-advance"),
        snapshot_count=_number(settings, "snapshot-count", 1),
        snapshot_catchup_entries=_number(settings, "snapshot-catchup-entries", 0),
        quota_bytes=_quota(settings, notes),
        max_request_bytes=_max_request(settings, notes),
        max_txn_ops=_number(settings, "max-txn-ops", 1),
        auto_compaction_mode=mode,
        auto_compaction_retention=retention,
        compaction_batch_limit=_number(settings, "compaction-batch-limit", 1),
        compaction_sleep_ms=_seconds(settings, "compaction-sleep-interval", 0.0) * 1000,
        watch_progress_interval_s=_seconds(settings, "watch-progress-notify-interval", 0.1),
        compact_hash_check_s=hash_check_s if gates["CompactHashCheck"] else 0.0,
        corrupt_check_s=_seconds(settings, "corrupt-check-time", 0.0),
        strict_reconfig_check=settings.flag("strict-reconfig-check"),
        max_learners=_number(settings, "max-learners", 1),
        force_new_cluster=settings.flag("force-new-cluster"),
        unsafe_no_fsync=settings.flag("unsafe-no-fsync"),
    )


def _grpc_config(settings: Settings) -> GrpcConfig:
    return GrpcConfig(
        transport=_one_of(settings, "transport", ("auto", "grpcio", "http2", "native")),
        max_request_bytes=settings.int("max-request-bytes"),
        max_concurrent_streams=min(_number(settings, "max-concurrent-streams", 1), 2**32 - 1),
        keepalive_min_time_s=_seconds(settings, "grpc-keepalive-min-time", 0.0),
        keepalive_interval_s=_seconds(settings, "grpc-keepalive-interval", 0.0),
        keepalive_timeout_s=_seconds(settings, "grpc-keepalive-timeout", 0.0),
    )


def _log_config(settings: Settings) -> LogConfig:
    level = _one_of(settings, "log-level", tuple(LEVELS))
    outputs = tuple(
        "stderr" if output in ("default", "systemd/journal") else output
        for output in settings.list("log-outputs")
    )
    if not outputs:
        raise UsageError("--log-outputs must name at least one output")
    rotation = None
    if settings.flag("enable-log-rotation"):
        files = [output for output in outputs if output not in ("stderr", "stdout")]
        if len(files) != 1:
            raise UsageError(
                "--enable-log-rotation needs exactly one file among --log-outputs, "
                f"but there are {len(files)}"
            )
        rotation = _rotation(settings.text("log-rotation-config-json"))
    return LogConfig(
        level=LEVELS[level],
        format=_one_of(settings, "log-format", ("json", "console")),
        outputs=outputs,
        rotation=rotation,
    )


def _check_networks(settings: Settings) -> tuple[Network, ...] | None:
    try:
        networks = tuple(map(network, settings.list("check-allow-cidr")))
    except BadCheck as problem:
        raise UsageError(f"{settings.origin('check-allow-cidr')}: {problem}") from None
    if not settings.flag("enable-agentless-checks"):
        return None
    if not networks:
        raise UsageError("--enable-agentless-checks needs networks in --check-allow-cidr")
    return networks


def _rotation(text: str) -> Rotation:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--log-rotation-config-json is not JSON: {error}") from None
    allowed = {"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": False, "compress": False}
    if not isinstance(given, dict) or not given.keys() <= allowed.keys():
        raise UsageError(
            "--log-rotation-config-json must be an object with the keys " + ", ".join(allowed)
        )
    merged = allowed | given
    for key in ("maxsize", "maxage", "maxbackups"):
        if type(merged[key]) is not int or not 0 <= merged[key] < 2**31:
            raise UsageError(f"--log-rotation-config-json: {key} must be a number from 0 to 2^31-1")
    if merged["compress"]:
        raise UsageError("--log-rotation-config-json: compress is not done here; leave it false")
    return Rotation(
        max_bytes=(merged["maxsize"] or 100) * 1024**2,
        max_age_s=merged["maxage"] * 86_400.0,
        max_backups=merged["maxbackups"],
        local_time=bool(merged["localtime"]),
    )


def _timing(settings: Settings) -> tuple[int, int]:
    heartbeat_ms = _number(settings, "heartbeat-interval", 1)
    election_ms = _number(settings, "election-timeout", 1)
    if election_ms < MIN_ELECTION_HEARTBEATS * heartbeat_ms:
        raise UsageError(
            f"{settings.origin('election-timeout')} is {election_ms} ms, which is less than "
            f"{MIN_ELECTION_HEARTBEATS} heartbeats of {heartbeat_ms} ms: a short delay would "
            f"cost the leader its office; use at least {MIN_ELECTION_HEARTBEATS * heartbeat_ms}"
        )
    if election_ms > MAX_ELECTION_MS:
        raise UsageError(
            f"{settings.origin('election-timeout')} is {election_ms} ms; the most is "
            f"{MAX_ELECTION_MS}, since the cluster stands still for that long without a leader"
        )
    return heartbeat_ms, election_ms


def _quota(settings: Settings, notes: list[str]) -> int:
    quota = settings.int("quota-backend-bytes")
    if quota > LARGE_QUOTA_BYTES:
        notes.append(
            f"a quota of {quota} bytes is more than the {LARGE_QUOTA_BYTES} that etcd advises: "
            "copying so much to a new member takes long"
        )
    return quota or DEFAULT_QUOTA_BYTES


def _max_request(settings: Settings, notes: list[str]) -> int:
    size = _number(settings, "max-request-bytes", 1)
    if size > MAX_REQUEST_BYTES:
        raise UsageError(
            f"{settings.origin('max-request-bytes')} is {size}; the most is {MAX_REQUEST_BYTES}, "
            "since a larger request could not be sent to the other members"
        )
    if size > LARGE_REQUEST_BYTES:
        notes.append(f"requests of up to {size} bytes (over 10 MiB) delay the others behind them")
    return size


def _auto_compaction(settings: Settings) -> tuple[str, float]:
    mode = _one_of(settings, "auto-compaction-mode", ("periodic", "revision"))
    text = settings.text("auto-compaction-retention")
    origin = settings.origin("auto-compaction-retention")
    try:
        number: float | None = parse_int(text)
    except BadValueError:
        number = None
    if mode == "revision":
        if number is None:
            raise UsageError(f"{origin} must be a number of revisions, not {text!r}")
    elif number is not None:
        number *= 3600  # etcd reads a bare number as hours
    else:
        try:
            number = parse_duration(text)
        except BadValueError as problem:
            raise UsageError(f"{origin}: {problem}") from None
    if number < 0:
        raise UsageError(f"{origin} must not be negative; 0 switches automatic compaction off")
    return mode, float(number)


def _gates(settings: Settings, notes: list[str]) -> dict[str, bool]:
    states = {gate.name: gate.default for gate in GATES.values()}
    for flag, gate in GATE_FLAGS.items():
        if flag in settings.given:
            states[gate.name] = settings.flag(flag)
    try:
        given = parse_gates(settings.list("feature-gates"))
    except BadValueError as problem:
        raise UsageError(f"{settings.origin('feature-gates')}: {problem}") from None
    for name, state in given.items():
        gate = GATES[name]
        if gate.kind.value == "harmless" and state != gate.default:
            notes.append(f"the feature gate {name} is accepted without effect: {gate.reason}")
    return states | given


def _initial_cluster(
    settings: Settings, name: str, advertised: Sequence[str], data_dir: Path
) -> Mapping[str, tuple[str, ...]]:
    if "initial-cluster" not in settings.given:
        return {}
    origin = settings.origin("initial-cluster")
    members: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for part in settings.text("initial-cluster").split(","):
        member, equals, url = part.strip().partition("=")
        if not equals or not member or not url:
            raise UsageError(
                f"{origin}: {part.strip()!r} is not name=url; write the members as "
                "infra0=http://10.0.0.1:2380,infra1=http://10.0.0.2:2380"
            )
        _check_advertised(url, origin)
        if url in owner:
            raise UsageError(
                f"{origin} has {url} twice (for {owner[url]} and {member}); "
                "each member needs an address of its own"
            )
        owner[url] = member
        members.setdefault(member, []).append(url)
    try:
        has_data = (data_dir / "member").exists()
    except OSError as error:
        raise UsageError(
            f"{settings.origin('data-dir')} cannot be used: {error.strerror}"
        ) from None
    if has_data:
        return {member: tuple(urls) for member, urls in members.items()}
    if name not in members:
        raise UsageError(
            f"{origin} has no member called {name!r} (it has {', '.join(members)}); "
            "--name and the name in the list must be the same"
        )
    if sorted(members[name]) != sorted(advertised):
        raise UsageError(
            f"{origin} gives {name} the URLs {', '.join(sorted(members[name]))}, but "
            f"{settings.origin('initial-advertise-peer-urls')} says {', '.join(sorted(advertised))}"
        )
    return {member: tuple(urls) for member, urls in members.items()}


def _advertised(settings: Settings, flag: str) -> tuple[str, ...]:
    urls = settings.list(flag)
    if not urls:
        raise UsageError(f"--{flag} must name at least one URL")
    for url in urls:
        _check_advertised(url, settings.origin(flag))
    _check_no_repeat(settings, flag, urls)
    return urls


def _listen_urls(settings: Settings, flag: str) -> tuple[ListenUrl, ...]:
    texts = settings.list(flag)
    _check_no_repeat(settings, flag, texts)
    return tuple(_parse_url(text, settings.origin(flag)) for text in texts)


def _check_no_repeat(settings: Settings, flag: str, urls: Sequence[str]) -> None:
    for url in urls:
        if urls.count(url) > 1:
            raise UsageError(f"{settings.origin(flag)} has {url} twice")


def _check_distinct(
    settings: Settings,
    client_urls: Sequence[ListenUrl],
    dns_addresses: Sequence[ListenUrl],
    http_urls: Sequence[ListenUrl],
    metrics_urls: Sequence[ListenUrl],
) -> None:
    """No two front doors may share an address: gRPC, DNS and HTTP have a port each here."""
    seen: dict[tuple[str, int], str] = {}
    groups = (
        ("listen-peer-urls", _listen_urls(settings, "listen-peer-urls")),
        ("listen-client-urls", client_urls),
        ("listen-dns", dns_addresses),
        ("listen-client-http-urls", http_urls),
        ("listen-metrics-urls", metrics_urls),
    )
    for flag, urls in groups:
        for url in urls:
            key = (url.host or url.path, url.port)
            if key in seen and (url.port or url.is_unix):
                implied = "" if flag in settings.given else " (by default: client port + 2)"
                raise UsageError(
                    f"--{flag}{implied if 'http' in flag else ''} and --{seen[key]} both want "
                    f"{url.text}; give each its own port"
                )
            seen[key] = flag


def _parse_url(text: str, origin: str) -> ListenUrl:
    try:
        return parse_listen(text)
    except BadUrlError as problem:
        raise UsageError(f"{origin}: {problem}") from None


def _check_advertised(text: str, origin: str) -> None:
    try:
        check_advertised(text)
    except BadUrlError as problem:
        raise UsageError(f"{origin}: {problem}") from None


def _one_of(settings: Settings, flag: str, choices: Sequence[str]) -> str:
    value = settings.text(flag)
    if value not in choices:
        raise UsageError(
            f"{settings.origin(flag)} is {value!r}, but must be {' or '.join(choices)}"
        )
    return value


def _number(settings: Settings, flag: str, least: int) -> int:
    value = settings.int(flag)
    if value < least:
        raise UsageError(f"{settings.origin(flag)} is {value}, but must be at least {least}")
    return value


def _seconds(settings: Settings, flag: str, least_s: float) -> float:
    value = settings.seconds(flag)
    if value < least_s:
        raise UsageError(
            f"{settings.origin(flag)} is {format_duration(value)}, but must be at least "
            f"{format_duration(least_s)}"
        )
    return value
