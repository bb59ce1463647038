"""What holds for all tests."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts pytest in the background ignores Ctrl-C for it and all its children; some tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
