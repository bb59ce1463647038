"""What goes wrong with jobs, in one sentence each."""

from __future__ import annotations

from mmaudit.exceptions import MMAuditError

__all__ = ["JobError"]


class JobError(MMAuditError, RuntimeError):
    """A job, or what it was asked for, is refused, missing or damaged."""
