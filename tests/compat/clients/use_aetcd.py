"""Run by the Python of an environment that holds `aetcd`: every family of calls, checked."""

import asyncio
import sys

import aetcd


async def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    async with aetcd.Client(host=host, port=int(port), timeout=10) as client:
        # kv
        await client.put(b"greeting", b"hello")
        assert (await client.get(b"greeting")).value == b"hello"
        for number in range(10):
            await client.put(b"many/%d" % number, b"%d" % number)
        assert len(list(await client.get_prefix(b"many/"))) == 10
        assert len(list(await client.get_range(b"many/2", b"many/5"))) == 3
        await client.delete(b"many/0")
        assert await client.get(b"many/0") is None
        await client.delete_prefix(b"many/")
        assert len(list(await client.get_prefix(b"many/"))) == 0

        # txn
        done, _ = await client.transaction(
            compare=[client.transactions.value(b"greeting") == b"hello"],
            success=[client.transactions.put(b"won", b"yes")],
            failure=[client.transactions.put(b"won", b"no")],
        )
        assert done
        assert (await client.get(b"won")).value == b"yes"
        assert await client.replace(b"won", b"yes", b"sure")

        # watch
        watch = await client.watch(b"watched")
        await client.put(b"watched", b"1")
        await client.put(b"watched", b"2")
        await client.delete(b"watched")
        seen = []

        async def collect() -> None:
            async for event in watch:
                seen.append((str(event.kind), event.kv.value))
                if len(seen) == 3:
                    return

        await asyncio.wait_for(collect(), 10)
        assert seen == [("PUT", b"1"), ("PUT", b"2"), ("DELETE", b"")], seen
        await watch.cancel()

        # lease
        lease = await client.lease(20)
        await client.put(b"leased", b"x", lease=lease)
        assert 15 < await lease.remaining_ttl() <= 20
        await lease.refresh()
        await lease.revoke()
        assert await client.get(b"leased") is None

        # lock
        async with client.lock(b"the-lock", ttl=10) as first:
            assert await first.is_acquired()
            other = client.lock(b"the-lock", ttl=10)
            assert await other.acquire(timeout=1) is False
        second = client.lock(b"the-lock", ttl=10)
        assert await second.acquire(timeout=5)
        await second.release()

        status = await client.status()
        assert status.leader is not None
        members = [member async for member in client.members()]
        assert members
        assert members[0].name
    print("aetcd: all passed")


asyncio.run(main())
