"""Turns a checkpoint into safetensors and a factory, which load without running anything of the checkpoint's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor, nn

from mmaudit.checkpoint.factory_stub import (
    SETTINGS,
    Stub,
    calling_factory,
    calling_transformers,
    describe_keys,
    for_module,
    settings_text,
    to_fill_in,
)
from mmaudit.checkpoint.formats import CONFIG, find_weights, recognise
from mmaudit.checkpoint.importing import importable
from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.model import OpaqueModel
from mmaudit.checkpoint.programs import ScriptedModel
from mmaudit.checkpoint.reading import (
    WeightsFile,
    check_unchanged,
    needs_trust,
    read_weights,
    stamped,
)
from mmaudit.checkpoint.state_dict import Wanted, check_tensors, find_state_dict
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError, SpecError
from mmaudit.report.store import write_text_atomic

__all__ = ["Converted", "convert_checkpoint"]

WEIGHTS = "model.safetensors"
FACTORY = "factory.py"


class Converted(NamedTuple):
    """What a conversion wrote.

    Attributes:
        weights: The file of weights.
        factory: The file with ``build()``.
        tensors: How many tensors were written.
        ready: Whether ``build()`` returns the model; else it says what to fill in.
        says: What ``build()`` does, in words that follow it.
        format: What the checkpoint was.
        notes: What was done on the way.
    """

    weights: Path
    factory: Path
    tensors: int
    ready: bool
    says: str
    format: str
    notes: tuple[str, ...]


class _Found(NamedTuple):
    tensors: dict[str, Tensor]
    stub: Stub
    format: str
    notes: tuple[str, ...]
    settings: Mapping[str, Any] | None = None


def convert_checkpoint(
    checkpoint: Path | str,
    out: Path | str,
    *,
    factory: str | None = None,
    args: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    trust: bool = False,
    weights: Wanted = "model",
    strip_prefix: str | None = None,
    force: bool = False,
) -> Converted:
    """Write a checkpoint's weights as safetensors, beside a factory that builds their model.

    Args:
        checkpoint: Anything :func:`~mmaudit.load_checkpoint` opens, and Hugging Face directories with ``.bin`` weights. ONNX holds
            no weights of a module and cannot be converted; it is audited as it is.
        out: Folder for ``model.safetensors`` and ``factory.py`` (``factory:build``).
        factory: ``package.module:callable`` that builds the model, where it is known.
        args: Its keyword arguments.
        directory: Folder that factories and trusted pickles import from; left out, the current one.
        trust: Load what runs code when it is loaded.
        weights: The ``model``'s, or their exponential moving average (``ema``).
        strip_prefix: Prefix of the checkpoint's keys, where a factory is given.
        force: Replace files of an earlier conversion.

    Returns:
        What was written. The result loads without trust.

    Raises:
        CheckpointError: If the checkpoint is refused, damaged or cannot be converted, or files are in the way.
        SpecError: If there are arguments or a prefix and no factory.
    """
    if factory is None and (args or strip_prefix is not None):
        raise SpecError(
            "Arguments and a prefix are for a factory, and none is named; name it or leave them out."
        )
    out, home = Path(out), (directory or Path.cwd()).resolve()
    in_the_way = [name for name in (WEIGHTS, FACTORY) if (out / name).exists()]
    if in_the_way and not force:
        raise CheckpointError(
            f"{shown(out)} holds {listed(in_the_way)} already; name another folder, or say --force to replace them."
        )
    path = Path(checkpoint).expanduser()
    path = path if path.is_absolute() else Path.cwd() / path
    if factory is not None:
        loaded = load_checkpoint(
            path, factory, args=args, directory=home, strip_prefix=strip_prefix, trust=trust,
            weights=weights,
        )  # fmt: skip
        assert isinstance(loaded.model, nn.Module)
        stub = calling_factory(factory, args or {}, home, out)
        found = _Found(_state(path, loaded.model), stub, loaded.format, loaded.notes)
    elif (path / CONFIG).is_file():
        found = _hugging_face(path, trust, weights)
    else:
        found = _file(find_weights(path), home, out, trust=trust, weights=weights)
    check_tensors(path, found.tensors)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / WEIGHTS, found.tensors)
    if found.settings is not None:
        write_text_atomic(out / SETTINGS, settings_text(found.settings))
    write_text_atomic(out / FACTORY, found.stub.text)
    return Converted(
        out / WEIGHTS,
        out / FACTORY,
        len(found.tensors),
        found.stub.ready,
        found.stub.says,
        found.format,
        found.notes,
    )


def _hugging_face(path: Path, trust: bool, weights: Wanted) -> _Found:
    from mmaudit.checkpoint.huggingface import open_hugging_face

    bins = sorted(path.glob("*.bin"))
    tensors = None
    if bins and not any(path.glob("*.safetensors")):
        parts = [read_weights(file, trust=trust, weights=weights) for file in bins]
        tensors = WeightsFile(
            {key: tensor for part in parts for key, tensor in part.tensors.items()},
            parts[0].format,
            tuple(record for part in parts for record in part.files),
            tuple(note for part in parts for note in part.notes),
        )
    opened = open_hugging_face(path, weights=weights, tensors=tensors)
    check_unchanged(opened.stamps)
    stub = calling_transformers(type(opened.model), type(opened.model.config))
    return _Found(_state(path, opened.model), stub, opened.format, opened.notes, opened.config)


def _file(file: Path, home: Path, out: Path, *, trust: bool, weights: Wanted) -> _Found:
    kind = recognise(file)
    if kind == "onnx":
        raise CheckpointError(
            f"{shown(file)} is an ONNX model, a graph without the modules that weights go into, and cannot be converted; audit"
            " it as it is ('checkpoint' without 'model')."
        )
    if not (trust and needs_trust(file, kind)):
        read = read_weights(file, weights=weights)
        return _Found(read.tensors, _unknown(read.tensors), read.format, read.notes)
    from mmaudit.checkpoint.trusted import load_trusted

    stamps = [stamped(file)]
    loaded = load_trusted(file, kind, weights=weights, directory=home)
    check_unchanged(stamps)
    words = f"{loaded.words}, trusted"
    if not isinstance(loaded.value, nn.Module):
        state = find_state_dict(file, loaded.value, weights=weights)
        return _Found(state.tensors, _unknown(state.tensors), words, (*loaded.notes, *state.notes))
    tensors = _state(file, loaded.value)
    model = loaded.value
    if kind in ("torchscript", "pt2"):
        known = (
            f" of the class {shown(model.original_name, 60)}"
            if isinstance(model, ScriptedModel)
            else ""
        )
        what = f"build the module{known} that the program was made of"
        notes = (*loaded.notes, *_left_out(file, model, tensors))
        return _Found(tensors, to_fill_in(what, tensors), words, notes)
    with importable(home):
        stub = for_module(model, tensors, home, out)
    return _Found(tensors, stub, words, loaded.notes)


def _left_out(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """A sentence on buffers that are no weights; building the module anew has to give their values."""
    inner = getattr(model, "program", model) if isinstance(model, OpaqueModel) else model
    names = [name for name, _ in inner.named_buffers() if name not in tensors]
    if not names:
        return []
    return [
        f"{len(names)} values of {shown(path.name, 60)} are not saved with weights and are not in {WEIGHTS}:"
        f" {listed(names, 3)}; build() has to set them."
    ]


def _unknown(tensors: Mapping[str, Tensor]) -> Stub:
    return to_fill_in(
        f"build the model with the parts {describe_keys(tensors)}",
        tensors,
    )


def _state(path: Path, model: nn.Module) -> dict[str, Tensor]:
    inner = getattr(model, "program", model) if isinstance(model, OpaqueModel) else model
    state = inner.state_dict()
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{shown(path)} has state that is no tensor ({listed(others)}), which safetensors cannot hold."
        )
    if not state:
        raise CheckpointError(
            f"{shown(path)} holds no weights under names (a frozen program keeps them as constants); convert what it was made of."
        )
    return {key: value.detach() for key, value in state.items()}


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write all or nothing; tensors that share memory are written once each."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({key: value.clone().contiguous() for key, value in tensors.items()}, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
