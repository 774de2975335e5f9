"""One member in a process of its own, told what to do on its standard input.

    python -m tests.process.member_process DIRECTORY NAME NAME=PEER_URL ...

Commands, one per line: `put KEY`, `count`, `leader`, `stop`. Each is answered by one line. A put's
answer says that the write is durable on a quorum: after it the process may be killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from kvstore.errors import EtcdError
from kvstore.machine import CommandKind, View
from kvstore.node.config import NodeConfig
from kvstore.node.node import Node
from kvstore.node.peers import TcpNetwork
from kvstore.pb import rpc_pb2


async def answer(node: Node, command: list[str]) -> str:
    match command:
        case ["put", key]:
            request = rpc_pb2.PutRequest(key=key.encode(), value=key.encode())
            result = await node.submit(CommandKind.PUT, request.SerializeToString())
            return f"ok {result.revision}"
        case ["count"]:
            request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", count_only=True)

            def reading(view: View) -> Any:
                found = yield from view.range(request)
                return found.count

            return f"ok {await node.reading(reading, linearizable=True)}"
        case ["leader"]:
            return f"ok {node.leader_id:x} {node.member_id:x}"
    raise ValueError(command)


async def serve(directory: str, name: str, cluster: list[str]) -> None:
    urls = {member: (url,) for member, _, url in (part.partition("=") for part in cluster)}
    node = Node(
        NodeConfig(
            name=name,
            data_dir=Path(directory),
            listen_peer_urls=urls[name],
            advertise_peer_urls=urls[name],
            advertise_client_urls=(f"http://{name}:2379",),
            initial_cluster=urls,
            heartbeat_ms=50,
            election_ms=300,
        ),
        network=TcpNetwork(),
    )
    await node.start()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := (await reader.readline()).decode().split():
        if line == ["stop"]:
            break
        try:
            print(await answer(node, line), flush=True)
        except EtcdError as error:
            print(f"error {error.message}", flush=True)
    await node.stop()
    print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], sys.argv[3:]))
