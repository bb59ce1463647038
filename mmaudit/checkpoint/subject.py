"""What is audited: a model with its weights, the spec, and the data, however the user handed them over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmaudit.checkpoint.loader import IN_NO_FILE, load_checkpoint
from mmaudit.checkpoint.model import OpaqueModel, model_device, unwrapped
from mmaudit.checkpoint.onnx_model import OnnxModel
from mmaudit.checkpoint.programs import ScriptedModel
from mmaudit.checkpoint.reading import file_record
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import AuditSpec, MaskingSpec, read_spec
from mmaudit.report.schema import FileRecord, Note

__all__ = ["Subject", "open_subject"]


@dataclass
class Subject:
    """A model ready to be audited.

    Attributes:
        model: The module without wrappers, or a callable.
        spec: Everything about modalities, masks, call and outputs.
        data: What ``open_source`` takes: the audited split.
        train: The training split, where there is one.
        directory: Where relative paths and imports of the audit file start.
        borrowed: The module belongs to the caller and must leave as it came, its device included.
    """

    model: Any
    spec: MaskingSpec
    data: Any
    train: Any = None
    directory: Path | None = None
    title: str = ""
    name: str = ""
    borrowed: bool = False
    files: tuple[FileRecord, ...] = ()
    notes: list[Note] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return (
            sum(p.numel() for p in self.model.parameters())
            if isinstance(self.model, nn.Module)
            else 0
        )

    @property
    def device(self) -> Any:
        """Where the model lies now."""
        return model_device(self.model)


def open_subject(model: Any, data: Any = None, spec: Any = None, *, trust: bool = False) -> Subject:
    """Bring a model, its data and a spec together.

    Args:
        model: An audit file (``.yaml``); a checkpoint that holds its model (ONNX, a Hugging Face directory), or any checkpoint if
            ``spec`` is an :class:`AuditSpec` or a mapping with a factory under ``model``; a module; any callable.
        data: The audited data; left out, the test split of the audit file.
        spec: A :class:`MaskingSpec`, an :class:`AuditSpec`, a mapping, or a YAML file; left out where ``model`` is an audit file.
        trust: Load checkpoints that run code when they are loaded; never what an audit file can say itself.

    Raises:
        SpecError: If something is missing.
        CheckpointError: If the weights cannot be loaded.
    """
    directory: Path | None = None
    written: tuple[FileRecord, ...] = ()
    if isinstance(model, (str, Path)) and Path(model).suffix in (".yaml", ".yml"):
        if spec is not None:
            raise SpecError(
                "an audit file is a spec of its own: give either the file or a model and a spec."
            )
        path = Path(model)
        spec, directory, model = read_spec(path, AuditSpec), path.resolve().parent, None
        written = (file_record(path, "audit file"),)
        if isinstance(spec, AuditSpec) and spec.directory is not None:
            spec, directory = _moved(spec, directory), directory / spec.directory
    elif spec is None:
        raise SpecError(
            "a spec is needed: which inputs belong to which modality, and where the labels are."
        )
    elif isinstance(spec, (str, Path)):
        directory = Path(spec).resolve().parent
    if not isinstance(spec, MaskingSpec):
        whole = not isinstance(spec, Mapping) or bool({"model", "checkpoint", "data"} & set(spec))
        spec = read_spec(
            spec,
            AuditSpec
            if whole and (model is None or isinstance(model, (str, Path)))
            else MaskingSpec,
        )
    if isinstance(model, (str, Path)) or (model is None and isinstance(spec, AuditSpec)):
        subject = _from_files(model, spec, directory, trust=trust)
    elif model is None:
        raise SpecError(
            "there is no model: give one, or name a checkpoint and, under 'model', the factory that builds its module."
        )
    else:
        if isinstance(model, type):
            raise SpecError(
                f"{model.__name__} is a class; give an instance of it, with its weights."
            )
        if not callable(model):
            raise SpecError(
                f"a {type(model).__name__} is no model; give a module, a callable or an audit file."
            )
        inner = unwrapped(model)
        name = type(inner).__qualname__
        if isinstance(inner, torch.jit.ScriptModule):
            inner = ScriptedModel(inner)
            name = inner.original_name
        subject = Subject(inner, spec, data, directory=directory, name=name, borrowed=True)
        if isinstance(spec, AuditSpec):
            subject.data, subject.train = spec.data.test, spec.data.train
    subject.files = (*written, *subject.files)
    if data is not None:
        subject.data = data
    if subject.data is None:
        raise SpecError("there is no data to audit the model on: give it, or name it under 'data'.")
    if isinstance(subject.data, Iterator):
        subject.data = list(subject.data)
        subject.notes.append(
            Note(
                kind="information",
                topic="data",
                text="The data came as a generator, which can be read once only: it was kept in memory.",
            )
        )
    subject.title = subject.title or (
        spec.title if isinstance(spec, AuditSpec) and spec.title else subject.name
    )
    return subject


def _moved(spec: AuditSpec, home: Path) -> AuditSpec:
    """The same spec with the checkpoint named from the audit file's own folder."""
    checkpoint = spec.checkpoint
    if isinstance(checkpoint, Mapping):
        return spec.model_copy(
            update={"checkpoint": {part: home / path for part, path in checkpoint.items()}}
        )
    return spec if checkpoint is None else spec.model_copy(update={"checkpoint": home / checkpoint})


def _from_files(
    checkpoint: Path | str | None, spec: MaskingSpec, directory: Path | None, *, trust: bool
) -> Subject:
    audited = spec if isinstance(spec, AuditSpec) else None
    factory = audited.model if audited is not None else None
    named = audited.checkpoint if checkpoint is None and audited is not None else checkpoint
    loaded = load_checkpoint(
        named,
        None if factory is None else factory.factory,
        args=None if factory is None else factory.args,
        directory=directory,
        strip_prefix=None if audited is None else audited.strip_prefix,
        trust=trust,
        weights="model" if audited is None else audited.weights,
    )
    model = unwrapped(loaded.model)
    if isinstance(model, OnnxModel) and spec.outputs.path in model.outputs:
        model.names_outputs = True  # of a graph with one output too, where the spec names it
    trusted = loaded.format.endswith("trusted")
    notes = [
        Note(
            kind="warning" if (trusted and not number) or IN_NO_FILE in text else "information",
            topic="loading",
            text=text,
        )
        for number, text in enumerate(loaded.notes)
    ]
    if factory is not None and named is None:
        bare = (
            f"No checkpoint is named: the model is audited with the weights that {factory.factory} gives it, which are untrained"
            " unless it loads some itself. Name the weights under 'checkpoint'."
        )
        notes.append(Note(kind="warning", topic="loading", text=bare))
    if factory is None:
        opened = f"The checkpoint holds the whole model: {loaded.format}."
        notes.append(Note(kind="information", topic="loading", text=opened))
    return Subject(
        model,
        spec,
        None if audited is None else audited.data.test,
        None if audited is None else audited.data.train,
        directory=directory,
        name=factory.factory if factory is not None else _name(model, named),
        files=loaded.files,
        notes=notes,
    )


def _name(model: Any, checkpoint: Any) -> str:
    """What to call a model that no factory built."""
    place = Path(str(checkpoint)).name
    if isinstance(model, ScriptedModel):
        return f"{model.original_name} of {place}"
    return place if isinstance(model, OpaqueModel) else f"{type(model).__qualname__} of {place}"
