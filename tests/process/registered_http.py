"""A small HTTP service that registers itself: what the tests of rolling restarts restart.

    python -m tests.process.registered_http ENDPOINTS SERVICE ID PORT

Answers every GET with its id, after a few milliseconds. At a SIGTERM it deregisters first, then
finishes what it has, and ends with code 0.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kvstore.client import Client

WORK_S = 0.005


def main(endpoints: str, service: str, id: str, port: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(WORK_S)  # the work that a request makes
            self.send_response(200)
            self.end_headers()
            self.wfile.write(id.encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # closing waits for requests under way
        request_queue_size = 128

    server = Server(("127.0.0.1", int(port)), Handler)
    # `shutdown` waits for the loop that this very thread runs.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with Client(endpoints) as client:
        client.registry.register(
            service, id=id, port=int(port), ttl=5, drain=3.0, handle_sigterm=True
        )
        server.serve_forever(poll_interval=0.02)
        server.server_close()


if __name__ == "__main__":
    main(*sys.argv[1:])
