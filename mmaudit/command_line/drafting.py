"""``mmaudit init``: from a checkpoint, the function that builds its model, and its data to a commented ``audit.yaml``.

One batch is read and the model is run on it, so that what the draft says about the call and the outputs has been seen to work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.model import left_as_it_came, unwrapped
from mmaudit.checkpoint.structure import inspect_structure
from mmaudit.command_line.drafted_file import Sources, source_mapping, write_audit_file
from mmaudit.command_line.entries import entries
from mmaudit.command_line.guessing import Guess, guess
from mmaudit.command_line.probing import FoundOutputs, find_call, find_outputs, parameters_of
from mmaudit.evidence.data import open_source
from mmaudit.evidence.plain_score import PlainScore
from mmaudit.evidence.scoring import value_function
from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.batches import BatchParser
from mmaudit.masking.calling import Caller
from mmaudit.masking.paths import map_leaves
from mmaudit.masking.spec import AuditSpec, MaskingSpec, SourceSpec, read_spec
from mmaudit.report.schema import StructureRecord

__all__ = ["Ask", "Draft", "draft_audit_file"]

Ask = Callable[[str, str, str], str]
"""What is asked for, the guess, its reason -> the answer."""


@dataclass(frozen=True)
class Draft:
    """A drafted audit file, not yet written.

    Attributes:
        text: The file.
        guess: What was found in a batch.
        outputs: What the model returned.
        structure: What the model looks like under this draft.
        score: Accuracy on the batch, of a regression R2; ``None`` without labels.
        notes: What was seen while the weights were loaded.
    """

    text: str
    guess: Guess
    outputs: FoundOutputs
    structure: StructureRecord
    score: float | None
    notes: tuple[str, ...]


def draft_audit_file(
    checkpoint: Path,
    factory: str | None,
    data: str,
    *,
    directory: Path,
    factory_args: Mapping[str, Any] | None = None,
    data_args: Mapping[str, Any] | None = None,
    target: str | None = None,
    ask: Ask | None = None,
    trust: bool = False,
) -> Draft:
    """Draft an audit file.

    Args:
        checkpoint: File or folder with the weights.
        factory: ``package.module:callable`` that builds the model; ``None`` where the checkpoint holds it.
        data: ``package.module:callable`` that gives the data, or an ``.npz`` or Parquet file.
        directory: Where the file is going to lie: imports and relative paths start there.
        factory_args: Keyword arguments of the factory.
        data_args: Keyword arguments of the data's function.
        target: Path of the labels in a batch; left out, it is guessed.
        ask: Confirms a guess; left out, guesses stand.
        trust: Load a checkpoint that runs code when it is loaded.

    Raises:
        CheckpointError: If the weights cannot be loaded.
        DataError: If no batch can be read, or nothing in it can be a modality.
        ModelError: If the model cannot be run on a batch in any of the ways that were tried.
        SpecError: If something cannot be imported, or an answer does not fit.
    """
    # The loader takes relative paths from the audit file's folder; the user means the current one.
    checkpoint = checkpoint.absolute()
    sources = Sources(checkpoint, factory, factory_args or {}, data, data_args or {}, directory)
    loaded = load_checkpoint(
        checkpoint, factory, args=sources.factory_args, directory=directory, trust=trust
    )
    model = unwrapped(loaded.model)
    batch = _first_batch(sources)
    parameters = parameters_of(model)
    found = entries(batch)
    guessed = guess(found, parameters, target=target)
    if ask is not None and target is None:
        named = ask(
            "target",
            guessed.target.path if guessed.target else "",
            guessed.target_reason or "no labels were found",
        )
        if named and (guessed.target is None or named != guessed.target.path):
            guessed = guess(found, parameters, target=named)
    if not guessed.modalities:
        listed = "; ".join(entry.describe() for entry in found)
        raise DataError(
            f"nothing in a batch can be a modality, which is an array with a row per sample; it holds {listed}"
        )
    with left_as_it_came(model), torch.no_grad():
        call, returned = find_call(model, batch, guessed, parameters)
        outputs = find_outputs(returned, guessed)
        if ask is not None:
            kind = ask("outputs", outputs.kind, outputs.reason)
            outputs = replace(outputs, kind=kind or outputs.kind)
        text = write_audit_file(sources, guessed, call, outputs, batch)
        spec = read_spec(yaml.safe_load(text), AuditSpec)
        score = _score(model, spec, batch, guessed)
        structure = inspect_structure(model, batch, spec).record
    return Draft(text, guessed, outputs, structure, score, loaded.notes)


def _first_batch(sources: Sources) -> Any:
    spec = source_mapping(sources)
    name = str(spec.get("factory", "a:b"))
    if name.count(":") != 1 or not all(part.strip() for part in name.split(":")):
        raise SpecError(
            f"--data: expected module:function, an .npz or a .parquet file, found '{name}'; for example {name.strip(':') or 'data'}:test_loader"
        )
    # Only what opens the data is wanted of this spec: where things are in a batch is not known yet.
    anything = MaskingSpec.model_validate({"modalities": {"batch": "batch"}})
    source = open_source(SourceSpec.model_validate(spec), anything, directory=sources.directory)
    return map_leaves(source.first_raw(), np.ndarray, _as_tensor)


def _as_tensor(array: Any) -> Any:
    return torch.as_tensor(array) if array.dtype.kind in "biufc" else array.tolist()


def _score(model: Any, spec: MaskingSpec, batch: Any, guessed: Guess) -> float | None:
    value = value_function(spec)
    scores = value.scores(Caller(model, spec)(batch))
    if guessed.target is None or guessed.target.is_text:
        return None
    # Ids and groups are no matter here, and may not be unique in data that is yet to be described.
    plain = spec.model_copy(update={"ids": None, "group": None})
    parsed = BatchParser(plain, lambda note: None).parse(batch, 0, 0)
    found, rows = PlainScore(value), value.rows(parsed)
    found.add(value.judged(scores.unsqueeze(0), rows), rows)
    return found.value()
