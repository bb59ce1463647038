"""Models to compare with, as something that is asked for scores batch by batch.

A reference says what could be known of a sample from one modality alone, or from everything but one. It may be a model with
an audit file of its own, a module in memory, or the outputs of a model that ran elsewhere; who asks need not know which.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import seeded, unwrapped
from mmaudit.evidence.files import open_file
from mmaudit.evidence.loaders import Selection
from mmaudit.evidence.scoring import ValueFunction
from mmaudit.exceptions import DataError, MMAuditError, ModelError, first_line
from mmaudit.masking.base import stable_hash
from mmaudit.masking.batches import Batch
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import get_value
from mmaudit.masking.spec import CallSpec, MaskingSpec
from mmaudit.report.schema import FileRecord

__all__ = ["ModelReference", "Reference", "StoredOutputs", "Way", "file_record", "ways_of_calling"]

_ROWS = 4096


class Reference(ABC):
    """What is known of samples without some modalities.

    Args:
        title: What it is, in a few words that a sentence can begin with: ``the reference model of audio``.
        modality: The modality that it sees, or the one that it does without.
        files: What was read from disk for it.
    """

    def __init__(self, title: str, modality: str, files: tuple[FileRecord, ...] = ()) -> None:
        self.title, self.modality, self.files = title, modality, files

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Scores of the samples of a batch, as the value function of the task gives them.

        Args:
            batch: Of the audited data (or of other data with the same fields).

        Returns:
            For classes in logit space, float64 ``(n, K)`` on the CPU. What stands in the rows of samples that lack the modality
            means nothing.

        Raises:
            MMAuditError: If there are none; the sentence says of which reference.
        """


@dataclass(frozen=True)
class Way:
    """One way to call a model on a batch."""

    prepare: Callable[[Batch], MaskedBatch]
    """Places a batch and masks it."""
    coalition: int
    """Modalities that are present, on the coalition axis of the prepared batch."""
    caller: Caller
    """Finds the arguments in it."""


class ModelReference(Reference):
    """A model that runs.

    Its weights, its generators and its train flags are its own copy's: what the user handed over stays as it is.

    Args:
        title: See :class:`Reference`.
        modality: The same.
        model: Module or callable; a module is copied and brought to the device unless ``own`` says that nobody else has it.
        ways: How it may be called, the likeliest first; the first that works on the first batch is kept.
        path: Where its scores are in what it returns; a tensor is taken as it is.
        value: Turns its outputs into scores.
        device: Where to run.
        precision: For autocast; ``None``: as it comes.
        seed: Of what a stochastic model draws, the same for every batch.
        files: See :class:`Reference`.
        own: Whether the model was loaded for this reference.

    Raises:
        ModelError: If the module cannot be copied.
    """

    def __init__(
        self,
        title: str,
        modality: str,
        model: Any,
        ways: Sequence[Way],
        *,
        path: str | None,
        value: ValueFunction,
        device: torch.device,
        precision: torch.dtype | None = None,
        seed: int = 0,
        files: tuple[FileRecord, ...] = (),
        own: bool = False,
    ) -> None:
        super().__init__(title, modality, files)
        model = unwrapped(model)
        if isinstance(model, nn.Module):
            if not own:
                try:
                    model = copy.deepcopy(model)
                except Exception as error:  # modules may hold anything
                    raise ModelError(
                        f"{title} cannot be copied ({type(error).__name__}: {first_line(error)}): give an audit file instead."
                    ) from error
            model = model.to(device)
            for module in model.modules():
                module.training = False
        self.model, self._ways = model, list(ways)
        self._path, self._value = path, value
        self._device, self._precision, self._seed = device, precision, seed

    def scores(self, batch: Batch) -> Tensor:
        """See :meth:`Reference.scores`."""
        first: Exception | None = None
        for way in self._ways:
            try:
                found = self._scores(batch, way)
            except Exception as error:
                first = first or error
                continue
            self._ways = [way]
            return found
        assert first is not None
        if isinstance(first, MMAuditError):
            raise type(first)(f"{self.title}: {first}") from first
        raise ModelError(
            f"{self.title} raised {type(first).__name__} on batch {batch.index} (samples {batch.ids[0]} to {batch.ids[-1]}): {first_line(first)}"
        ) from first

    def _scores(self, batch: Batch, way: Way) -> Tensor:
        args, kwargs = way.caller.arguments(way.prepare(batch).coalition(way.coalition))
        autocast = (
            nullcontext()
            if self._precision is None
            else torch.autocast(self._device.type, dtype=self._precision)
        )
        with torch.no_grad(), seeded(self._seed), autocast:
            returned = self.model(*args, **kwargs)
        if not isinstance(returned, Tensor) and self._path is not None:
            returned = get_value(returned, self._path)
        if not isinstance(returned, Tensor):
            raise ModelError(
                f"it returned a {type(returned).__name__}, not a tensor; expected scores as the audited model gives them."
            )
        scores = self._value.scores(returned)
        if len(returned) != batch.n:
            raise ModelError(f"it gives {len(returned)} rows for {batch.n} samples.")
        return scores


def ways_of_calling(
    model: Any,
    audited: Caller,
    spec: MaskingSpec,
    prepare: Callable[[Batch], MaskedBatch],
    example: MaskedBatch,
    coalition: int,
) -> list[Way]:
    """How a model in memory may want to be called: as the audited model is, or with what it sees alone.

    Args:
        model: The reference.
        audited: Calls the audited model.
        spec: Of the audit.
        prepare: Places a batch with the audit's masks.
        example: A prepared batch.
        coalition: Modalities that the reference sees.

    Returns:
        Ways whose arguments its signature takes, the likelier first; both where it has none to look at.
    """
    model = unwrapped(model)
    whole, alone = audited.call_spec(example.whole), _alone(model, spec, coalition)
    forward = model.forward if isinstance(model, nn.Module) else model
    try:
        signature: inspect.Signature | None = inspect.signature(forward)
    except (TypeError, ValueError):
        signature = None
    found = {
        kind: Way(prepare, coalition, Caller(model, spec.model_copy(update={"call": call})))
        for kind, call in (("whole", whole), ("alone", alone))
        if signature is None or _takes(signature, call)
    }
    if signature is not None and _alone_is_likelier(signature, whole, alone, audited.model):
        found = {kind: found[kind] for kind in ("alone", "whole") if kind in found}
    return list(found.values())


def _alone_is_likelier(
    signature: inspect.Signature, whole: CallSpec, alone: CallSpec, audited: Any
) -> bool:
    """Whether a signature that may take both kinds of call was rather written for the inputs alone."""
    arguments, fewer = (len(call.args) + len(call.kwargs) for call in (whole, alone))
    if arguments == 1:
        # The one argument is the whole batch or the one input; by its name it is as in the audited model, or not.
        return set(signature.parameters) != _parameter_names(audited)
    required = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return len(required) == fewer < arguments


def _alone(model: Any, spec: MaskingSpec, coalition: int) -> CallSpec:
    """The inputs of the modalities in a coalition, by name where the names are those of the model's arguments."""
    inputs = [
        (modality, name, path)
        for modality in spec.names
        if modality in spec.coalition(coalition)
        for name, path in spec.modalities[modality].inputs.items()
    ]
    paths = [path for _, _, path in inputs]
    for labels in ([name for _, name, _ in inputs], [modality for modality, _, _ in inputs]):
        named = CallSpec(kwargs=dict(zip(labels, paths, strict=True))) if _unique(labels) else None
        if named is not None and _parameter_names(model).issuperset(labels):
            return named
    return CallSpec(args=tuple(paths))


def _unique(labels: list[str]) -> bool:
    return len(set(labels)) == len(labels)


def _parameter_names(model: Any) -> set[str]:
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):
        return set()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, parameter in signature.parameters.items() if parameter.kind in kinds}


def _takes(signature: inspect.Signature, call: CallSpec) -> bool:
    try:
        signature.bind(*call.args, **call.kwargs)
    except TypeError:
        return False
    return True


class StoredOutputs(Reference):
    """Outputs of a model that ran elsewhere, joined by sample id.

    They are kept in memory: as many numbers as the model gave, and 16 bytes for each sample.

    Args:
        title: See :class:`Reference`.
        modality: The same.
        path: ``.npz`` or ``.parquet`` with ``id`` and ``scores``, row by row.
        value: Turns outputs into scores.
        files: See :class:`Reference`.
        numbered: Whether the audit knows its samples by running number alone.

    Raises:
        DataError: If the file cannot be read, lacks an array, or an id occurs twice.
    """

    def __init__(
        self,
        title: str,
        modality: str,
        path: Path,
        *,
        value: ValueFunction,
        files: tuple[FileRecord, ...] = (),
        numbered: bool = False,
    ) -> None:
        super().__init__(title, modality, files)
        self._name, self._value, self._numbered = path.name, value, numbered
        columns = {"id": "id", "scores": "scores"}
        reader = open_file(path, columns=columns, rows=None, batch_size=_ROWS, note=lambda _: None)
        texts: list[Any] = []
        parts: list[Tensor] = []
        for raw in reader.read(Selection()):
            texts.append(pa.array(_ids(raw.data["id"], path.name)))
            scores = raw.data["scores"]
            if not isinstance(scores, Tensor):
                raise DataError(f"{path.name}: 'scores' holds no numbers; expected model outputs.")
            parts.append(scores)
        if not parts:
            raise DataError(f"{path.name} holds no rows; expected the outputs of {title}.")
        if len({part.shape[1:] for part in parts}) > 1:
            raise DataError(f"{path.name}: rows of 'scores' differ in length.")
        ids = pa.chunked_array(texts)
        self._outputs = torch.cat(parts)
        codes = np.fromiter(
            (stable_hash(text) for chunk in texts for text in chunk.to_pylist()), np.int64, len(ids)
        )
        self._order = np.argsort(codes, kind="stable")
        self._codes = codes[self._order]
        double = np.flatnonzero(self._codes[1:] == self._codes[:-1])
        if len(double):
            again = ids[int(self._order[double[0]])].as_py()
            raise DataError(
                f"{path.name}: id '{again}' occurs twice; expected the outputs of every sample once."
            )

    def scores(self, batch: Batch) -> Tensor:
        """See :meth:`Reference.scores`; samples that lack the modality need not be in the file."""
        wanted = np.fromiter(map(stable_hash, batch.ids), np.int64, batch.n)
        at = np.minimum(np.searchsorted(self._codes, wanted), len(self._codes) - 1)
        found = self._codes[at] == wanted
        needed = batch.present.get(self.modality)
        missing = np.flatnonzero(~found if needed is None else ~found & needed)
        if len(missing):
            hint = (
                "; the spec names no ids, so that samples are known by their running number from 0"
                if self._numbered
                else ""
            )
            raise DataError(
                f"{self._name} has no outputs for sample '{batch.ids[missing[0]]}'; {self.title} needs those of every sample that has {self.modality}{hint}."
            )
        if not found.any():
            at = np.zeros_like(at)
        rows = np.where(found, self._order[at], self._order[at[found][0]] if found.any() else 0)
        try:
            return self._value.scores(self._outputs[torch.from_numpy(rows)])
        except MMAuditError as error:
            raise type(error)(f"{self.title} ({self._name}): {error}") from error


def _ids(values: Any, name: str) -> list[str]:
    """Ids as a batch writes them."""
    if isinstance(values, Tensor):
        if values.dim() != 1:
            raise DataError(f"{name}: 'id' has shape {tuple(values.shape)}; expected one each row.")
        values = values.tolist()
    texts = [None if text is None else str(text) for text in values or ()]
    if not texts or None in texts:
        raise DataError(f"{name}: a row has no id; expected the id of its sample in each.")
    return [text for text in texts if text is not None]


def file_record(path: Path, written: str, role: str) -> FileRecord:
    """What is recorded of a file.

    Args:
        path: Where it is.
        written: As the spec says it.
        role: What it is for.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(path=written, sha256=digest, bytes=path.stat().st_size, role=role)
