"""Damage to the data directories of stopped members, and the operator's way back.

A damaged log is refused: the member ends with a sentence and exit code 5, touches nothing, and
is replaced as docs/operations.md says (member remove, directory aside, member add, start empty).
A damaged store or snapshot is put right from what else is there; where that is not enough, the
member says so and is replaced, too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import grpc

from kvstore.storage.wal_format import HEADER_BYTES
from tests.support.battlefield import EXIT_DAMAGED, HEALTHY_S, Field, cli, until
from tests.support.nemesis import Fault, kill
from tests.support.rpc import Rpc
from tests.support.servers import Server

__all__ = ("DAMAGES", "REPLACEMENTS", "bring_back", "refuses", "replace")

_ADVICE = "Replace this member"
_STARTS_MAX = 4
"""Until a member with a damaged store has noticed all of it: each time it ends and is started."""


# ---- what can be damaged ----------------------------------------------------------------------


def wal_segments(server: Server) -> list[Path]:
    return sorted((server.data_dir / "member" / "wal").glob("*.wal"))


def written(segment: Path) -> int:
    """Bytes in front of the zeros that a segment is made with."""
    return len(segment.read_bytes().rstrip(b"\0"))


def store_file(server: Server) -> Path:
    return server.data_dir / "member" / "db" / "store.mdb"


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 1 << bit,)))


def flip_wal(field: Field, server: Server, stripe: tuple[float, float] = (0.0, 1.0)) -> None:
    """One bit of the log's written part, within the stripe (fractions of it)."""
    segment = field.chance.choice(wal_segments(server))
    used = written(segment) - HEADER_BYTES
    low, high = (HEADER_BYTES + int(used * part) for part in stripe)
    flip(segment, field.chance.randrange(low, high), field.chance.randrange(8))
    field.fired["flipped in a log"] += 1


def cut_wal(field: Field, server: Server) -> None:
    """The log's last file ends somewhere in what was written long ago."""
    segment = wal_segments(server)[-1]
    os.truncate(segment, field.chance.randrange(HEADER_BYTES, written(segment) * 3 // 4))
    field.fired["log cut short"] += 1


def flip_store(field: Field, server: Server) -> None:
    """A bit in each page of the store but the two that say where everything is."""
    path = store_file(server)
    for page in range(2, path.stat().st_size // 4096):
        flip(path, page * 4096 + field.chance.randrange(4096), field.chance.randrange(8))
    field.fired["flipped in a store"] += 1


def flip_values(field: Field, server: Server) -> None:
    """Only bytes of values: no page structure shows it, the checksums alone."""
    path = store_file(server)
    data = bytearray(path.read_bytes())
    found = [match.start() for match in re.finditer(rb"[0-9a-z]{3,}", data)]
    for at in found[:: max(1, len(found) // 200)]:
        data[at] ^= 0x01
    path.write_bytes(data)
    field.fired["flipped in a store"] += 1


def remove_store(field: Field, server: Server) -> None:
    store_file(server).unlink()
    field.fired["store removed"] += 1


def flip_snapshots(field: Field, server: Server) -> None:
    """Every snapshot file, and the store is gone: nothing leads up to a log that was cut."""
    for path in (server.data_dir / "member" / "snap").glob("*.kvs"):
        flip(path, field.chance.randrange(path.stat().st_size), field.chance.randrange(8))
        field.fired["flipped in a snapshot"] += 1
    remove_store(field, server)


Damage = Callable[[Field, Server], None]


# ---- the way back -----------------------------------------------------------------------------


def fingerprint(server: Server) -> dict[str, bytes]:
    """What is in the log's directory."""
    return {path.name: sha256(path.read_bytes()).digest() for path in wal_segments(server)}


def refuses(server: Server) -> None:
    """A start ends with the sentence and the exit code, and leaves the log as it is.

    It ends before it has listened for peers: it asks for no vote, and gives none.
    """
    before, said = fingerprint(server), len(server.log())
    server.start(wait=False)
    code = server.wait(HEALTHY_S)
    log = server.log()[said:]
    assert code == EXIT_DAMAGED, f"exit code {code}:\n{log[-3000:]}"
    assert _ADVICE in log and "Traceback" not in log, log[-3000:]
    assert "connected to member" not in log, log[-3000:]
    assert fingerprint(server) == before, "a damaged log must not be touched"


def replace(field: Field, server: Server) -> None:
    """The steps of docs/operations.md, with the commands that it gives."""
    assert not server.running
    # A change that is handed to a leader just dead is lost, and its outcome is not known.
    field.leader()
    healthy = next(s for s in field.shuffled() if s.running and s is not server)
    asking = f"--endpoints={healthy.endpoint}"
    member = f"{field.id_of(server.name):x}"
    run(asking, "member", "remove", member)
    aside = server.data_dir.with_name(f"{server.data_dir.name}.{member}")
    server.data_dir.rename(aside)
    added = run(asking, "member", "add", server.name, f"--peer-urls={server.peer_url}")
    members = re.search(r'ETCD_INITIAL_CLUSTER="([^"]*)"', added)
    assert members is not None, added
    server.cluster, server.state = members[1], "existing"
    server.start(wait=False)
    server.wait_ready(HEALTHY_S)
    field.fired["member replaced"] += 1


def run(*arguments: str) -> str:
    """An operator's command, again while the cluster is not ready for a change."""
    deadline = time.monotonic() + HEALTHY_S
    while (done := cli(*arguments)).returncode != 0:
        patient = "unhealthy cluster" in done.stderr or "leader" in done.stderr
        assert patient and time.monotonic() < deadline, done.stderr
    return done.stdout


def bring_back(field: Field, server: Server) -> None:
    """Starts a damaged member until it is healthy, or refused for good and replaced."""
    for _ in range(_STARTS_MAX):
        said = len(server.log())
        server.start(wait=False)
        until(lambda: server.healthy() or not server.running, f"{server.name} neither", HEALTHY_S)
        if server.running and reads_everything(server):
            return
        code = server.wait(HEALTHY_S)
        log = server.log()[said:]
        assert code == EXIT_DAMAGED, f"exit code {code}:\n{log[-3000:]}"
        field.fired["damage noticed"] += 1
        if _ADVICE in log:
            refuses(server)
            replace(field, server)
            return
    raise AssertionError(f"{server.name} still ends after {_STARTS_MAX} starts")


def reads_everything(server: Server) -> bool:
    """Whether the member can read its whole store; it ends when a checksum does not fit."""
    with Rpc(server.endpoint, timeout_s=20) as rpc:
        try:
            rpc.range("\0", "\0", serializable=True)
            rpc.hash_kv()
        except grpc.RpcError:
            return False
    return True


# ---- faults -----------------------------------------------------------------------------------


def on_one(damage: Damage) -> Fault:
    """A member dies, its files are damaged, it comes back or is replaced; the others go on."""

    def fault(field: Field) -> None:
        victim = field.shuffled()[0]
        kill(field, [victim])
        damage(field, victim)
        bring_back(field, victim)

    return fault


def helix(field: Field) -> None:
    """Each member is damaged elsewhere: one its log, one its store, one store and snapshots.

    All are down at once; what is left of each is enough to put the whole together again.
    """
    kinds: Sequence[Damage] = (flip_wal, remove_store, flip_store, flip_values, flip_store)
    victims = field.shuffled()
    kill(field, victims)
    for damage, victim in zip(kinds, victims, strict=False):
        damage(field, victim)
    refuses(victims[0])
    for victim in victims[1:]:
        victim.start(wait=False)
    for victim in victims[1:]:
        come_back_together(field, victim)
    field.leader()
    replace(field, victims[0])


def come_back_together(field: Field, server: Server) -> None:
    """As `bring_back`, for members that need each other for being healthy."""
    deadline = time.monotonic() + 2 * HEALTHY_S
    while not (server.running and server.healthy() and reads_everything(server)):
        assert time.monotonic() < deadline, server.log()[-3000:]
        if not server.running:
            assert server.wait() == EXIT_DAMAGED, server.log()[-3000:]
            field.fired["damage noticed"] += 1
            server.start(wait=False)
        time.sleep(0.1)


def helix_of_logs(field: Field) -> None:
    """The log of each member in another stripe: all refuse, for only an operator can tell what

    of them to believe. Here the bits are known, and are flipped back.
    """
    victims = field.shuffled()
    kill(field, victims)
    sound = {}
    for number, victim in enumerate(victims):
        sound[victim.name] = {path: path.read_bytes() for path in wal_segments(victim)}
        flip_wal(field, victim, (number / field.size, (number + 1) / field.size))
    for victim in victims:
        refuses(victim)
    for victim in victims:
        for path, content in sound[victim.name].items():
            path.write_bytes(content)


def replace_follower(field: Field) -> None:
    victim = field.followers()[0]
    kill(field, [victim])
    replace(field, victim)


def replace_leader(field: Field) -> None:
    victim = field.leader()
    kill(field, [victim])
    replace(field, victim)


DAMAGES: dict[str, Fault] = {
    "flip in a log": on_one(flip_wal),
    "helix": helix,
    "flips in a store": on_one(flip_store),
    "log cut short": on_one(cut_wal),
    "helix of logs": helix_of_logs,
    "flips in values": on_one(flip_values),
    "flips in snapshots": on_one(flip_snapshots),
    "store removed": on_one(remove_store),
}

REPLACEMENTS: dict[str, Fault] = {
    "replace leader": replace_leader,
    "replace follower": replace_follower,
}
