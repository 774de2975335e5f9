"""The exit codes of `kvstore serve`, and the exception that ends it with one of them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ("EXIT_MEANINGS", "ExitCode", "ServerStopError")


class ExitCode(IntEnum):
    """What the process's end tells its supervisor."""

    STOPPED = 0
    FAILED = 1
    USAGE = 2
    DATA_DIR = 3
    OTHER_CLUSTER = 4
    CORRUPT = 5
    DISK_FAILED = 6


EXIT_MEANINGS: dict[ExitCode, str] = {
    ExitCode.STOPPED: "stopped as asked (SIGTERM, SIGINT), or removed from the cluster",
    ExitCode.FAILED: "could not start or go on: a port is taken, or an unexpected failure",
    ExitCode.USAGE: "a flag, a variable or the configuration file is wrong or refused",
    ExitCode.DATA_DIR: "the data directory cannot be used: not writable, or another process has it",
    ExitCode.OTHER_CLUSTER: "the data directory belongs to another member or another cluster",
    ExitCode.CORRUPT: "the stored data is damaged; the sentence says what and how to go on",
    ExitCode.DISK_FAILED: "a write or fsync failed while running; restart once the disk is well",
}


class ServerStopError(Exception):
    """The server cannot start or go on; the message is the sentence for the operator."""

    def __init__(self, code: ExitCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
