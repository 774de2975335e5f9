"""etcdctl make-mirror moves data between etcd and us, both ways, while it changes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.rpc import Rpc
from tests.support.servers import KVSTORE, make_cluster
from tests.support.tools import require

pytestmark = [pytest.mark.compat, pytest.mark.timeout(120)]


def contents(rpc: Rpc) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in rpc.range(b"\0", b"\0").kvs}


@pytest.mark.parametrize("direction", ["etcd-to-us", "us-to-etcd"])
def test_mirror(direction: str, tmp_path: Path) -> None:
    etcdctl, etcd = require("etcdctl"), require("etcd")
    kinds = ((etcd,), KVSTORE) if direction == "etcd-to-us" else (KVSTORE, (etcd,))
    with (
        make_cluster(tmp_path / "source", argv=kinds[0]) as source,
        make_cluster(tmp_path / "target", argv=kinds[1]) as target,
        Rpc(source.endpoints) as here,
        Rpc(target.endpoints) as there,
    ):
        for number in range(2500):
            here.put(f"old/{number:05}", f"v{number}")
        mirror = subprocess.Popen(
            [etcdctl, f"--endpoints={source.endpoints}", "make-mirror", target.endpoints],
            env={**os.environ, "ETCDCTL_API": "3"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            deadline = time.monotonic() + 30
            while contents(there) != contents(here) and time.monotonic() < deadline:
                time.sleep(0.2)
            here.put("new/1", "while mirroring")
            here.put("new/2", "x")
            here.delete("new/2")
            here.delete("old/", "old/00100")
            while contents(there) != contents(here) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert mirror.poll() is None, mirror.stderr and mirror.stderr.read()
        finally:
            mirror.kill()
            mirror.communicate()
        assert contents(there) == contents(here)
        assert len(contents(there)) == 2401
