"""The text of a drafted audit file: a sentence in YAML, with a comment behind each line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mmaudit.command_line.entries import Entry
from mmaudit.command_line.guessing import Guess, GuessedModality
from mmaudit.command_line.probing import FoundOutputs
from mmaudit.report.labels import primary_score

__all__ = ["Sources", "source_mapping", "write_audit_file"]

_WIDEST = 56
"""Longer lines do not push the comments of all others to the right."""


@dataclass(frozen=True)
class Sources:
    """What the user named, and where the audit file is going to lie."""

    checkpoint: Path
    factory: str | None
    factory_args: Mapping[str, Any]
    data: str
    data_args: Mapping[str, Any]
    directory: Path


def source_mapping(sources: Sources) -> dict[str, Any]:
    """The data as a spec names it."""
    if sources.data.endswith((".npz", ".parquet")):
        return {"file": _relative(Path(sources.data), sources.directory)}
    return {
        "factory": sources.data,
        **({"args": dict(sources.data_args)} if sources.data_args else {}),
    }


def write_audit_file(
    sources: Sources,
    guessed: Guess,
    call: Mapping[str, Any],
    outputs: FoundOutputs,
    batch: Any,
) -> str:
    """Write what was found as an audit file.

    Args:
        sources: What the user named.
        guessed: What a batch seems to hold.
        call: The ``call`` of the spec.
        outputs: Where the class scores are.
        batch: The batch.

    Returns:
        YAML of about twenty lines.
    """
    arguments = {"args": dict(sources.factory_args)} if sources.factory_args else {}
    title = sources.checkpoint.name
    built = [("# model: {factory: ...}", "not needed: the checkpoint holds the model")]
    if sources.factory is not None:
        title = f"{title}, built by {sources.factory}"
        model = _flow({"factory": sources.factory, **arguments})
        built = [(f"model: {model}", "built by this function")]
    lines = [
        (f"title: {_flow(title)}", "what reports call it"),
        (
            f"checkpoint: {_flow(_relative(sources.checkpoint, sources.directory))}",
            "this file, its path seen from here",
        ),
        *built,
        ("data:", ""),
        (
            f"  test: {_flow(source_mapping(sources))}",
            f"on this data: {_kind_of_batch(batch)} of {guessed.n} samples",
        ),
        ("  # train: {factory: ...}", "for the masks mean, noise and marginal"),
        ("modalities:", "has these modalities, made absent so"),
        *(
            (f"  {line}", comment)
            for m in guessed.modalities
            for line, comment in _modality_lines(m)
        ),
        (f"call: {_flow(dict(call))}", "how forward is called"),
        *_output_lines(outputs),
        *_label_lines(guessed, outputs),
    ]
    head = "# Drafted by mmaudit init from one batch. Check every line, then: mmaudit preview, mmaudit audit.\n"
    column = max(len(line) for line, _ in lines if len(line) <= _WIDEST)
    return head + "".join(_commented(line, comment, column) for line, comment in lines)


def _output_lines(outputs: FoundOutputs) -> Iterator[tuple[str, str]]:
    where = {"path": outputs.path} if outputs.path is not None else {}
    shape = f"({', '.join(['B', *map(str, outputs.shape[1:])])}{',' * (len(outputs.shape) == 1)})"
    yield f"outputs: {_flow({**where, 'kind': outputs.kind})}", f"{shape}; {outputs.reason}"
    if outputs.task != "multiclass":
        yield f"task: {outputs.task}", outputs.task_reason
    elif outputs.kind == "one_logit":
        yield "task: binary", "the logit is positive for class 1"


def _label_lines(guessed: Guess, outputs: FoundOutputs) -> Iterator[tuple[str, str]]:
    if guessed.target is None:
        yield (
            "# target: label",
            "path of the labels: none were found",
        )
    else:
        yield f"target: {_flow(guessed.target.path)}", f"the labels: {guessed.target_reason}"
        if guessed.target.is_text:
            yield (
                f"classes: {_flow(sorted(set(guessed.target.value)))}",
                "as seen in one batch: complete them, in the model's order",
            )
    if guessed.ids is None:
        yield "# ids: id", "path of sample ids, else running numbers"
    else:
        yield f"ids: {_flow(guessed.ids.path)}", "names the samples in tables"
    together = "what belongs together; intervals allow for it"
    yield f"group: {_flow(guessed.group.path)}" if guessed.group else "# group: patient", together
    score = primary_score(outputs.task)
    yield (
        f"# expected: {{{score}: 0.9}}",
        "what you know it to reach, else the audit stops",
    )


def _modality_lines(modality: GuessedModality) -> Iterator[tuple[str, str]]:
    about = _about(next(iter(modality.inputs.values())))
    paths = {key: entry.path for key, entry in modality.inputs.items()}
    if len(paths) == 1:
        (path,), (mask,) = paths.values(), modality.masks.values()
        yield f"{_flow(modality.name)}: {_flow({'inputs': path, 'mask': mask})}", about
        return
    yield f"{_flow(modality.name)}:", about
    yield f"  inputs: {_flow(paths)}", "what belongs to it"
    yield f"  mask: {_flow(modality.masks)}", "keep: stays as it is"


def _about(entry: Entry) -> str:
    shape = ", ".join("B" if d == entry.dim else str(size) for d, size in enumerate(entry.shape))
    values = entry.value.double() if isinstance(entry.value, Tensor) else torch.zeros(0)
    values = values[torch.isfinite(values)]
    if not values.numel():
        return f"({shape})"
    low, mean, high = (
        _short(v) for v in (float(values.min()), float(values.mean()), float(values.max()))
    )
    if entry.is_integer:
        return f"({shape}), whole numbers {low} to {high}"
    return f"({shape}), {low} to {high}, mean {mean}"


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "?"


def _kind_of_batch(batch: Any) -> str:
    return (
        "mappings"
        if isinstance(batch, Mapping)
        else "tuples"
        if isinstance(batch, list | tuple)
        else "batches"
    )


def _commented(line: str, comment: str, column: int) -> str:
    return f"{line:<{column}} # {comment}\n" if comment else f"{line}\n"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _relative(path: Path, directory: Path) -> str:
    """A path as seen from the audit file; as it is where that would be a long way up."""
    try:
        seen = os.path.relpath(path.resolve(), directory.resolve())
    except ValueError:  # another drive
        return str(path.resolve())
    return str(path.resolve()) if Path(seen).parts[:3] == (os.pardir,) * 3 else seen
