"""How an agent ends: its own exit codes, beside those of the program that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

__all__ = ("EXIT_MEANINGS", "AgentExit", "StartError")


class AgentExit(IntEnum):
    """Codes that are not the program's."""

    STOPPED = 0
    USAGE = 2
    FAILED = 125
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127


EXIT_MEANINGS: Final[Mapping[AgentExit, str]] = {
    AgentExit.STOPPED: "stopped as asked, with no program to run",
    AgentExit.USAGE: "the command line or the file of services is wrong; nothing was started",
    AgentExit.FAILED: "the agent failed, or the cluster refused the registration",
    AgentExit.NOT_EXECUTABLE: "the program cannot be started",
    AgentExit.NOT_FOUND: "there is no such program",
}


class StartError(Exception):
    """The agent cannot do what it was told; the text is the sentence for the operator."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
