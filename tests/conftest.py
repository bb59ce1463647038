"""What holds for all tests."""

from __future__ import annotations

import os
import signal

for _library in ("OMP", "MKL", "OPENBLAS"):
    # Before torch and numpy are loaded: what the tests compute is small, and threads that wait for each other cost a third of the run.
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts pytest in the background ignores Ctrl-C for it and all its children; some tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere: a failure that one machine sees, all see.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
