"""Opens a checkpoint that holds the whole model, so that no factory is needed.

ONNX and Hugging Face directories run no code of theirs. Pickled modules, TorchScript and ``.pt2`` do, and are opened only where
the caller says ``trust``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from mmaudit.checkpoint.formats import CONFIG, FORMATS, find_weights, recognise, refusal
from mmaudit.checkpoint.pickled_names import names_in_file
from mmaudit.checkpoint.reading import (
    Stamp,
    check_unchanged,
    file_record,
    needs_trust,
    read_stamped,
    stamped,
)
from mmaudit.checkpoint.state_dict import Wanted
from mmaudit.checkpoint.wording import shown
from mmaudit.exceptions import CheckpointError, SpecError
from mmaudit.report.schema import FileRecord

__all__ = ["WholeModel", "open_whole"]


class WholeModel(NamedTuple):
    """A model out of a checkpoint, and what the record says about it."""

    model: Callable[..., Any]
    files: tuple[FileRecord, ...]
    format: str
    notes: tuple[str, ...]


def open_whole(
    path: Path, *, trust: bool = False, weights: Wanted = "model", directory: Path | None = None
) -> WholeModel:
    """Open a checkpoint that holds its model.

    Args:
        path: An ONNX file or a Hugging Face directory; with ``trust`` also a pickled module, TorchScript or ``.pt2``.
        trust: Load what runs code when it is loaded; it is named on the log before.
        weights: The ``model``'s, or their exponential moving average (``ema``).
        directory: Folder that trusted pickles may import from.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the checkpoint is refused or damaged.
        SpecError: If it holds weights alone.
    """
    if (path / CONFIG).is_file():
        return _directory(path, weights)
    for name, what in (
        ("adapter_config.json", "an adapter without its base model; merge it into the model"),
        ("model_index.json", "a pipeline of several models; give the folder of one of them"),
    ):
        if (path / name).is_file():
            raise CheckpointError(f"{shown(path)} is a Hugging Face directory of {what}.")
    file = find_weights(path)
    kind = recognise(file)
    if kind == "onnx":
        return _onnx(file, weights)
    if trust and needs_trust(file, kind):
        return _trusted(file, kind, weights, directory)
    if FORMATS[kind].advice:
        raise refusal(file, kind, names_in_file(file, kind) if FORMATS[kind].trusted else ())
    if kind == "torch zip":
        check_unchanged(
            read_stamped(file, "checkpoint")[1]
        )  # refused here if it holds more than weights
    beside = file.parent / CONFIG
    or_else = f", or give the folder, whose {CONFIG} may name its class" if beside.is_file() else ""
    raise SpecError(
        f"Weights need a model to go into; name a factory ('package.module:callable') for {shown(path)}, or give an audit"
        f" file (.yaml){or_else}."
    )


def _directory(path: Path, weights: Wanted) -> WholeModel:
    # Here and below: transformers and onnxruntime are extras, and take seconds to import.
    from mmaudit.checkpoint.huggingface import open_hugging_face

    opened = open_hugging_face(path, weights=weights)
    check_unchanged(opened.stamps)
    return WholeModel(opened.model, opened.files, opened.format, opened.notes)


def _onnx(file: Path, weights: Wanted) -> WholeModel:
    from mmaudit.checkpoint.onnx_model import open_onnx

    if weights == "ema":
        raise CheckpointError(
            f"{shown(file)} is an ONNX model and holds one set of weights; leave out 'weights: ema'."
        )
    stamps = [stamped(file)]
    opened = open_onnx(file)
    check_unchanged(stamps)
    return WholeModel(opened.model, opened.files, opened.format, opened.notes)


def _trusted(file: Path, kind: str, weights: Wanted, directory: Path | None) -> WholeModel:
    from mmaudit.checkpoint.trusted import load_trusted

    stamps: list[Stamp] = [stamped(file)]
    records = (file_record(file, "checkpoint"),)
    loaded = load_trusted(file, kind, weights=weights, directory=directory)
    check_unchanged(stamps)
    if not isinstance(loaded.value, nn.Module):
        raise SpecError(
            f"{shown(file)} holds weights or several modules and no model that can be called; name a factory"
            " ('package.module:callable') that builds it."
        )
    loaded.value.eval()
    return WholeModel(loaded.value, records, f"{loaded.words}, trusted", loaded.notes)
