"""Traffic and questions that the process tests share."""

from __future__ import annotations

import threading
import time

import grpc

from kvstore.pb import rpc_pb2
from tests.support.rpc import Rpc
from tests.support.servers import Cluster, Server


class Writers:
    """Threads that put distinct keys, to any member that answers, and remember what was acked."""

    def __init__(self, cluster: Cluster, count: int = 4) -> None:
        self.acked: dict[str, str] = {}
        self.times: list[float] = []
        self.stopping = threading.Event()
        self.endpoints = [server.endpoint for server in cluster.servers]
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(count)]

    def run(self, number: int) -> None:
        callers = [Rpc(endpoint, timeout_s=0.25) for endpoint in self.endpoints]
        turn = serial = 0
        while not self.stopping.is_set():
            serial += 1
            key, value = f"w{number}/{serial}", f"{number}-{serial}"
            try:
                callers[turn % len(callers)].put(key, value)
            except grpc.RpcError:
                turn += 1
                continue
            self.acked[key] = value
            self.times.append(time.monotonic())
        for caller in callers:
            caller.close()

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def wait_success_after(self, moment: float, timeout_s: float = 20.0) -> float:
        """Seconds from `moment` to the first write that began to succeed after it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            later = next((t for t in reversed(self.times[-50:]) if t > moment), None)
            if later is not None:
                return min(t for t in self.times[-2000:] if t > moment) - moment
            time.sleep(0.005)
        raise AssertionError(f"no write succeeded within {timeout_s} s")


def leader_of(cluster: Cluster) -> Server:
    for _ in range(200):
        for server in cluster.servers:
            if not server.running:
                continue
            try:
                with Rpc(server.endpoint, timeout_s=1.0) as rpc:
                    status = rpc.status()
            except grpc.RpcError:
                continue
            if status.leader and status.leader == status.header.member_id:
                return server
        time.sleep(0.05)
    raise AssertionError("no leader")


def disarm_all(rpc: Rpc) -> None:
    """Takes back every alarm of every member."""
    for alarm in rpc.call("Maintenance", "Alarm", rpc_pb2.AlarmRequest()).alarms:
        request = rpc_pb2.AlarmRequest(action=2, memberID=alarm.memberID, alarm=alarm.alarm)
        rpc.call("Maintenance", "Alarm", request)


def settled_hashes(cluster: Cluster) -> list[tuple[int, int]]:
    """Each member's (revision, hash) once all have applied the same; the last try otherwise."""
    hashes: list[tuple[int, int]] = []
    for _ in range(100):
        hashes = []
        for server in cluster.servers:
            with Rpc(server.endpoint, timeout_s=10) as rpc:
                answer = rpc.hash_kv()
                hashes.append((answer.header.revision, answer.hash))
        if len(set(hashes)) == 1:
            break
        time.sleep(0.1)
    return hashes
