"""Evidence beside the coalition table: each kind is collected once, in a file of its own, before coalitions are evaluated.

What a user got wrong (a reference model that is not there, a branch that does not exist) is thereby said before the long part.
"""

from __future__ import annotations

from collections.abc import Callable

from mmaudit.evidence.mask_distance import MASK_DISTANCE, collect_mask_distance
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import MMAuditError
from mmaudit.report.schema import FailureRecord, Note

__all__ = ["FURTHER", "collect_further"]

FURTHER: dict[str, Callable[[Surroundings], tuple[Note, ...]]] = {
    MASK_DISTANCE: collect_mask_distance,
}
"""Kind -> function that writes its table into the work folder, or does nothing where the audit has no such thing."""


def collect_further(surroundings: Surroundings) -> tuple[FailureRecord, ...]:
    """Collect every kind of further evidence on the main process; notes go to the subject.

    Returns:
        The kinds that raised something foreign: they do not lose the audit.

    Raises:
        MMAuditError: If what the spec says cannot be done.
    """
    failures: list[FailureRecord] = []
    for kind, collect in FURTHER.items():
        try:
            surroundings.subject.notes += collect(surroundings)
        except MMAuditError:
            raise
        except Exception as error:  # evidence that fails must not lose the rest
            failures.append(FailureRecord(measure=kind, error=f"{type(error).__name__}: {error}"))
    return tuple(failures)
