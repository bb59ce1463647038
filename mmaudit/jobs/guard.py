"""Watches the process of a job and ends what it leaves behind: ``python -m mmaudit.jobs.guard``.

A job that is killed cannot tell its children. The kernel could (``PR_SET_PDEATHSIG``), but only for children that are forked by
Python, and it takes the end of the *thread* that forked for the end of the parent. So every attempt starts this small process
first, in its own session: it waits for the job through a ``pidfd`` and then kills what has the attempt's token, or is in its
session, whose number stays taken as long as the guard itself is in it. It works with no worker alive; a worker sweeps once more.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

from mmaudit.jobs.processes import TOKEN, members, sweep

__all__ = ["main", "start_guard"]

_GRACE = 1.0
"""Seconds in which helpers of a job that ended in order (resource trackers, loaders) end by themselves."""


def start_guard() -> subprocess.Popen[bytes]:
    """Start a guard for this process, which must lead its session and have a token in its environment."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mmaudit.jobs.guard", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
    )


def main() -> None:
    """Wait for the process named on the command line, then sweep."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pid, token = int(sys.argv[1]), os.environ.get(TOKEN, "")
    if os.getppid() == pid:  # else the job has ended already
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            # The parent was still there after the descriptor was opened: it stands for the parent.
            if os.getppid() == pid:
                select.select([handle], [], [])
    session = pid if os.getsid(0) == pid else None
    until = time.monotonic() + _GRACE
    while time.monotonic() < until and members(token, session):
        time.sleep(0.05)
    sweep(token, session)


if __name__ == "__main__":
    main()
