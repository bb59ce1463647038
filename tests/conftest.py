"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts pytest in the background ignores Ctrl-C for it and all its children; some tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere: a failure that one machine sees, all see.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
