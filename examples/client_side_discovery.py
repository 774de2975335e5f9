"""Calls a gRPC and an HTTP service by name: the registry says where, the client chooses.

    make run                                   # a cluster on 127.0.0.1:2379
    python examples/client_side_discovery.py [ENDPOINTS]

Starts three little servers of each kind in this process, registers them, calls them, then stops
one of each in an orderly way and calls on: no call fails.
"""

from __future__ import annotations

import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc

from kvstore.client import Client
from kvstore.client.registry import (
    ChannelPool,
    CircuitBreaker,
    Instance,
    LeastRequests,
    Registration,
    timeout_s,
)
from kvstore.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse

# ---- the servers ---------------------------------------------------------------------------


@contextmanager
def http_server(name: str) -> Iterator[int]:
    """An HTTP server that answers with its name; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextmanager
def grpc_server() -> Iterator[int]:
    """A gRPC server with the standard health service; yields its port."""

    def check(request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:
        return HealthCheckResponse(status=HealthCheckResponse.SERVING)

    handler = grpc.unary_unary_rpc_method_handler(
        check, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(1).wait()


# ---- the calls -----------------------------------------------------------------------------


def ask_http(instance: Instance) -> str:
    """One HTTP call; `timeout_s` is what is left of the time of the whole call."""
    with urllib.request.urlopen(instance.url("/"), timeout=timeout_s()) as answer:
        return str(answer.read().decode())


def ask_grpc(instance: Instance, channels: ChannelPool) -> str:
    """One gRPC call; the pool has a channel for each instance."""
    check = channels.channel(instance).unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answer = check(HealthCheckRequest(), timeout=timeout_s())
    assert answer.status == HealthCheckResponse.SERVING
    return instance.id


def main(endpoints: str) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(Client(endpoints))
        registry = client.registry

        # Who serves: in real life each of them is a process of its own.
        registrations: dict[str, Registration] = {}
        for number in (1, 2, 3):
            http_port = stack.enter_context(http_server(f"web-{number}"))
            grpc_port = stack.enter_context(grpc_server())
            for service, port in (("web", http_port), ("greeter", grpc_port)):
                id = f"{service}-{number}"
                registrations[id] = stack.enter_context(
                    registry.register(service, id=id, port=port, address="127.0.0.1")
                )

        # Who calls.
        web = stack.enter_context(registry.resolver("web", balancer=LeastRequests()))
        greeter = stack.enter_context(registry.resolver("greeter"))
        channels = ChannelPool(greeter)
        stack.callback(channels.close)
        breaker = CircuitBreaker("greeter")

        def call_all(calls: int) -> None:
            answers: Counter[str] = Counter()
            for _ in range(calls):
                answers[web.call(ask_http, idempotent=True, timeout=2.0)] += 1
                answers[
                    greeter.call(
                        lambda instance: ask_grpc(instance, channels),
                        idempotent=True,
                        timeout=2.0,
                        breaker=breaker,
                    )
                ] += 1
            print(", ".join(f"{name}: {count}" for name, count in sorted(answers.items())))

        web.wait_ready(5)
        greeter.wait_ready(5)
        call_all(30)
        for id in ("web-1", "greeter-1"):
            known = registrations[id].deregister(wait=2.0).acknowledged
            print(f"{id} has left; {known.acknowledged if known else 0} subscriber(s) know")
        call_all(30)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
