"""Loads what runs code when it is loaded, for a user who said that the file is to be trusted.

The only module of mmaudit that unpickles or runs a foreign program. It is reached with ``trust=True`` alone, names the file
and what is in it on the log before anything runs, and returns that sentence for the record. Trust covers code, not
damage: archives are checked as always.
"""

from __future__ import annotations

import importlib
import inspect
import io
import logging
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.averages import AVERAGE_KEYS
from mmaudit.checkpoint.formats import FORMATS, refusal
from mmaudit.checkpoint.importing import importable
from mmaudit.checkpoint.model import unwrapped
from mmaudit.checkpoint.named_globals import told
from mmaudit.checkpoint.old_modules import completed
from mmaudit.checkpoint.pickled_names import names_in_file
from mmaudit.checkpoint.programs import Program, exported_model, scripted_model
from mmaudit.checkpoint.stand_ins import StandIn, stand_in, stands_in
from mmaudit.checkpoint.state_dict import WEIGHT_KEYS, Wanted, holds_weights
from mmaudit.checkpoint.torch_zip import check_program, foreign_names
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["Trusted", "load_trusted"]

_log = logging.getLogger("mmaudit")
_DEEPEST = 4
_METADATA = "torch.distributed.checkpoint."


class Trusted(NamedTuple):
    """What a trusted file held."""

    value: Any
    """A module, or containers of tensors in which modules have become their state dicts."""
    words: str
    """The format, for the record."""
    notes: tuple[str, ...]
    """Sentences for the record; the first says what was trusted."""


def load_trusted(
    path: Path,
    kind: str,
    *,
    weights: Wanted = "model",
    directory: Path | None = None,
    home: Any = None,
) -> Trusted:
    """Load a file by running what is in it.

    Args:
        path: The file.
        kind: Its format, one that is loaded where it is trusted.
        weights: Which of several modules in it: the ``model``, or its average (``ema``).
        directory: Folder that its classes may be imported from.
        home: Where classes of ``__main__`` are looked for, usually the factory's module.

    Returns:
        What it held. TorchScript comes as a :class:`~mmaudit.checkpoint.programs.ScriptedModel`, ``.pt2`` unflattened.

    Raises:
        CheckpointError: If it is damaged, or cannot be loaded here; loading is tried once.
    """
    if not FORMATS[kind].trusted and kind != "torch zip":
        raise refusal(path, kind)
    names = _checked(path, kind)
    if any(name.startswith(_METADATA) for name in names):
        raise refusal(path, "distributed checkpoint")
    what = {"torchscript": "a TorchScript program", "pt2": "an exported program (.pt2)"}.get(
        kind, "a pickle"
    )
    if kind in ("torchscript", "pt2") and weights == "ema":
        raise _one_set(path, what)
    inside = told(names, 6, 240)
    inside = f" that names {inside}" if inside else ""
    said = f"Trusted as you said: {shown(path)} is {what}{inside}; loading it runs code."
    _log.warning(said)
    absent: dict[str, type[StandIn]] = {}
    pickling = _pickle_module(path, directory, home, absent)
    loaders: dict[str, Callable[[], Any]] = {
        "torchscript": lambda: scripted_model(torch.jit.load(str(path), map_location="cpu")),
        "pt2": lambda: exported_model(torch.export.load(str(path))),
        "pickle": lambda: _plain_pickle(path, pickling),
    }
    value = _once(path, directory, loaders.get(kind, lambda: _torch_pickle(path, pickling)))
    if isinstance(value, Program):
        words = "TorchScript" if kind == "torchscript" else "exported program (.pt2)"
        return Trusted(value.model, words, (said, *value.notes))
    found = _from_pickle(path, value, weights, absent)
    unchecked = f"{shown(path.name, 60)} has no checksums, so that damage would not be noticed."
    notes = (said, *([unchecked] if kind != "torch zip" else []), *found.notes)
    return found._replace(notes=notes)


def _from_pickle(
    path: Path, value: Any, weights: Wanted, absent: Mapping[str, type[StandIn]]
) -> Trusted:
    """The model or the weights in what was unpickled."""
    chosen, trail = _module_in(path, unwrapped(value), weights)
    arrays = False
    if not isinstance(chosen, nn.Module) and not _any_of(Tensor, chosen, _DEEPEST):
        # Only where there are no tensors: beside them, arrays are metrics and the like.
        chosen = _with_tensors(chosen, _DEEPEST)
        arrays = _any_of(Tensor, chosen, _DEEPEST)
    missing = stands_in(chosen)
    if absent and isinstance(chosen, dict):
        weightless = not any(holds_weights(part) for part in (chosen, *chosen.values()))
        missing = next(iter(absent.values())) if weightless else None
    if missing is not None:
        raise CheckpointError(
            f"{shown(path)} needs {shown(missing.names, 80)}, {missing.reason}; put the code it was saved with beside the audit"
            " file."
        )
    notes = []
    if arrays:
        notes.append(f"Took the NumPy arrays of {shown(path.name, 60)} for tensors.")
    if absent:
        notes.append(
            f"Objects of classes that are not here were left empty: {listed(absent, 4)}; no weights are in them."
        )
    if not isinstance(chosen, nn.Module):
        return Trusted(chosen, "pickle", tuple(notes))
    added = completed(chosen)
    if added:
        notes.append(
            f"Attributes that newer versions of torch need were added with their defaults: {listed(added, 3)}."
        )
    if trail:
        notes.append(f"Took the module under '{shown(trail)}' of {shown(path.name, 60)}.")
    return Trusted(chosen, "pickled module", tuple(notes))


def _checked(path: Path, kind: str) -> tuple[str, ...]:
    """Check the archive, and name what a pickle in it would import."""
    if kind == "torch zip":
        return foreign_names(path)
    if kind in ("torchscript", "pt2"):
        check_program(path)
        return ()
    return names_in_file(path, kind)


def _once(path: Path, directory: Path | None, load: Callable[[], Any]) -> Any:
    try:
        with importable(directory), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except CheckpointError:
        raise
    except (Exception, SystemExit) as error:
        reason = shown(" ".join(str(error).split()), 140).rstrip(".")
        raise CheckpointError(
            f"{shown(path)} was trusted and yet cannot be loaded ({type(error).__name__}: {reason}); check that the code and"
            " libraries it was saved with are here."
        ) from error


def _torch_pickle(path: Path, pickling: Any) -> Any:
    with path.open("rb") as file:
        # latin1 reads every string of Python 2; those of Python 3 say their encoding themselves.
        return torch.load(
            file, map_location="cpu", weights_only=False, pickle_module=pickling, encoding="latin1"
        )


def _plain_pickle(path: Path, pickling: Any) -> Any:
    with path.open("rb") as file:
        return pickling.Unpickler(file, encoding="latin1").load()


def _pickle_module(
    path: Path, directory: Path | None, home: Any, absent: dict[str, type[StandIn]]
) -> Any:
    """What ``torch.load`` takes for the pickle module: classes of scripts are found, absent ones get a stand-in."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("torch.storage", "_load_from_bytes"):
                return _storage_on_cpu
            if module == "__main__":
                return _from_script(path, name, directory, home)
            try:
                return super().find_class(module, name)
            except ModuleNotFoundError as error:
                place = shown(directory) if directory else "the current folder"
                reason = (
                    f"and the module '{shown(error.name, 60)}' is neither in {place} nor installed"
                )
            except AttributeError:
                reason = "which its module does not have"
            return absent.setdefault(f"{module}.{name}", stand_in(module, name, reason))

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(Unpickler=Unpickler, load=load, __name__="pickle")


def _storage_on_cpu(content: bytes) -> Any:
    """What plain pickles of tensors call, for machines without the GPU they were saved on."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)


def _from_script(path: Path, name: str, directory: Path | None, home: Any) -> Any:
    """A class that was pickled by the script that defined it."""
    main = importlib.import_module("__main__")
    for place in (home, main):
        value: Any = place
        for part in name.split("."):
            value = getattr(value, part, None)
        # Of the running program only classes: a script's functions are not what its pickles name.
        if value is not None and (place is not main or inspect.isclass(value)):
            return value
    where = f" in {shown(directory)}" if directory is not None else ""
    raise CheckpointError(
        f"{shown(path)} names __main__.{shown(name, 60)}, which the script that saved it defined; put its definition into a"
        f" module{where} and name a factory there ('module:function')."
    )


def _any_of(kind: type, value: Any, depth: int) -> bool:
    """Whether dictionaries hold a value of a kind."""
    if isinstance(value, dict):
        return depth > 0 and any(_any_of(kind, part, depth - 1) for part in value.values())
    return isinstance(value, kind)


def _with_tensors(value: Any, depth: int) -> Any:
    """Dictionaries with tensors in place of NumPy arrays of numbers."""
    if isinstance(value, dict) and depth:
        return {key: _with_tensors(part, depth - 1) for key, part in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    try:
        # A copy of its own: arrays may be read-only, of another byte order or reversed, which tensors cannot be.
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):  # text, objects and types that torch does not have
        return value


def _one_set(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(path)} is {what} and holds one set of weights; leave out 'weights: ema'."
    )


def _module_in(path: Path, value: Any, weights: Wanted) -> tuple[Any, str]:
    """The one module in what was loaded, with the way there; else containers, with state dicts in place of modules."""
    if isinstance(value, nn.Module):
        if weights == "ema":
            raise _one_set(path, f"a pickled {shown(type(value).__name__, 40)}")
        return value, ""
    if isinstance(value, dict):
        modules = {key: part for key, part in value.items() if isinstance(part, nn.Module)}
        wanted = AVERAGE_KEYS if weights == "ema" else WEIGHT_KEYS
        names = [key for key in wanted if key in modules]
        if not names and weights == "model" and len(modules) == 1:
            names = [next(iter(modules))]
        if names:
            return unwrapped(modules[names[0]]), str(names[0])
    return _plain_state(value, _DEEPEST), ""


def _plain_state(value: Any, depth: int) -> Any:
    if isinstance(value, nn.Module):
        return dict(unwrapped(value).state_dict())
    if depth and isinstance(value, dict):
        return {key: _plain_state(part, depth - 1) for key, part in value.items()}
    return value
