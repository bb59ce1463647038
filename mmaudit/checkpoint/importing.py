"""Imports what an audit file names as ``package.module:callable``, and calls it.

Such code is the owner's own and runs as such. Its folder is importable while it is imported, called or iterated, and not
otherwise. Two audits may both have a ``train.py``: each folder gets its own modules, whatever else has been imported under
the same name, and what had the name before has it again afterwards.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import ModelError, SpecError

__all__ = ["call_factory", "import_callable", "importable"]

_displaced: dict[Path, dict[str, ModuleType]] = {}
"""Folder -> its modules whose names belong to others meanwhile. They stay the same objects, so that classes keep identity."""

_left_by: dict[str, Path] = {}
"""Top-level module -> the folder it was imported from, so that another folder does not find it."""


@contextmanager
def importable(directory: Path | None, wanted: str = "") -> Iterator[None]:
    """Make a folder importable, its own modules before all others.

    Afterwards ``sys.path`` is as before. A module of the folder stays in ``sys.modules`` unless something else had its name.
    Enter it too around anything that may import or pickle by name later, such as iterating a DataLoader with workers.

    Args:
        directory: The folder; with ``None`` nothing is done.
        wanted: Top-level module that the folder may provide even if the standard library has one of this name.
    """
    if directory is None:
        yield
        return
    folder = directory.resolve()
    importlib.invalidate_caches()
    before = list(sys.path)
    aside: dict[str, ModuleType] = {}
    for name in _shadowed(folder, wanted):
        aside |= {full: sys.modules.pop(full) for full in _family(name)}
    sys.modules.update(_displaced.pop(folder, {}))
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        # Code of the folder may have added paths of its own: they stay, the folder goes.
        added = [entry for entry in sys.path if entry not in before and entry != str(folder)]
        sys.path[:] = added + before
        for name in {full.partition(".")[0] for full in aside}:
            for full in _family(name):
                _displaced.setdefault(folder, {})[full] = sys.modules.pop(full)
        for name in {full.partition(".")[0] for full in set(sys.modules) - known}:
            if _is_from(sys.modules.get(name), folder):
                _left_by[name] = folder
        sys.modules.update(aside)


def import_callable(reference: str, directory: Path | None = None) -> Callable[..., Any]:
    """Import what ``package.module:callable`` names.

    Args:
        reference: Module and, after the colon, the callable; dots lead into attributes (``train:AVNet.build``).
        directory: Folder that is importable meanwhile, usually the audit file's own.

    Raises:
        SpecError: If the reference is malformed, or the module or the attribute does not exist or is not callable.
        ModelError: If the module raises while it is imported.
    """
    module_name, colon, attributes = reference.partition(":")
    if not colon or not _is_dotted(module_name) or not _is_dotted(attributes):
        raise SpecError(
            f"'{shown(reference)}' is no import string; expected 'package.module:callable'."
        )
    with importable(directory, module_name.partition(".")[0]):
        module = _import_module(module_name, reference, directory)
        value: Any = module
        for depth, name in enumerate(attributes.split(".")):
            try:
                value = getattr(value, name)
            except AttributeError as error:
                owner = ".".join([module_name, *attributes.split(".")[:depth]])
                near = difflib.get_close_matches(
                    name, [n for n in dir(value) if not n.startswith("_")], 1
                )
                hint = f"did you mean '{near[0]}'?" if near else f"define it in {_place(module)}."
                raise SpecError(f"'{shown(reference)}': {owner} has no '{name}'; {hint}") from error
    if not callable(value):
        raise SpecError(
            f"'{shown(reference)}' is of type {type(value).__name__} and cannot be called; name a function or class."
        )
    return value  # type: ignore[no-any-return]


def call_factory(
    factory: Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    directory: Path | None = None,
) -> Any:
    """Call a factory with keyword arguments, turning its failures into one sentence.

    Args:
        factory: The callable.
        args: Its keyword arguments.
        name: What to call it in messages, usually its import string.
        directory: Folder that is importable meanwhile.

    Raises:
        SpecError: If it does not take these arguments; the message names those it takes.
        ModelError: If it raises.
    """
    name = shown(name or getattr(factory, "__qualname__", type(factory).__name__))
    arguments = dict(args or {})
    _check_arguments(factory, arguments, name)
    with importable(directory):
        try:
            return factory(**arguments)
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"'{name}' raised {_said(error)}; correct it and try again."
            ) from error


def _import_module(module_name: str, reference: str, directory: Path | None) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if module_name == absent or module_name.startswith(f"{absent}."):
            where = (
                f"in {shown(directory)} or among the installed packages"
                if directory
                else "on the import path"
            )
            raise SpecError(
                f"'{shown(reference)}': there is no module '{absent}' {where}; check its name and where it lies."
            ) from error
        raise ModelError(
            f"'{shown(reference)}': importing {module_name} needs the module '{shown(absent)}', which is not installed;"
            " install it where mmaudit runs."
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"'{shown(reference)}': importing {module_name} raised {_said(error)}; correct it and try again."
        ) from error


def _check_arguments(factory: Callable[..., Any], arguments: dict[str, Any], name: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some built-in callables tell nothing
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        allowed = [
            parameter.name + ("" if parameter.default is parameter.empty else "=...")
            for parameter in signature.parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        takes = f"it takes {listed(allowed, 8, 240)}" if allowed else "it takes none"
        raise SpecError(
            f"'{name}' does not take the arguments given ({shown(error)}); {takes}."
        ) from error


def _shadowed(folder: Path, wanted: str) -> set[str]:
    """Top-level modules imported from elsewhere that the folder has itself, or that only another folder has."""
    own = {module.name for module in pkgutil.iter_modules([str(folder)])}
    loaded = {full.partition(".")[0] for full in list(sys.modules)}
    # A folder without __init__.py counts only against another one: regular packages come first, wherever they are.
    own |= {
        name for name in loaded if _is_namespace(sys.modules.get(name)) and (folder / name).is_dir()
    }
    protected = (sys.stdlib_module_names | {"mmaudit", "__main__"}) - {wanted}
    on_path = {Path(entry or ".").resolve() for entry in sys.path}
    foreign = {name for name, other in _left_by.items() if other != folder and other not in on_path}
    return {
        name
        for name in (own | foreign) & loaded
        if name not in protected and not _is_from(sys.modules.get(name), folder)
    }


def _family(name: str) -> list[str]:
    return [full for full in list(sys.modules) if full == name or full.startswith(f"{name}.")]


def _is_namespace(module: ModuleType | None) -> bool:
    return getattr(module, "__file__", None) is None and hasattr(module, "__path__")


def _is_from(module: ModuleType | None, folder: Path) -> bool:
    """Whether a module lies in the folder itself, not in an environment below it."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", None)
    try:
        if isinstance(file, str):
            place = Path(file)
        elif _is_namespace(module):
            place = Path(next(iter(module.__path__))) / "__init__"  # type: ignore[union-attr]
        else:
            return False
        if not isinstance(name, str) or not place.is_absolute():
            return False
        parts = name.count(".") + 1
        is_package = place.stem == "__init__"
        root = place.parents[parts if is_package else parts - 1]
        return root == folder or root.resolve() == folder
    except (StopIteration, IndexError, OSError, TypeError, KeyError):
        return False


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _place(module: ModuleType) -> str:
    return shown(Path(getattr(module, "__file__", None) or module.__name__).name)


def _said(error: BaseException) -> str:
    message = shown(" ".join(str(error).split()), 160).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
