"""Programs that end with a client in some state or other; none of them may hang.

    python -m tests.process.exit_child ENDPOINT WAY TIMES

Each run is a fork, so that it costs no imports; it ends as any program does, by the interpreter's
own shutdown. The exit codes are printed, in one line of JSON. A run that does not end is killed
after some seconds, says on standard error where it hung, and is the last one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from kvstore.client import AsyncClient, AsyncWatch, Client, Watch, WatchResponse

HANGS_AFTER_S = 8
WAYS: dict[str, Callable[[], None]] = {}
KEPT: list[Any] = []
"""What a program holds until the end."""


def way(body: Callable[[], None]) -> Callable[[], None]:
    WAYS[body.__name__] = body
    return body


def keep(*what: Any) -> Any:
    KEPT.extend(what)
    return what[0]


def client() -> Client:
    return Client(sys.argv[1])


def watching(of: Client) -> Watch:
    """A watch that has seen an event."""
    watch = of.watch("exit/", prefix=True)
    of.put("exit/key", "")
    next(watch)
    return watch


# In order, and not.


@way
def closes_all() -> None:
    with client() as mine, watching(mine):
        pass


@way
def closes_the_watch() -> None:
    keep(watching(keep(client()))).cancel()


@way
def closes_the_client() -> None:
    mine = keep(client())
    keep(watching(mine))
    mine.close()


@way
def closes_nothing() -> None:
    keep(watching(keep(client())))


@way
def forgets_everything() -> None:
    watching(client())


@way
def raises() -> None:
    watching(client())
    raise RuntimeError("this program fails")


@way
def calls_exit() -> None:
    keep(watching(keep(client())))
    sys.exit(3)


@way
def iterates_in_a_thread() -> None:
    watch = watching(keep(client()))
    threading.Thread(target=lambda: list(watch), daemon=True).start()


@way
def works_in_threads() -> None:
    mine = keep(client())
    watch, seen = watching(mine), threading.Event()

    def write() -> None:
        while True:
            mine.put("exit/key", "")

    def read() -> None:
        for _ in watch:
            seen.set()

    for work in (read, write):
        threading.Thread(target=work, daemon=True).start()
    seen.wait()


# What the interpreter itself ends, after it has killed the threads.


def resumed_never(open_one: Callable[[Client], AbstractContextManager[Any]]) -> None:
    def generator() -> Iterator[Any]:
        with client() as mine, open_one(mine) as it:
            yield it

    next(keep(generator()))


@way
def leaves_a_watch_to_the_end() -> None:
    resumed_never(watching)


@way
def raises_out_of_a_loop() -> None:
    def changes() -> Iterator[WatchResponse]:
        with client() as mine, mine.watch("exit/", prefix=True) as watch:
            mine.put("exit/key", "")
            yield from watch

    mine = changes()
    for _ in mine:
        raise RuntimeError("this program fails")


@way
def leaves_a_lease_to_the_end() -> None:
    resumed_never(lambda mine: mine.lease(5))


@way
def leaves_a_lock_to_the_end() -> None:
    resumed_never(lambda mine: mine.lock(f"exit/{os.getpid()}"))


@way
def leaves_a_tree_to_the_end() -> None:
    resumed_never(lambda mine: mine.tree_cache("exit/"))


@way
def leaves_a_registration_to_the_end() -> None:
    resumed_never(lambda mine: mine.registry.register("exit", port=1, address="127.0.0.1"))


@way
def leaves_a_resolver_to_the_end() -> None:
    resumed_never(lambda mine: mine.registry.resolver("exit").wait_ready(5))


@way
def leaves_a_registry_watch_to_the_end() -> None:
    resumed_never(lambda mine: mine.registry.watch("exit"))


@way
def observes_an_election() -> None:
    mine = keep(client())
    mine.election(f"exit/{os.getpid()}").campaign("me")
    next(keep(mine.election(f"exit/{os.getpid()}").observe()))


@way
def leaves_streams_of_heartbeats() -> None:
    mine = keep(client())
    streams = [keep(mine.registry.heartbeat_stream([[1]] * 3)) for _ in range(8)]
    threads = [threading.Thread(target=next, args=(each,)) for each in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@way
def breaks_a_snapshot_off() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError("no space")

    try:
        keep(client()).snapshot(Full())
    except OSError as error:
        keep(error)


class Owner:
    """An object that cleans up after itself, as late as it may be."""

    def __init__(self) -> None:
        self.client = client()
        self.watch = watching(self.client)

    def __del__(self) -> None:
        self.watch.cancel()
        self.client.close()


@way
def closes_in_a_finalizer() -> None:
    keep(Owner())


@way
def writes_in_a_finalizer() -> None:
    """Without threads of the client that is as good as at any other time."""

    class Writer:
        def __init__(self) -> None:
            self.client = client()
            self.client.put("exit/writer", "")

        def __del__(self) -> None:
            if self.client.delete("exit/writer").deleted == 1:
                os._exit(4)

    keep(Writer())


# The awaited client.


async def awaited() -> tuple[AsyncClient, AsyncWatch]:
    mine = AsyncClient(sys.argv[1])
    watch = await mine.watch("exit/", prefix=True)
    await mine.put("exit/key", "")
    await anext(watch)
    return keep(mine, watch), watch


@way
def awaits_and_closes_the_watch() -> None:
    async def main() -> None:
        _mine, watch = await awaited()
        await watch.cancel()

    asyncio.run(main())


@way
def awaits_and_closes_nothing() -> None:
    asyncio.run(awaited())


@way
def awaits_in_a_thread() -> None:
    begun = threading.Event()

    async def main() -> None:
        _mine, watch = await awaited()
        begun.set()
        async for _ in watch:
            pass

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    begun.wait()


def fork(times: int) -> bool:
    """Whether this is one of the runs, or their parent, which returns when all have ended."""
    codes = []
    for _ in range(times):
        process = os.fork()
        if process == 0:
            faulthandler.dump_traceback_later(HANGS_AFTER_S - 1)
            signal.alarm(HANGS_AFTER_S)
            return True
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        if codes[-1] < 0:
            break
    print(json.dumps(codes))
    return False


if __name__ == "__main__" and fork(int(sys.argv[3])):
    WAYS[sys.argv[2]]()
