"""Wakes the worker: who submits, cancels or resumes a job rings, and the worker looks at once instead of seconds later.

The messages go through huey, as JSON in an SQLite file, and hold a job's id and nothing else. They are hints. What is to be done
stands in the job folders, which the worker reads every few seconds anyway, so that nothing is lost with a message, with the file,
or with a worker that was killed after it had taken a message out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from huey.exceptions import HueyException
from huey.registry import Message
from huey.serializer import Serializer

__all__ = ["Bell"]

# Every message would be announced in the log of whatever program rings.
logging.getLogger("huey").setLevel(logging.WARNING)


class _Json(Serializer):  # type: ignore[misc]
    """Messages as JSON: huey's own are pickles, which run code when they are read."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Any:
        return Message(*json.loads(data))


class Bell:
    """The bell of one workspace.

    Args:
        path: SQLite file of the messages; made if missing, thrown away if damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._huey: SqliteHuey | None = None
        self._heard: list[str] = []

    def ring(self, job_id: str) -> bool:
        """Tell the worker to look at a job.

        Returns:
            Whether the message could be left; if not, the worker looks a little later.
        """
        return self._trying(lambda: self._open().enqueue(self._look.s(job_id)))

    def heard(self) -> list[str]:
        """Ids that were rung for since the last time; an empty string for a message that cannot be read."""
        self._heard = []
        self._trying(self._listen)
        return self._heard

    def close(self) -> None:
        """Close the file."""
        if self._huey is not None:
            with contextlib.suppress(sqlite3.Error):
                self._huey.storage.close()
            self._huey = None

    def _listen(self) -> None:
        huey = self._open()
        while (data := huey.storage.dequeue()) is not None:
            try:
                huey.execute(huey.deserialize_task(data))
            except (HueyException, ValueError, TypeError, AttributeError):
                self._heard.append("")

    def _open(self) -> SqliteHuey:
        if self._huey is None:
            # No write-ahead log: SQLite before 3.51.3 can damage it. No flushing: these are hints.
            self._huey = SqliteHuey(
                "jobs",
                filename=str(self._path),
                serializer=_Json(),
                results=False,
                journal_mode="delete",
                fsync=False,
                cache_mb=0,
                timeout=2,
            )
            self._look = self._huey.task(name="look")(self._heard_of)
        return self._huey

    def _heard_of(self, job_id: str) -> None:
        self._heard.append(str(job_id))

    def _trying(self, act: Any) -> bool:
        for _ in range(2):
            try:
                self._open()
                act()
                return True
            except sqlite3.OperationalError:  # locked, full, not writable: the file may be good
                self.close()
                return False
            except sqlite3.DatabaseError:
                self.close()
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
        return False
