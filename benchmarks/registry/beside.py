"""A light load of puts and gets from a process of its own: what others notice.

    python -m benchmarks.registry.beside ENDPOINT

Runs until its standard input is closed, then prints one JSON array of [when it was sent, seconds
of the monotonic clock; how long it took, seconds]. Two puts and two linearizable gets are under way
at a time, each with a pause after it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from benchmarks.registry.stage import Api
from kvstore.pb import rpc_pb2
from tests.support.servers import ROOT

__all__ = ("Beside", "Call", "beside")

_PAUSE_S = 0.01
_EACH = 2


class Call(NamedTuple):
    sent: float
    took_s: float


class Beside:
    """The calls, once the load has ended."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def between(self, first: float, last: float) -> list[float]:
        """How long those took that were under way in a span of time."""
        return [
            call.took_s
            for call in self.calls
            if call.sent <= last and call.sent + call.took_s >= first
        ]


@asynccontextmanager
async def beside(endpoint: str) -> AsyncIterator[Beside]:
    """The load runs as long as the block."""
    found = Beside()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, endpoint,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=2**26,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield found
        process.stdin.close()
        found.calls = [Call(*each) for each in json.loads(await process.stdout.read())]
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _load(endpoint: str) -> list[Call]:
    api = Api(endpoint)
    calls: list[Call] = []
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))

    async def work(number: int) -> None:
        key = b"beside/%d" % number
        put = rpc_pb2.PutRequest(key=key, value=bytes(100))
        get = rpc_pb2.RangeRequest(key=key)
        while not ended.done():
            sent = time.monotonic()
            if number < _EACH:
                await api.etcd("KV/Put", put)
            else:
                await api.etcd("KV/Range", get)
            calls.append(Call(sent, time.monotonic() - sent))
            await asyncio.sleep(_PAUSE_S)

    await api.etcd("KV/Range", rpc_pb2.RangeRequest(key=b"x"))
    print("ready", flush=True)
    await asyncio.gather(*(work(number) for number in range(2 * _EACH)))
    await api.close()
    return calls


def main() -> None:
    print(json.dumps(asyncio.run(_load(sys.argv[1]))))


if __name__ == "__main__":
    main()
