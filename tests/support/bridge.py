"""The asyncio client behind a blocking face, so that one test body drives both clients."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from kvstore.client import AsyncClient

__all__ = ("BridgedClient",)


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Any]) -> Any:
        """Call `work` in the loop's thread and await what it returns, if it is to be awaited."""

        async def main() -> Any:
            result = work()
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(main(), self.loop).result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class _Bridged:
    """An object of the asyncio client whose calls block."""

    def __init__(self, loop: _Loop, target: Any) -> None:
        self._loop = loop
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = self._loop.run(lambda: _Value(getattr(self._target, name))).value
        if not callable(found):
            return self._wrap(found)

        def call(*args: Any, **kwargs: Any) -> Any:
            plain = [_unwrap(each) for each in args]
            named = {key: _unwrap(each) for key, each in kwargs.items()}
            if inspect.isasyncgenfunction(found):
                return self._iterate(found(*plain, **named))
            return self._wrap(self._loop.run(lambda: found(*plain, **named)))

        return call

    def _wrap(self, value: Any) -> Any:
        if value is self._target:
            return self
        ours = type(value).__module__.startswith("kvstore.client.aio")
        return _Bridged(self._loop, value) if ours else value

    def _iterate(self, items: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run(items.__anext__)
            except StopAsyncIteration:
                return

    def __len__(self) -> int:
        return len(self._target)

    def __enter__(self) -> Any:
        return self._wrap(self._loop.run(self._target.__aenter__))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.run(lambda: self._target.__aexit__(kind, error, trace))


class _Value:
    """Keeps an awaitable from being awaited."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _unwrap(value: Any) -> Any:
    return value._target if isinstance(value, _Bridged) else value


class BridgedClient(_Bridged):
    """An AsyncClient with a loop of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        loop = _Loop()
        super().__init__(loop, loop.run(lambda: _Value(AsyncClient(*args, **kwargs))).value)

    def close(self) -> None:
        """Close the client; nothing of it may be left in its loop."""
        if self._loop.loop.is_closed():
            return
        self._loop.run(self._target.close)
        names = self._loop.run(
            lambda: [each.get_name() for each in asyncio.all_tasks(self._loop.loop)]
        )
        self._loop.close()
        assert not [each for each in names if each.startswith("kvstore")], names

    def __exit__(self, *_: object) -> None:
        self.close()
