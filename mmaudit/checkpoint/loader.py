"""From a checkpoint to a model that can be audited: recognise, check, read, build, load.

Weights are data: only safetensors and the zip of ``torch.save`` are read, the latter with ``weights_only=True``, and a refusal
is never tried again in another way. Code is code: the factory that builds the model is the owner's own.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmaudit.checkpoint.fitting import Plan, load_into, plan_load
from mmaudit.checkpoint.formats import FORMATS, find_weights, recognise, refusal
from mmaudit.checkpoint.importing import call_factory, import_callable, importable
from mmaudit.checkpoint.safetensors_file import read_index, read_safetensors, read_shards
from mmaudit.checkpoint.state_dict import check_tensors, find_state_dict
from mmaudit.checkpoint.torch_zip import check_storages, read_torch_zip
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError, ModelError, SpecError
from mmaudit.masking.spec import AuditSpec, read_spec
from mmaudit.report.schema import FileRecord

__all__ = [
    "LoadedCheckpoint",
    "WeightsFile",
    "call_factory",
    "import_callable",
    "importable",
    "load_checkpoint",
    "load_into",
    "read_weights",
]


class WeightsFile(NamedTuple):
    """Weights as they were read, and what the record says about them."""

    tensors: dict[str, Tensor]
    """Key -> tensor on the CPU, plain and dense, possibly mapped from the file."""
    format: str
    """For example ``safetensors`` or ``torch zip, weights only, Lightning``."""
    files: tuple[FileRecord, ...]
    """Hashed before they were read."""
    notes: tuple[str, ...]
    """Sentences for the record."""


class LoadedCheckpoint(NamedTuple):
    """A model ready to be audited, and what the record says about where it came from."""

    model: Callable[..., Any]
    """An ``nn.Module`` on the CPU in eval mode, or whatever callable came in."""
    files: tuple[FileRecord, ...]
    format: str
    notes: tuple[str, ...]


class _Stamp(NamedTuple):
    """What changes when somebody writes to a file; cheap to look at."""

    path: Path
    size: int
    modified: int
    inode: int


def read_weights(path: Path, *, role: str = "checkpoint") -> WeightsFile:
    """Read the weights of a file, recognised by its content.

    Args:
        path: A safetensors file, the index of a sharded one, a zip file of ``torch.save``, or a directory with exactly one
            index or exactly one safetensors file.
        role: What the file is, for the record.

    Raises:
        CheckpointError: If the file is missing, damaged, of another format, holds more than weights, or changes meanwhile.
    """
    weights, stamps = _read(Path(path), role)
    _check_unchanged(stamps)
    return weights


def load_checkpoint(
    checkpoint: str | Path | Mapping[str, str | Path] | nn.Module | Callable[..., Any] | None,
    factory: str | Callable[..., nn.Module] | None = None,
    *,
    args: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    strip_prefix: str | None = None,
) -> LoadedCheckpoint:
    """Build a model and put a checkpoint's weights into it, strictly.

    Args:
        checkpoint: A file or directory of weights; a mapping of sub-module -> file; an audit file (``.yaml``), which names
            model and checkpoint itself; a module or callable in memory, which is passed through as it is; ``None`` for the
            model as the factory builds it.
        factory: ``package.module:callable`` or a callable that returns the module; a module gets the weights in place.
        args: Keyword arguments of the factory.
        directory: Where relative paths begin, and importable for the factory; an audit file's own folder by default.
        strip_prefix: Prefix of the checkpoint's keys; left out: known wrappers' prefixes are found and named.

    Returns:
        The model in eval mode, the files behind it with their SHA-256, the format in words, and sentences for the record.
        A module passed through keeps its mode.

    Raises:
        CheckpointError: If the checkpoint is refused or does not fit the model; nothing is then loaded.
        SpecError: If the audit file or the factory's import string or arguments are wrong.
        ModelError: If the factory raises, or does not return what is needed.
    """
    if checkpoint is not None and not isinstance(checkpoint, (str, Path, Mapping)):
        if not callable(checkpoint):
            raise CheckpointError(
                f"A {type(checkpoint).__name__} is no checkpoint; give a path, a mapping of sub-module to path, a module"
                " or a callable."
            )
        if factory is not None:
            raise SpecError(
                "A model in memory needs no factory; leave the factory out, or give the path of the weights."
            )
        return LoadedCheckpoint(checkpoint, (), "in memory", ())
    if isinstance(checkpoint, (str, Path)) and Path(checkpoint).suffix in (".yaml", ".yml"):
        return _load_audit_file(Path(checkpoint), factory, directory, strip_prefix)
    if factory is None:
        raise SpecError(
            "Weights need a model to go into; name a factory ('package.module:callable'), or give an audit file (.yaml)."
        )
    model, code = _build(factory, args, directory)
    if checkpoint is None:
        if isinstance(model, nn.Module):
            model.eval()
        return LoadedCheckpoint(model, code, "built by the factory, no checkpoint", ())
    if not isinstance(model, nn.Module):
        raise _no_module(model, _name(factory))
    parts = (
        {str(name): path for name, path in checkpoint.items()}
        if isinstance(checkpoint, Mapping)
        else {"": checkpoint}
    )
    files, formats, notes = _fill(model, parts, directory, strip_prefix)
    model.eval()
    return LoadedCheckpoint(model, (*files, *code), formats, notes)


def _load_audit_file(
    path: Path, factory: Any, directory: Path | None, strip_prefix: str | None
) -> LoadedCheckpoint:
    if factory is not None:
        raise SpecError(
            f"{shown(path)} is an audit file and names its own model; leave the factory out."
        )
    # Hashed first: the record must name the bytes that were read, or older ones.
    record = _record(path, "audit file") if path.is_file() else None
    spec = read_spec(path, AuditSpec)
    if not isinstance(
        spec, AuditSpec
    ):  # for the type checker: read_spec returns what it is asked for
        raise SpecError(f"{shown(path)} is no audit file.")
    loaded = load_checkpoint(
        spec.checkpoint,
        spec.model.factory,
        args=spec.model.args,
        directory=directory or path.parent,
        strip_prefix=spec.strip_prefix if strip_prefix is None else strip_prefix,
    )
    return loaded._replace(files=(*((record,) if record else ()), *loaded.files))


def _build(
    factory: str | Callable[..., nn.Module], args: Mapping[str, Any] | None, directory: Path | None
) -> tuple[Any, tuple[FileRecord, ...]]:
    """The model a factory builds, and the file its code is in."""
    if isinstance(factory, nn.Module):
        if args:
            raise SpecError(
                "A module given in place of a factory takes no arguments; leave args out."
            )
        return factory, ()
    function = import_callable(factory, directory) if isinstance(factory, str) else factory
    model = call_factory(function, args, name=_name(factory), directory=directory)
    if isinstance(model, Mapping) or not callable(model):
        raise _no_module(model, _name(factory))
    if not isinstance(factory, str):
        return model, ()
    inner = (args or {}).get("factory")
    if factory.startswith("mmaudit.") and isinstance(inner, str):  # built around the user's own
        return model, (*_code(function), *_code(import_callable(inner, directory)))
    return model, _code(function)


def _no_module(model: Any, name: str) -> ModelError:
    kind = f"a {type(model).__name__}"
    if isinstance(model, Mapping) and any(isinstance(part, nn.Module) for part in model.values()):
        return ModelError(
            f"'{shown(name)}' returned {kind} of modules ({listed(model, 3)}); wrap them in one nn.Module with a forward."
        )
    return ModelError(
        f"'{shown(name)}' returned {kind}; a factory must return an nn.Module for weights to go into."
    )


def _fill(
    model: nn.Module,
    parts: Mapping[str, str | Path],
    directory: Path | None,
    strip_prefix: str | None,
) -> tuple[tuple[FileRecord, ...], str, tuple[str, ...]]:
    """Load each file into its sub-module; every file is read and checked before anything is copied."""
    _check_parts(model, parts)
    plans: list[Plan] = []
    files: list[FileRecord] = []
    formats: dict[str, None] = {}
    notes: list[str] = []
    stamps: list[_Stamp] = []
    for name, place in parts.items():
        path = (directory or Path()) / Path(place).expanduser()
        weights, seen = _read(path, f"checkpoint of {name}" if name else "checkpoint")
        where = f"{path} for {name}" if name else str(path)
        plan = plan_load(
            model.get_submodule(name), weights.tensors, strip_prefix=strip_prefix, where=where
        )
        plans.append(plan)
        files += weights.files
        formats[weights.format] = None
        notes += [*weights.notes, *plan.notes]
        stamps += seen
    # Mapped values are read from the file only when they are copied, so that it must be unchanged before and after.
    _check_unchanged(stamps)
    for plan in plans:
        plan.carry_out()
    _check_unchanged(stamps)
    uncovered = _uncovered(model, parts)
    if uncovered:
        notes.append(
            f"{len(uncovered)} weights are in no file and keep the values that the factory gave them: {listed(uncovered, 3)}."
        )
    return tuple(files), ", ".join(formats), tuple(notes)


def _check_parts(model: nn.Module, parts: Mapping[str, Any]) -> None:
    if not parts:
        raise CheckpointError(
            "The checkpoint names no file; give at least one, as sub-module: file."
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    unknown = [name for name in parts if name not in modules]
    if unknown:
        children = [name for name, _ in model.named_children()]
        raise CheckpointError(
            f"The model has no sub-module {listed(unknown, 3)}, for which the checkpoint names a file;"
            f" its sub-modules are {listed(children, 6, 180) or 'none'}."
        )
    for name in parts:
        inside = [
            other for other in parts if other != name and (not name or other.startswith(f"{name}."))
        ]
        if inside:
            raise CheckpointError(
                f"The checkpoint names a file for {shown(name) or 'the whole model'} and one for {shown(inside[0])}"
                " inside it; name one file for each weight."
            )


def _uncovered(model: nn.Module, parts: Mapping[str, Any]) -> list[str]:
    covered = {
        id(value)
        for name in parts
        for value in model.get_submodule(name).state_dict(keep_vars=True).values()
    }
    return [
        name for name, value in model.state_dict(keep_vars=True).items() if id(value) not in covered
    ]


def _read(path: Path, role: str) -> tuple[WeightsFile, list[_Stamp]]:
    """Read and check one checkpoint; every file is hashed before it is read."""
    file = find_weights(path)
    kind = recognise(file)
    if FORMATS[kind].advice:
        raise refusal(file, kind)
    try:
        return _read_known(file, kind, role)
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # whatever a damaged file makes of its reader, it is one sentence here
        raise CheckpointError(
            f"{shown(file)} cannot be read ({type(error).__name__}); copy or download it again."
        ) from error


def _read_known(file: Path, kind: str, role: str) -> tuple[WeightsFile, list[_Stamp]]:
    stamps = [_stamp(file)]
    records = [_record(file, role)]
    notes: tuple[str, ...] = ()
    words = "safetensors"
    if kind == "safetensors":
        tensors = read_safetensors(file)
        notes = check_tensors(file, tensors)
    elif kind == "safetensors index":
        places, names = read_index(file)
        for name in names:
            recognise(file.parent / name)  # says so where a shard is missing
            stamps.append(_stamp(file.parent / name))
            records.append(_record(file.parent / name, role))
        tensors = read_shards(file, places)
        notes = check_tensors(file, tensors)
        words = f"safetensors in {len(names)} shards"
    else:
        loaded, sizes = read_torch_zip(file)
        found = find_state_dict(file, loaded)
        del loaded  # the optimizer's state and the like
        tensors, notes = found.tensors, found.notes
        words = ", ".join(
            ["torch zip, weights only", found.writer]
            if found.writer
            else ["torch zip, weights only"]
        )
        notes += check_tensors(file, tensors)
        check_storages(file, tensors, sizes)
    return WeightsFile(tensors, words, tuple(records), notes), stamps


def _record(path: Path, role: str) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(path=str(path), sha256=digest, bytes=file.tell(), role=role)


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return _Stamp(path, status.st_size, status.st_mtime_ns, status.st_ino)


def _check_unchanged(stamps: list[_Stamp]) -> None:
    for stamp in stamps:
        if not stamp.path.exists() or _stamp(stamp.path) != stamp:
            raise CheckpointError(
                f"{shown(stamp.path)} changed while it was read; wait until it is written and load it again."
            )


def _code(function: Callable[..., Any]) -> tuple[FileRecord, ...]:
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # a built-in
        return ()
    return (_record(Path(source), "code"),) if source and Path(source).is_file() else ()


def _name(factory: str | Callable[..., Any]) -> str:
    return (
        factory
        if isinstance(factory, str)
        else getattr(factory, "__qualname__", type(factory).__name__)
    )
