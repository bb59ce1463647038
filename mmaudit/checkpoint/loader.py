"""From a checkpoint to a model that can be audited: recognise, check, read, build, load.

Weights are data and are read as such (:mod:`mmaudit.checkpoint.reading`); a checkpoint that holds the whole model needs no
factory (:mod:`mmaudit.checkpoint.whole`). Code is code: the factory that builds the model is the owner's own.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import nn

from mmaudit.checkpoint.fitting import Plan, load_into, plan_load
from mmaudit.checkpoint.importing import call_factory, import_callable, importable
from mmaudit.checkpoint.precision import in_float32
from mmaudit.checkpoint.reading import (
    Expects,
    Stamp,
    WeightsFile,
    check_unchanged,
    file_record,
    read_stamped,
    read_weights,
)
from mmaudit.checkpoint.state_dict import Wanted
from mmaudit.checkpoint.whole import open_whole
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError, ModelError, SpecError
from mmaudit.masking.reading import checkpoint_paths
from mmaudit.masking.spec import AuditSpec, read_spec
from mmaudit.report.schema import FileRecord

__all__ = [
    "IN_NO_FILE",
    "LoadedCheckpoint",
    "WeightsFile",
    "call_factory",
    "import_callable",
    "importable",
    "load_checkpoint",
    "load_into",
    "read_weights",
]

IN_NO_FILE = "are in no file and keep the values that the factory gave them"
"""What a note says of weights that no checkpoint brought."""


class LoadedCheckpoint(NamedTuple):
    """A model ready to be audited, and what the record says about where it came from."""

    model: Callable[..., Any]
    """An ``nn.Module`` on the CPU in eval mode, or whatever callable came in."""
    files: tuple[FileRecord, ...]
    format: str
    notes: tuple[str, ...]


def load_checkpoint(
    checkpoint: str | Path | Mapping[str, str | Path] | nn.Module | Callable[..., Any] | None,
    factory: str | Callable[..., nn.Module] | None = None,
    *,
    args: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    strip_prefix: str | None = None,
    trust: bool = False,
    weights: Wanted = "model",
) -> LoadedCheckpoint:
    """Build a model and put a checkpoint's weights into it, strictly.

    Args:
        checkpoint: A file or directory of weights; a mapping of sub-module -> file; an audit file (``.yaml``), which names
            model and checkpoint itself; a module or callable in memory, which is passed through as it is; ``None`` for the
            model as the factory builds it.
        factory: ``package.module:callable`` or a callable that returns the module; a module gets the weights in place. Left out
            where the checkpoint holds the whole model: ONNX, a Hugging Face directory, what is trusted.
        args: Keyword arguments of the factory.
        directory: Where relative paths begin, and importable for the factory; an audit file's own folder by default.
        strip_prefix: Prefix of the checkpoint's keys; left out: known wrappers' prefixes are found and named.
        trust: Load formats that run code when they are loaded: pickles with more than weights, TorchScript, ``.pt2``. What would
            run is named on the log (``mmaudit``) before, and in the notes. Without it they are refused.
        weights: The ``model``'s, or their exponential moving average (``ema``); an audit file's own choice counts too.

    Returns:
        The model in eval mode, the files behind it with their SHA-256, the format in words, and sentences for the record.
        A module passed through keeps its mode.

    Raises:
        CheckpointError: If the checkpoint is refused or does not fit the model; nothing is then loaded.
        SpecError: If the audit file or the factory's import string or arguments are wrong.
        ModelError: If the factory raises, or does not return what is needed.
    """
    directory = None if directory is None else Path(directory)
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
        return _load_audit_file(
            Path(checkpoint), factory, directory, strip_prefix, trust=trust, weights=weights
        )
    if strip_prefix is not None and not isinstance(strip_prefix, str):
        raise SpecError(
            f"strip_prefix is {shown(repr(strip_prefix), 40)}; expected the text that keys begin with."
        )
    if args is not None and not isinstance(args, Mapping):
        raise SpecError(
            f"args is {shown(repr(args), 40)}; expected a mapping of argument to value."
        )
    try:
        checkpoint = checkpoint_paths(checkpoint)
    except ValueError as error:
        raise CheckpointError(f"The checkpoint is not readable: {error}.") from None
    if weights not in ("model", "ema"):
        raise SpecError(f"weights is {weights!r}; expected 'model' or 'ema'.")
    if factory is None:
        return _load_whole(checkpoint, args, directory, trust=trust, weights=weights)
    model, code = _build(factory, args, directory)
    if checkpoint is None:
        if isinstance(model, nn.Module):
            model.eval()
        return LoadedCheckpoint(model, code, "built by the factory, no checkpoint", ())
    if not isinstance(model, nn.Module):
        raise _no_module(model, _name(factory))
    parts: dict[str, Any] = (
        dict(checkpoint) if isinstance(checkpoint, Mapping) else {"": checkpoint}
    )
    reader = _Reader(trust, weights, directory, _home(factory, directory))
    files, formats, notes = _fill(model, parts, strip_prefix, reader)
    model.eval()
    return LoadedCheckpoint(model, (*files, *code), formats, notes)


def _load_whole(
    checkpoint: Any, args: Any, directory: Path | None, *, trust: bool, weights: Wanted
) -> LoadedCheckpoint:
    """A checkpoint without a factory."""
    if checkpoint is None or isinstance(checkpoint, Mapping):
        what = "Files of sub-modules need" if checkpoint else "Without a checkpoint there must be"
        raise SpecError(f"{what} a factory that builds the model ('package.module:callable').")
    if args:
        raise SpecError("Arguments are those of a factory, and there is none; leave args out.")
    path = (directory or Path()) / Path(checkpoint).expanduser()
    opened = open_whole(path, trust=trust, weights=weights, directory=directory)
    own = type(opened.model)
    ours = own.__module__.partition(".")[0] in ("mmaudit", "torch", "transformers")
    files = opened.files if ours else (*opened.files, *_code(own))
    notes = opened.notes
    if opened.format == "pickled module, trusted" and isinstance(opened.model, nn.Module):
        notes = (*notes, *in_float32(opened.model))
    return LoadedCheckpoint(opened.model, files, opened.format, notes)


def _load_audit_file(
    path: Path,
    factory: Any,
    directory: Path | None,
    strip_prefix: str | None,
    *,
    trust: bool,
    weights: Wanted,
) -> LoadedCheckpoint:
    if factory is not None:
        raise SpecError(
            f"{shown(path)} is an audit file and names its own model; leave the factory out."
        )
    # Hashed first: the record must name the bytes that were read, or older ones.
    record = file_record(path, "audit file") if path.is_file() else None
    spec = read_spec(path, AuditSpec)
    if not isinstance(
        spec, AuditSpec
    ):  # for the type checker: read_spec returns what it is asked for
        raise SpecError(f"{shown(path)} is no audit file.")
    loaded = load_checkpoint(
        spec.checkpoint,
        None if spec.model is None else spec.model.factory,
        args=None if spec.model is None else spec.model.args,
        directory=directory or path.parent,
        strip_prefix=spec.strip_prefix if strip_prefix is None else strip_prefix,
        trust=trust,
        weights=spec.weights if weights == "model" else weights,
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
    if isinstance(model, nn.Module) and any(
        tensor.is_meta for tensor in (*model.parameters(), *model.buffers())
    ):
        raise ModelError(
            f"'{_name(factory)}' built a model on the meta device, which holds no numbers; build it on the CPU, without "
            "torch.device('meta')."
        )
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


class _Reader(NamedTuple):
    """How files of weights are read."""

    trust: bool
    weights: Wanted
    directory: Path | None
    home: Any

    def read(self, path: Path, role: str, expects: Expects) -> tuple[WeightsFile, list[Stamp]]:
        return read_stamped(
            path,
            role,
            expects=expects,
            trust=self.trust,
            weights=self.weights,
            directory=self.directory,
            home=self.home,
        )


def _home(factory: str | Callable[..., Any], directory: Path | None) -> Any:
    """The names of the factory's module: where a script has become a module, its classes are there now."""
    function = import_callable(factory, directory) if isinstance(factory, str) else factory
    names = getattr(inspect.unwrap(function), "__globals__", None)
    return (
        SimpleNamespace(**names)
        if names is not None
        else sys.modules.get(getattr(function, "__module__", ""))
    )


def _fill(
    model: nn.Module,
    parts: Mapping[str, str | Path],
    strip_prefix: str | None,
    reader: _Reader,
) -> tuple[tuple[FileRecord, ...], str, tuple[str, ...]]:
    """Load each file into its sub-module; every file is read and checked before anything is copied."""
    _check_parts(model, parts)
    plans: list[Plan] = []
    files: list[FileRecord] = []
    formats: dict[str, None] = {}
    notes: list[str] = []
    stamps: list[Stamp] = []
    for name, place in parts.items():
        role = f"checkpoint of {name}" if name else "checkpoint"
        path = (reader.directory or Path()) / Path(place).expanduser()
        where = f"{path} for {name}" if name else str(path)
        # First with keys and shapes alone: what does not fit is refused before gigabytes are read.
        fit = partial(plan_load, model.get_submodule(name), strip_prefix=strip_prefix, where=where)
        weights, seen = reader.read(path, role, fit)
        plan = fit(weights.tensors)
        plans.append(plan)
        files += weights.files
        formats[weights.format] = None
        notes += [*weights.notes, *plan.notes]
        stamps += seen
    # Mapped values are read from the file only when they are copied, so that it must be unchanged before and after.
    check_unchanged(stamps)
    for plan in plans:
        plan.carry_out()
    check_unchanged(stamps)
    uncovered = _uncovered(model, parts)
    if uncovered:
        notes.append(f"{len(uncovered)} weights {IN_NO_FILE}: {listed(uncovered, 3)}.")
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


def _code(function: Callable[..., Any]) -> tuple[FileRecord, ...]:
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # a built-in
        return ()
    return (file_record(Path(source), "code"),) if source and Path(source).is_file() else ()


def _name(factory: str | Callable[..., Any]) -> str:
    return (
        factory
        if isinstance(factory, str)
        else getattr(factory, "__qualname__", type(factory).__name__)
    )
