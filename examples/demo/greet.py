"""The service `greeting` in Python: greet.py PORT. Listens on HOST (default 127.0.0.1)."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"hello from Python (process {os.getpid()})\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing about each request."""


if __name__ == "__main__":
    where = (os.environ.get("HOST", "127.0.0.1"), int(sys.argv[1]))
    ThreadingHTTPServer(where, Greeting).serve_forever()
