"""Evidence beside the coalition table: each kind is collected once, in a file of its own, before coalitions are evaluated.

What a user got wrong (a reference model that is not there, a branch that does not exist) is thereby said before the long part.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from mmaudit.evidence.branches import BRANCHES, collect_branches
from mmaudit.evidence.information import INFORMATION, collect_information
from mmaudit.evidence.latents import COMPETITION, collect_competition
from mmaudit.evidence.mask_distance import MASK_DISTANCE, collect_mask_distance
from mmaudit.evidence.references import REFERENCES, collect_references
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import MMAuditError
from mmaudit.report.schema import FailureRecord, FileRecord, Note
from mmaudit.report.store import write_bytes_atomic

__all__ = ["FURTHER", "collect_further"]

FURTHER: dict[str, Callable[[Surroundings], tuple[Note, ...]]] = {
    REFERENCES: collect_references,
    BRANCHES: collect_branches,
    COMPETITION: collect_competition,
    INFORMATION: collect_information,
    MASK_DISTANCE: collect_mask_distance,
}
"""Kind -> function that writes its table into the work folder, or does nothing where the audit has no such thing."""


def collect_further(
    surroundings: Surroundings, wanted: frozenset[str]
) -> tuple[FailureRecord, ...]:
    """Collect further evidence on the main process; notes go to the subject.

    Args:
        surroundings: The opened audit.
        wanted: Tables that measures ask for; other kinds are not collected.

    Returns:
        The kinds that raised something foreign: they do not lose the audit.

    Raises:
        MMAuditError: If what the spec says cannot be done.
    """
    failures: list[FailureRecord] = []
    subject, files = surroundings.subject, surroundings.files
    for kind, collect in FURTHER.items():
        if kind not in wanted:
            continue
        done = surroundings.work / f"{kind}.json"
        if done.exists():  # before an interruption
            said = _Said.model_validate_json(done.read_bytes())
        else:
            before = len(files)
            try:
                notes = collect(surroundings)
            except MMAuditError:
                raise
            except Exception as error:  # evidence that fails must not lose the rest
                reason = f"{type(error).__name__}: {error}"
                failures.append(FailureRecord(measure=kind, error=reason))
                continue
            said = _Said(notes=notes, files=tuple(files[before:]))
            del files[before:]
            write_bytes_atomic(done, said.model_dump_json().encode())
        subject.notes += said.notes
        files += said.files
    return tuple(failures)


class _Said(BaseModel):
    """What collecting one kind of evidence left for the record, kept in case the audit is interrupted later."""

    notes: tuple[Note, ...] = ()
    files: tuple[FileRecord, ...] = ()
