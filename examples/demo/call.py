"""Calls the service `greeting` by its name, twenty times a second, and counts who answers.

    python examples/demo/call.py --endpoints 127.0.0.1:2379

The SDK's resolver knows who is there, because the cluster tells it; it takes turns among them,
and asks another one when an instance does not answer.
"""

from __future__ import annotations

import argparse
import threading
import time
import urllib.request
from collections import Counter

from kvstore.client import Client
from kvstore.client.registry import Instance, Resolver, timeout_s

PAUSE_S = 0.05
CALL_S = 2.0


class Traffic:
    """Calls in the background, from `start` to `stop`."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._since = threading.Lock()
        self._answered: Counter[str] = Counter()
        self._moved: Counter[str] = Counter()
        self.calls = 0
        self.failed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(PAUSE_S):
            self.calls += 1
            try:
                self._resolver.call(self._ask, idempotent=True, timeout=CALL_S)
            except Exception as error:
                self.failed += 1
                print(f"  a call failed: {error}", flush=True)

    def _ask(self, instance: Instance) -> None:
        try:
            with urllib.request.urlopen(instance.url("/"), timeout=timeout_s() or CALL_S) as answer:
                answer.read()
        except OSError:
            # Not the end of the call: the resolver asks another instance.
            with self._since:
                self._moved[instance.id] += 1
            raise
        with self._since:
            self._answered[instance.id] += 1

    def report(self) -> str:
        """Who answered since the last report."""
        with self._since:
            answered, moved = self._answered, self._moved
            self._answered, self._moved = Counter(), Counter()
        shares = "  ".join(f"{name} {count}" for name, count in sorted(answered.items()))
        missed = "".join(
            f"  ({name} did not answer {count}, others did instead)"
            for name, count in sorted(moved.items())
        )
        return (shares or "nobody") + missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--endpoints", default="127.0.0.1:2379")
    parser.add_argument("--service", default="greeting")
    wanted = parser.parse_args()
    with Client(wanted.endpoints) as client:
        traffic = Traffic(client.registry.resolver(wanted.service))
        traffic.start()
        try:
            while True:
                time.sleep(1)
                print(time.strftime("%H:%M:%S"), traffic.report(), flush=True)
        except KeyboardInterrupt:
            traffic.stop()


if __name__ == "__main__":
    main()
