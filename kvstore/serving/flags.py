"""The table of all server flags: etcd's, each with what becomes of it here, and a few of our own.

A flag is *implemented*; or *harmless*, accepted without effect because what it tunes does not exist
here; or *refused*: any value but the default ends the start. A flag that asks for security is never
harmless: who asks for it and does not get it must be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from kvstore.serving.flag import Flag, FlagType, Kind, harmless, implemented, refused
from kvstore.serving.gates import gate_flag_table

__all__ = ("FLAGS", "FLAGS_BY_NAME", "GROUPS", "env_name")

TEXT, BOOL, INT = FlagType.TEXT, FlagType.BOOL, FlagType.INT
DURATION, LIST = FlagType.DURATION, FlagType.LIST

_NO_TLS = "this version does not serve TLS yet"
_NO_PEER_TLS = "this version does not encrypt traffic between members yet"
_NO_DISCOVERY = (
    "a cluster is not looked up by discovery here; list its members in --initial-cluster"
)
_DISCOVERY_UNUSED = "only read together with discovery, which is refused"
_NO_AUTH = "users and passwords are not served by this version yet"
_NO_TRACING = "traces are not exported by this version"
_NO_V2 = "the v2 API, its store and its proxy are gone, as in etcd 3.6"

_MEMBER = (
    implemented("name", TEXT, "default", "Name of this member, for people."),
    implemented("data-dir", TEXT, "${name}.etcd", "Directory for everything this member stores."),
    implemented("wal-dir", TEXT, "", "Directory for the log alone (default: inside data-dir)."),
    implemented(
        "snapshot-count",
        INT,
        "10000",
        "Applied entries before a snapshot may be made; it is made once the log has also grown by "
        "64 MiB or half the database, whichever is more.",
    ),
    implemented(
        "snapshot-catchup-entries",
        INT,
        "5000",
        "Entries kept in memory behind a snapshot for followers that lag.",
        aliases=("experimental-snapshot-catchup-entries",),
    ),
    harmless(
        "max-snapshots",
        INT,
        "5",
        "Snapshot files to keep.",
        "snapshots are kept for as long as recovery may need them: the newest two",
    ),
    harmless(
        "max-wals",
        INT,
        "5",
        "Log files to keep.",
        "a log segment is removed once a verified snapshot covers it",
    ),
    implemented("heartbeat-interval", INT, "100", "Milliseconds between two heartbeats."),
    implemented(
        "election-timeout",
        INT,
        "1000",
        "Milliseconds without a leader before an election: at least 5 heartbeats, at most 50000.",
    ),
    implemented(
        "initial-election-tick-advance",
        BOOL,
        "true",
        "Shorten the first election wait after a start.",
    ),
    implemented("pre-vote", BOOL, "true", "Ask for votes before raising the term."),
    implemented("listen-peer-urls", LIST, "http://localhost:2380", "Where members reach us."),
    implemented(
        "listen-client-urls", LIST, "http://localhost:2379", "Where gRPC clients reach us."
    ),
    implemented(
        "listen-client-http-urls",
        LIST,
        "",
        "Where HTTP clients reach us (default: each client URL with its port + 2).",
    ),
    implemented(
        "listen-metrics-urls", LIST, "", "Further URLs for /metrics, /health, /livez and /readyz."
    ),
    implemented(
        "quota-backend-bytes",
        INT,
        "0",
        "Size of the database at which writes are refused; 0 means 2 GiB, below 0 no limit.",
    ),
    harmless(
        "backend-bbolt-freelist-type",
        TEXT,
        "map",
        "How bbolt keeps its free pages.",
        "the state is stored in LMDB, which has no such choice",
    ),
    harmless(
        "backend-batch-interval",
        DURATION,
        "0",
        "Longest time before a backend commit.",
        "what was applied together is committed together, at once",
    ),
    harmless(
        "backend-batch-limit",
        INT,
        "0",
        "Most operations before a backend commit.",
        "what was applied together is committed together, at once",
    ),
    implemented("max-txn-ops", INT, "128", "Most operations in one transaction."),
    implemented("max-request-bytes", INT, "1572864", "Largest request of a client, in bytes."),
    implemented(
        "max-concurrent-streams",
        INT,
        "4294967295",
        "Most calls that one client connection may have open.",
    ),
    implemented(
        "grpc-keepalive-min-time", DURATION, "5s", "Shortest time between a client's pings."
    ),
    implemented(
        "grpc-keepalive-interval",
        DURATION,
        "2h",
        "Time between our pings to a quiet client; 0: off.",
    ),
    implemented(
        "grpc-keepalive-timeout", DURATION, "20s", "Wait for the answer to a ping before closing."
    ),
    harmless(
        "enable-grpc-gateway",
        BOOL,
        "true",
        "Serve etcd's JSON API over HTTP.",
        "this version has no JSON API, so there is nothing to switch off",
    ),
    refused(
        "socket-reuse-port",
        BOOL,
        "false",
        "Let several processes listen on the same port.",
        "two servers on one port would each answer a part of the clients",
    ),
    harmless(
        "socket-reuse-address",
        BOOL,
        "false",
        "Listen again on an address in TIME_WAIT.",
        "always so here",
    ),
    harmless(
        "raft-read-timeout",
        DURATION,
        "5s",
        "Read timeout of a connection between members.",
        "such a connection is judged by its heartbeats",
    ),
    harmless(
        "raft-write-timeout",
        DURATION,
        "5s",
        "Write timeout of a connection between members.",
        "such a connection is judged by its heartbeats",
    ),
    harmless(
        "memory-mlock",
        BOOL,
        "false",
        "Keep the database's pages in memory.",
        "it changes speed alone, and the database is as large as its file, not as its use",
        aliases=("experimental-memory-mlock",),
    ),
    harmless(
        "bootstrap-defrag-threshold-megabytes",
        INT,
        "0",
        "Defragment at start when that frees so much.",
        "free pages are used again; ask for a defragmentation when the file is to shrink",
        aliases=("experimental-bootstrap-defrag-threshold-megabytes",),
    ),
    implemented(
        "max-learners",
        INT,
        "1",
        "Most learners in the cluster.",
        aliases=("experimental-max-learners",),
    ),
    implemented(
        "wait-cluster-ready-timeout",
        DURATION,
        "5s",
        "Longest wait for a leader before clients are let in anyway.",
        aliases=("experimental-wait-cluster-ready-timeout",),
    ),
)

_CLUSTERING = (
    implemented(
        "initial-advertise-peer-urls",
        LIST,
        "http://localhost:2380",
        "The URLs under which the other members reach this one.",
    ),
    implemented(
        "initial-cluster",
        TEXT,
        "default=http://localhost:2380",
        "All members as name=url,name=url; read only while the data directory is new.",
    ),
    implemented(
        "initial-cluster-state",
        TEXT,
        "new",
        "`new` to found a cluster, `existing` to join one that has added this member.",
    ),
    implemented(
        "initial-cluster-token", TEXT, "etcd-cluster", "Keeps clusters of equal addresses apart."
    ),
    implemented(
        "advertise-client-urls",
        LIST,
        "http://localhost:2379",
        "The URLs under which clients reach us; needed whenever listen-client-urls is given.",
    ),
    implemented(
        "strict-reconfig-check", BOOL, "true", "Refuse a change of members that would lose quorum."
    ),
    refused("discovery-token", TEXT, "", "Token for discovery.", _NO_DISCOVERY),
    refused("discovery-endpoints", LIST, "", "Endpoints for discovery.", _NO_DISCOVERY),
    refused("discovery-srv", TEXT, "", "DNS domain for discovery.", _NO_DISCOVERY),
    refused("discovery-srv-name", TEXT, "", "DNS name suffix for discovery.", _NO_DISCOVERY),
    refused("discovery", TEXT, "", "Discovery URL of etcd 3.5 and before.", _NO_DISCOVERY),
    harmless("discovery-dial-timeout", DURATION, "2s", "Discovery: dialling.", _DISCOVERY_UNUSED),
    harmless("discovery-request-timeout", DURATION, "5s", "Discovery: a call.", _DISCOVERY_UNUSED),
    harmless("discovery-keepalive-time", DURATION, "2s", "Discovery: pings.", _DISCOVERY_UNUSED),
    harmless(
        "discovery-keepalive-timeout", DURATION, "6s", "Discovery: answers.", _DISCOVERY_UNUSED
    ),
    harmless("discovery-fallback", TEXT, "proxy", "Discovery of etcd 3.5.", _DISCOVERY_UNUSED),
    harmless("discovery-proxy", TEXT, "", "Discovery of etcd 3.5.", _DISCOVERY_UNUSED),
    implemented(
        "auto-compaction-mode", TEXT, "periodic", "What the retention counts: periodic, revision."
    ),
    implemented(
        "auto-compaction-retention",
        TEXT,
        "0",
        "History kept by automatic compaction: hours or a duration (periodic), or revisions; "
        "0 is off.",
    ),
    implemented(
        "compaction-batch-limit",
        INT,
        "1000",
        "Most revisions removed in one step of a compaction.",
        aliases=("experimental-compaction-batch-limit",),
    ),
    implemented(
        "compaction-sleep-interval",
        DURATION,
        "10ms",
        "Pause between two such steps.",
        aliases=("experimental-compaction-sleep-interval",),
    ),
    implemented(
        "watch-progress-notify-interval",
        DURATION,
        "10m",
        "Time between progress notifications on a quiet watch.",
        aliases=("experimental-watch-progress-notify-interval",),
    ),
    harmless(
        "downgrade-check-time",
        DURATION,
        "5s",
        "Time between checks of a downgrade.",
        "a downgrade needs no checks: the storage format has one version",
        aliases=("experimental-downgrade-check-time",),
    ),
    harmless("v2-deprecation", TEXT, "write-only", "Phase of removing the v2 store.", _NO_V2),
    refused("enable-v2", BOOL, "false", "Serve the v2 API.", _NO_V2),
    refused("proxy", TEXT, "off", "Run as a v2 proxy.", _NO_V2),
    harmless("proxy-failure-wait", INT, "5000", "v2 proxy.", _NO_V2),
    harmless("proxy-refresh-interval", INT, "30000", "v2 proxy.", _NO_V2),
    harmless("proxy-dial-timeout", INT, "1000", "v2 proxy.", _NO_V2),
    harmless("proxy-write-timeout", INT, "5000", "v2 proxy.", _NO_V2),
    harmless("proxy-read-timeout", INT, "0", "v2 proxy.", _NO_V2),
)

_SECURITY = (
    refused("cert-file", TEXT, "", "Server certificate for clients.", _NO_TLS),
    refused("key-file", TEXT, "", "Key of that certificate.", _NO_TLS),
    refused("trusted-ca-file", TEXT, "", "Authorities for client certificates.", _NO_TLS),
    refused("client-cert-auth", BOOL, "false", "Demand client certificates.", _NO_TLS),
    refused("client-cert-file", TEXT, "", "Certificate for our own client calls.", _NO_TLS),
    refused("client-key-file", TEXT, "", "Key of that certificate.", _NO_TLS),
    refused("client-crl-file", TEXT, "", "Revoked client certificates.", _NO_TLS),
    refused("client-cert-allowed-hostname", LIST, "", "Accepted client host names.", _NO_TLS),
    refused("auto-tls", BOOL, "false", "Generate certificates for clients.", _NO_TLS),
    refused("self-signed-cert-validity", INT, "1", "Years of generated certificates.", _NO_TLS),
    refused("peer-cert-file", TEXT, "", "Certificate for members.", _NO_PEER_TLS),
    refused("peer-key-file", TEXT, "", "Key of that certificate.", _NO_PEER_TLS),
    refused("peer-trusted-ca-file", TEXT, "", "Authorities for members.", _NO_PEER_TLS),
    refused("peer-client-cert-auth", BOOL, "false", "Demand certificates.", _NO_PEER_TLS),
    refused("peer-client-cert-file", TEXT, "", "Certificate for dialling.", _NO_PEER_TLS),
    refused("peer-client-key-file", TEXT, "", "Key of that certificate.", _NO_PEER_TLS),
    refused("peer-auto-tls", BOOL, "false", "Generate certificates.", _NO_PEER_TLS),
    refused("peer-crl-file", TEXT, "", "Revoked certificates of members.", _NO_PEER_TLS),
    refused("peer-cert-allowed-cn", LIST, "", "Accepted common names.", _NO_PEER_TLS),
    refused("peer-cert-allowed-hostname", LIST, "", "Accepted host names.", _NO_PEER_TLS),
    refused(
        "peer-skip-client-san-verification",
        BOOL,
        "false",
        "Accept certificates with other names.",
        _NO_PEER_TLS,
        aliases=("experimental-peer-skip-client-san-verification",),
    ),
    refused("cipher-suites", LIST, "", "Accepted TLS ciphers.", _NO_TLS),
    refused("tls-min-version", TEXT, "TLS1.2", "Oldest accepted TLS version.", _NO_TLS),
    refused("tls-max-version", TEXT, "", "Newest accepted TLS version.", _NO_TLS),
    implemented("cors", LIST, "*", "Origins whose pages may call us over HTTP; * is all."),
    implemented("host-whitelist", LIST, "*", "Host names accepted in HTTP requests; * is all."),
    refused("auth-token", TEXT, "simple", "Kind of token: simple or jwt.", _NO_AUTH),
    refused("auth-token-ttl", INT, "300", "Seconds that a token lives.", _NO_AUTH),
    refused("bcrypt-cost", INT, "10", "Cost of hashing a password.", _NO_AUTH),
)

_OBSERVING = (
    harmless(
        "metrics",
        TEXT,
        "basic",
        "`extensive` adds the durations of gRPC calls.",
        "the durations of single calls are not measured",
    ),
    harmless(
        "enable-pprof",
        BOOL,
        "false",
        "Serve Go's profiler.",
        "Go's profiler does not exist here",
    ),
    implemented("logger", TEXT, "zap", "Form of the log; zap (structured) is the only one."),
    implemented("log-level", TEXT, "info", "debug, info, warn, error, panic or fatal."),
    implemented("log-format", TEXT, "json", "json (one object a line) or console (for people)."),
    implemented("log-outputs", LIST, "default", "stderr (default), stdout, and paths of files."),
    implemented("enable-log-rotation", BOOL, "false", "Start a new log file when one is full."),
    implemented(
        "log-rotation-config-json",
        TEXT,
        '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
        "When: maxsize in MB; what stays: maxage in days, maxbackups in files (0: all).",
    ),
    harmless(
        "warning-apply-duration",
        DURATION,
        "100ms",
        "An apply that takes longer is logged.",
        "the limit is fixed: etcd_server_slow_apply_total counts those over 100 ms",
        aliases=("experimental-warning-apply-duration",),
    ),
    harmless(
        "warning-unary-request-duration",
        DURATION,
        "300ms",
        "A call that takes longer is logged.",
        "the durations of single calls are not measured",
        aliases=("experimental-warning-unary-request-duration",),
    ),
    refused(
        "enable-distributed-tracing",
        BOOL,
        "false",
        "Export traces.",
        _NO_TRACING,
        aliases=("experimental-enable-distributed-tracing",),
    ),
    harmless(
        "distributed-tracing-address",
        TEXT,
        "localhost:4317",
        "Collector of traces.",
        _NO_TRACING,
        aliases=("experimental-distributed-tracing-address",),
    ),
    harmless(
        "distributed-tracing-service-name",
        TEXT,
        "etcd",
        "Service name in traces.",
        _NO_TRACING,
        aliases=("experimental-distributed-tracing-service-name",),
    ),
    harmless(
        "distributed-tracing-instance-id",
        TEXT,
        "",
        "Instance in traces.",
        _NO_TRACING,
        aliases=("experimental-distributed-tracing-instance-id",),
    ),
    harmless(
        "distributed-tracing-sampling-rate",
        INT,
        "0",
        "Traces kept per million.",
        _NO_TRACING,
        aliases=("experimental-distributed-tracing-sampling-rate",),
    ),
)

_DNS = (
    implemented(
        "listen-dns",
        LIST,
        "",
        "Where DNS is answered over UDP and TCP, as 127.0.0.1:8600; several are possible.",
        ours=True,
    ),
    implemented(
        "dns-zone",
        TEXT,
        "kv.local",
        "The domain of our services: <service>.<namespace>.svc.<zone>.",
        ours=True,
    ),
    implemented(
        "dns-ttl",
        DURATION,
        "5s",
        "How long an answer may be remembered at most, in whole seconds.",
        ours=True,
    ),
    implemented(
        "dns-consul-domain",
        TEXT,
        "consul",
        "The domain for names in Consul's form: <service>.service.<domain>; empty: none.",
        ours=True,
    ),
    implemented(
        "dns-consul-datacenter",
        TEXT,
        "dc1",
        "What names in Consul's form may have as their datacenter.",
        ours=True,
    ),
    implemented(
        "dns-prefer-zone",
        TEXT,
        "",
        "The zone of this member and of those who ask it: instances there come first.",
        ours=True,
    ),
)

_CHECKS = (
    implemented(
        "enable-agentless-checks",
        BOOL,
        "false",
        "Run the checks of instances that were registered with some (HTTP, TCP, gRPC).",
        ours=True,
    ),
    implemented(
        "check-allow-cidr",
        LIST,
        "127.0.0.0/8,::1/128",
        "Networks that these checks may connect to.",
        ours=True,
    ),
)

_SAFETY = (
    implemented(
        "corrupt-check-time",
        DURATION,
        "0",
        "Time between comparisons of all members' data, by hashes; 0 is off.",
        aliases=("experimental-corrupt-check-time",),
    ),
    implemented(
        "compact-hash-check-time",
        DURATION,
        "1m",
        "The same, while the gate CompactHashCheck is on; the shorter of the two counts.",
        aliases=("experimental-compact-hash-check-time",),
    ),
    implemented(
        "feature-gates", LIST, "", "Features to switch, as Name=true,Name=false (see below)."
    ),
    implemented("force-new-cluster", BOOL, "false", "Make this member a cluster of its own."),
    implemented(
        "unsafe-no-fsync", BOOL, "false", "Do not wait for the disk: data may be lost. For tests."
    ),
    implemented("config-file", TEXT, "", "YAML file of settings; it beats flags and variables."),
    implemented("version", BOOL, "false", "Print the version and leave."),
    implemented(
        "transport",
        TEXT,
        "auto",
        "gRPC server: http2, native (both extra `fast`), grpcio, or auto: http2 if installed.",
        ours=True,
    ),
    implemented(
        "stop-on-stdin-eof",
        BOOL,
        "false",
        "Stop when standard input ends: ties this process to the one that started it.",
        ours=True,
    ),
)

GROUPS: Mapping[str, tuple[Flag, ...]] = MappingProxyType(
    {
        "Member": _MEMBER,
        "Cluster and history": _CLUSTERING,
        "Security": _SECURITY,
        "Logs and measurements": _OBSERVING,
        "DNS": _DNS,
        "Checks that the cluster runs": _CHECKS,
        "Safety and the process": _SAFETY,
        "Feature gates in older spelling": gate_flag_table(),
    }
)
"""The flags in the order in which help and documentation show them."""

FLAGS: tuple[Flag, ...] = tuple(flag for group in GROUPS.values() for flag in group)


def _names() -> Iterator[tuple[str, Flag]]:
    for flag in FLAGS:
        yield flag.name, flag
        for alias in flag.aliases:
            yield alias, flag


FLAGS_BY_NAME: Mapping[str, Flag] = MappingProxyType(dict(_names()))
"""Every accepted spelling, without dashes in front."""


def env_name(name: str) -> str:
    """The environment variable of a flag: `data-dir` is `KVSTORE_DATA_DIR`."""
    return "KVSTORE_" + name.upper().replace("-", "_")


assert len(FLAGS_BY_NAME) == sum(1 + len(flag.aliases) for flag in FLAGS), "a flag name twice"
assert all(flag.reason for flag in FLAGS if flag.kind is not Kind.IMPLEMENTED)
