"""etcd's feature gates: their defaults, older flags for them, and what each does here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from kvstore.serving.flag import Flag, FlagType, Kind
from kvstore.serving.values import BadValueError, parse_bool

__all__ = ("GATES", "GATE_FLAGS", "Gate", "gate_flag_table", "parse_gates")


@dataclass(frozen=True, slots=True)
class Gate:
    """A feature that `--feature-gates` switches."""

    name: str
    default: bool
    kind: Kind
    reason: str
    flag: str = ""
    """The spelling of etcd 3.5 as a flag of its own, without dashes."""


GATES: Mapping[str, Gate] = {
    gate.name: gate
    for gate in (
        Gate(
            "InitialCorruptCheck",
            False,
            Kind.REFUSED,
            "this member's data is not compared with the others' before it serves; "
            "--corrupt-check-time compares them while it does",
            "experimental-initial-corrupt-check",
        ),
        Gate(
            "CompactHashCheck",
            True,
            Kind.IMPLEMENTED,
            "the leader compares the hashes of the members' data, every --compact-hash-check-time "
            "(etcd's default is off)",
            "experimental-compact-hash-check-enabled",
        ),
        Gate(
            "StopGRPCServiceOnDefrag",
            False,
            Kind.REFUSED,
            "the health service does not report a defragmentation",
            "experimental-stop-grpc-service-on-defrag",
        ),
        Gate(
            "TxnModeWriteWithSharedBuffer",
            True,
            Kind.HARMLESS,
            "there is no write buffer to share: a transaction reads what it wrote",
            "experimental-txn-mode-write-with-shared-buffer",
        ),
        Gate(
            "LeaseCheckpoint",
            False,
            Kind.REFUSED,
            "remaining lease times are not replicated; a new leader gives each lease its full TTL",
            "experimental-enable-lease-checkpoint",
        ),
        Gate(
            "LeaseCheckpointPersist",
            False,
            Kind.REFUSED,
            "remaining lease times are not replicated; a new leader gives each lease its full TTL",
            "experimental-enable-lease-checkpoint-persist",
        ),
        Gate(
            "SetMemberLocalAddr",
            False,
            Kind.REFUSED,
            "the local address of connections to other members is the system's choice",
            "experimental-set-member-localaddr",
        ),
        Gate(
            "FastLeaseKeepAlive",
            True,
            Kind.HARMLESS,
            "a keep-alive never waits for the apply queue here",
        ),
        Gate(
            "PriorityRequest",
            False,
            Kind.HARMLESS,
            "heartbeats and votes have their own path here, whatever clients ask for",
        ),
    )
}

GATE_FLAGS: Mapping[str, Gate] = {gate.flag: gate for gate in GATES.values() if gate.flag}
"""The gates that etcd 3.5 had as flags."""


def gate_flag_table() -> tuple[Flag, ...]:
    """Those older flags as rows of the flag table."""
    return tuple(
        Flag(
            name,
            FlagType.BOOL,
            str(gate.default).lower(),
            f"Older spelling of --feature-gates={gate.name}=….",
            gate.kind,
            gate.reason,
        )
        for name, gate in GATE_FLAGS.items()
    )


def parse_gates(parts: Sequence[str]) -> dict[str, bool]:
    """Gate name to its given state, from `Name=true` parts; raises BadValueError."""
    given: dict[str, bool] = {}
    for part in parts:
        name, equals, state = part.partition("=")
        gate = GATES.get(name.strip())
        if gate is None:
            close = get_close_matches(name.strip(), GATES, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(GATES)}"
            raise BadValueError(f"no feature gate is called {name.strip()!r}{hint}")
        if not equals:
            raise BadValueError(f"the feature gate {gate.name} needs =true or =false")
        value = parse_bool(state.strip())
        if gate.kind is Kind.REFUSED and value != gate.default:
            raise BadValueError(f"the feature gate {gate.name} is refused: {gate.reason}")
        given[gate.name] = value
    return given
