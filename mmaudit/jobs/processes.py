"""Which processes belong to a job, told apart from strangers, and ending them.

A process number may be given to a stranger as soon as its owner has gone. So a process is known by its number and its start, the
processes that a job has started by a token in their environment, and signals go through a ``pidfd`` that is checked after it was
opened: it names this process or none. Needs ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from mmaudit.jobs.states import ProcessRecord

__all__ = ["TOKEN", "attempts", "boot_id", "identify", "is_running", "members", "send", "sweep"]

TOKEN = "MMAUDIT_JOB_TOKEN"
"""Environment variable that every process of an attempt has inherited."""

_PROC = Path("/proc")


def boot_id() -> str:
    """Names this start of the machine."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identify(pid: int) -> ProcessRecord | None:
    """A process beyond doubt; ``None`` if it has ended."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessRecord(pid=pid, start=int(fields[19]), boot=boot_id())


def is_running(process: ProcessRecord) -> bool:
    """Whether this process, and not another with its number, runs."""
    return identify(process.pid) == process


def send(process: ProcessRecord, number: signal.Signals) -> bool:
    """Send a signal to this process and to no other.

    Returns:
        Whether it was there to be sent one.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # The descriptor was opened first: whatever is found under the number now is what it stands for.
        if not is_running(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def members(token: str, session: int | None = None) -> list[ProcessRecord]:
    """The processes of an attempt, this one left out.

    Args:
        token: Of the attempt.
        session: Also take everything in this session, for children that have overwritten their environment. Its leader must be
            known to live, else the number may be a stranger's.
    """
    word = f"{TOKEN}={token}".encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        process = identify(pid)
        if process is not None and (
            word in _environment(pid) or (session and _session(pid) == session)
        ):
            found.append(process)
    return found


def attempts(prefix: str) -> list[tuple[str, ProcessRecord]]:
    """Every process of any attempt whose token begins so, with that token."""
    word = f"{TOKEN}={prefix}".encode()
    found = []
    for pid in _pids():
        for entry in _environment(pid):
            process = identify(pid) if entry.startswith(word) else None
            if process is not None:
                found.append((entry.decode(errors="replace").partition("=")[2], process))
    return found


def sweep(token: str, session: int | None = None, *, seconds: float = 5.0) -> int:
    """Kill what is left of an attempt, until nothing is.

    Args:
        token: Of the attempt.
        session: As in :func:`members`.
        seconds: How long to wait for processes that cannot end yet.

    Returns:
        How many processes were killed.
    """
    killed: set[ProcessRecord] = set()
    until = time.monotonic() + seconds
    # Again until none is found: one that was missed may have started another meanwhile.
    while token and (left := members(token, session)):
        for process in left:
            send(process, signal.SIGKILL)
            killed.add(process)
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    return len(killed)


def _pids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for name in os.listdir(_PROC):  # noqa: PTH208 - a thousand Path objects for nothing
            if name.isdigit():
                yield int(name)


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/PID/stat`` from the state on; the name before them may hold anything."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _session(pid: int) -> int:
    fields = _stat(pid)
    return -1 if fields is None else int(fields[3])


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
