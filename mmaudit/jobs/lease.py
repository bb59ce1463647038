"""Locks that die with their holder: the only test of whether something still runs.

A lock of the operating system (``flock``) belongs to an open file. It is passed on to a process that inherits the file, kept by
what that process forks, and let go when the last of them ends, however it ends. A pid file would outlive all that.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from mmaudit.jobs.errors import JobError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lease", "held", "locked", "needs_linux"]

_ELSEWHERE = "background jobs need Linux (flock, /proc, pidfd): on this system use 'mmaudit retrain', which needs no queue"
_PATIENCE = 0.05
"""Seconds in which a reader that tests a lock has surely let go of it again."""


class Lease:
    """A lock that this process holds until it releases it or ends, and that it can pass on to a child.

    Args:
        handle: Descriptor of the locked file.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Lease | None:
        """Take a lock; ``None`` if somebody has it.

        Args:
            path: The file to lock; made if missing, never removed.

        Raises:
            JobError: If the file cannot be opened.
        """
        _needs_locks()
        handle = _opened(path, os.O_RDWR | os.O_CREAT)
        lease = cls(handle)
        until = time.monotonic() + _PATIENCE
        try:
            while not _flock(handle, exclusive=True):
                if time.monotonic() > until:
                    lease.release()
                    return None
                time.sleep(_PATIENCE / 10)
        except BaseException:
            lease.release()
            raise
        return lease

    def fileno(self) -> int:
        """The descriptor that a child inherits, and the lock with it."""
        return self._handle

    def release(self) -> None:
        """Let go of the lock; a child that has inherited it keeps it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def held(path: Path) -> bool:
    """Whether somebody has a lock now.

    Args:
        path: The locked file; a missing one is held by nobody.

    Raises:
        JobError: If the file cannot be opened.
    """
    _needs_locks()
    if not path.exists():
        return False
    handle = _opened(path, os.O_RDONLY)
    try:
        # Shared, so that two that test at the same time do not take each other for the holder.
        return not _flock(handle, exclusive=False)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, seconds: float = 10.0) -> Iterator[None]:
    """Be alone for a moment.

    Args:
        path: The file to lock; made if missing.
        seconds: How long to wait for others.

    Raises:
        JobError: If another process has not let go in time.
    """
    until = time.monotonic() + seconds
    while (lease := Lease.take(path)) is None:
        if time.monotonic() > until:
            raise JobError(
                f"another process has been writing beside {path.name} for {seconds:g} s; try again, or look for a process that hangs"
            )
    with lease:
        yield


def needs_linux() -> None:
    """Refuse to run jobs where the operating system lacks what they are built on.

    Raises:
        JobError: On anything but Linux.
    """
    if not sys.platform.startswith("linux"):
        raise JobError(_ELSEWHERE)


def _needs_locks() -> None:
    if fcntl is None:
        raise JobError(_ELSEWHERE)


def _opened(path: Path, flags: int) -> int:
    try:
        # Not blocking: a named pipe in the file's place must not hang the reader.
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise JobError(
            f"cannot open {path}: {error.strerror or error}; check the folder's permissions"
        ) from error


def _flock(handle: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise JobError(
            f"the file system cannot lock files ({error.strerror or error}): put the workspace on a local disk"
        ) from error
    return True
