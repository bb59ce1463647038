"""What ``inspect`` and ``preview`` start from: the model and the data of an audit file, without an audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mmaudit.checkpoint.importing import importable
from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.subject import Subject, open_subject
from mmaudit.evidence.data import Batch, Source, open_source
from mmaudit.evidence.processes import Processes

__all__ = ["Opened", "open_audit_file"]


@dataclass(frozen=True)
class Opened:
    """A model on its device and its data."""

    subject: Subject
    source: Source
    device: torch.device

    def first_batch(self) -> Batch:
        """The first batch of the audited data.

        Raises:
            DataError: If there is none.
        """
        return self.source.first()


@contextmanager
def open_audit_file(
    audit_file: Path, *, device: str | None = None, trust: bool = False
) -> Iterator[Opened]:
    """Load what an audit file names, ready to run the model without gradients.

    Args:
        audit_file: The audit file; its folder is importable meanwhile.
        device: Where to run; left out, a GPU if there is one.
        trust: Load a checkpoint that runs code when it is loaded.

    Raises:
        MMAuditError: If something cannot be loaded.
    """
    subject = open_subject(audit_file, trust=trust)
    source = open_source(subject.data, subject.spec, directory=subject.directory)
    place = Processes(device).device
    if isinstance(subject.model, nn.Module):
        subject.model.to(place)
    with importable(subject.directory), left_as_it_came(subject.model), torch.no_grad():
        yield Opened(subject, source, place)
