"""Holds for every test: Ctrl-C reaches what they start."""

import signal

# A shell's background job ignores SIGINT, and so does all that it starts: commands under test
# would not notice that they are told to end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
