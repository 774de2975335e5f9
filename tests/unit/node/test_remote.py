"""Questions to the leader while leadership moves: to this member, or away from one that hangs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.errors import NO_LEADER, TIMEOUT, EtcdError
from kvstore.node.remote import RENEW, LeaderCalls, answer_call

OWN = 1


class Net:
    """Peers: 2 never answers, 3 answers at once, 4 is gone."""

    def __init__(self) -> None:
        self.leader = 0
        self.asked: list[int] = []
        own = SimpleNamespace(member_id=OWN, answers={RENEW: lambda p: answer_call(self.echo, p)})
        self.calls = LeaderCalls(self, own, lambda: self.leader, 1.0)  # type: ignore[arg-type]

    async def echo(self, question: Any) -> Any:
        return [question, "own"]

    async def call(self, peer_id: int, _method: str, payload: bytes, timeout_s: float) -> bytes:
        self.asked.append(peer_id)
        if peer_id == 2:
            await asyncio.sleep(timeout_s)
            raise TimeoutError
        if peer_id == 4:
            raise OSError("gone")

        async def there(question: Any) -> Any:
            return [question, "there"]

        return await answer_call(there, payload)


def test_a_question_in_flight_is_answered_here_when_this_member_leads() -> None:
    async def play() -> None:
        net = Net()
        net.leader = 4
        asking = asyncio.create_task(net.calls.ask_leader(RENEW, [7]))
        await asyncio.sleep(0.02)
        net.leader = OWN
        assert await asking == [[7], "own"]
        assert net.asked == [4]

    asyncio.run(play())


def test_a_leader_that_hangs_is_given_up_for_its_successor() -> None:
    async def play() -> None:
        net = Net()
        net.leader = 2
        asking = asyncio.create_task(net.calls.ask_leader(RENEW, [7]))
        await asyncio.sleep(0.02)
        net.leader = 3
        assert await asyncio.wait_for(asking, 0.5) == [[7], "there"]

    asyncio.run(play())


@pytest.mark.parametrize(("leader", "error"), [(0, NO_LEADER), (4, TIMEOUT)])
def test_in_the_end_there_is_an_error(leader: int, error: EtcdError) -> None:
    async def play() -> None:
        net = Net()
        net.leader = leader
        with pytest.raises(EtcdError) as raised:
            await net.calls.ask_leader(RENEW, [7])
        assert raised.value == error

    asyncio.run(play())
