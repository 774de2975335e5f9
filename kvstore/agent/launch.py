"""Becomes a program that does not outlive the agent. Run as a script, by the agent alone.

`launch.py SIGNAL PARENT PROGRAM [ARGUMENT…]` asks the kernel (Linux: PR_SET_PDEATHSIG) to send
SIGNAL when PARENT dies, and becomes PROGRAM; the process stays the same. It is a script of its
own, because to run Python between fork and exec of a process with threads is not safe. It imports
as little as it can: its start is a part of every program's start.
"""

import ctypes
import os
import signal
import sys

__all__ = ("main",)

PR_SET_PDEATHSIG = 1
NOT_EXECUTABLE, NOT_FOUND = 126, 127


def main() -> None:
    """Never returns."""
    number, parent, *argv = sys.argv[1:]
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit(128 + int(number))  # it died before the kernel was asked
    # Python ignores these, and what is ignored stays ignored in the program.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"kvstore agent: cannot start {argv[0]}: {error.strerror}\n")
        sys.exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
