"""The errors of the domain. Each says in one sentence what was expected, what came and what to do.

The command line prints the sentence and exits with status 2; in Python each is also a built-in type, so that code which
catches ``ValueError`` or ``RuntimeError`` keeps working.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DataError",
    "LogError",
    "MMAuditError",
    "ModelError",
    "RecordError",
    "SpecError",
    "UndefinedMeasureError",
    "first_line",
]


class MMAuditError(Exception):
    """Root of the domain's errors."""


class SpecError(MMAuditError, ValueError):
    """The audit file or masking spec is wrong; all faults are listed at once."""


class CheckpointError(MMAuditError, ValueError):
    """The checkpoint is damaged, unsafe, of a foreign format, or does not fit the model."""


class DataError(MMAuditError, RuntimeError):
    """The data cannot be read, or does not have what the spec says it has."""


class ModelError(MMAuditError, RuntimeError):
    """The model cannot be called as the spec says, or its outputs are not what the spec says."""


class LogError(MMAuditError, ValueError):
    """A log of a training is missing, damaged or of an unknown format, or does not hold what is asked of it."""


class RecordError(MMAuditError, ValueError):
    """A record is missing, damaged, incomplete or of an unknown version."""


class UndefinedMeasureError(MMAuditError, ValueError):
    """A measure has no value here; the message is the reason that the record states."""


def first_line(error: BaseException, length: int = 300) -> str:
    """What an error says, as part of a sentence: its first line, and its class where it says nothing.

    Args:
        error: Any error, of whomever.
        length: Characters at the most.

    Example:
        >>> first_line(ValueError("no such layer."))
        'no such layer'
        >>> first_line(MemoryError())
        'MemoryError'
    """
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:length].rstrip(". ")
