"""The Python files that an audit file's factories live in, found without running any of them.

A factory named ``train:build`` lives in ``train.py``; what that imports from beside it counts too, as far as its ``import``
statements say. Installed packages and the standard library do not: they are the machine's, and the record names their versions.
"""

from __future__ import annotations

import ast
import importlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import mmaudit
from mmaudit.checkpoint.wording import shown
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import AuditSpec, CustomMask

__all__ = ["factories", "python_files"]

_MOST_FILES = 2000
_INSTALLED = {
    Path(path).resolve()
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
} | {Path(mmaudit.__file__).resolve().parent}


def factories(spec: AuditSpec) -> list[str]:
    """Every import string of an audit file, in order and once."""
    sources = [spec.data.test, spec.data.train, spec.data.validation]
    found: list[str] = []
    if spec.model is not None:
        found.append(spec.model.factory)
        # What mmaudit builds around a model of the user's (mla, unimodal) names the user's own factory as an argument.
        inner = spec.model.args.get("factory")
        if spec.model.factory.startswith("mmaudit.") and isinstance(inner, str):
            found.append(inner)
    found += [source.factory for source in sources if source is not None and source.factory]
    for modality in spec.modalities.values():
        found += [m.function for m in modality.mask.values() if isinstance(m, CustomMask)]
    return list(dict.fromkeys(found))


def python_files(references: Iterable[str], directory: Path, folder: Path) -> list[Path]:
    """The files that import strings lead to, and what these import from beside them.

    Args:
        references: ``package.module:callable``.
        directory: The audit file's own folder: its modules come first.
        folder: The current folder: its modules come last.

    Returns:
        Absolute paths, sorted.

    Raises:
        SpecError: If a module is not found, or leads to too many files.
    """
    importlib.invalidate_caches()
    search = _Search(directory, folder)
    files: dict[Path, None] = {}
    waiting: list[tuple[str, Path]] = []

    def take(specs: Sequence[ModuleSpec], *, always: bool) -> None:
        for spec in specs:
            file = _file(spec)
            if file is None or file in files or not (always or _is_owners(file)):
                continue
            files[file] = None
            if len(files) > _MOST_FILES:
                raise SpecError(
                    f"the factories lead to more than {_MOST_FILES} Python files of your own; name modules that import less"
                )
            if _is_owners(file):
                waiting.append((spec.name if _is_package(spec) else spec.parent or "", file))

    for reference in references:
        module = reference.partition(":")[0]
        specs = search.find(module)
        if len(specs) != module.count(".") + 1:
            raise SpecError(
                f"'{shown(reference)}': there is no module '{shown(module)}' in {shown(directory)}, in {shown(folder)} or among "
                "the installed packages; register the audit file from the folder in which 'mmaudit audit' finds it"
            )
        take(specs, always=True)
    while waiting:
        package, file = waiting.pop()
        for name in _imports(file, package):
            take(search.find(name), always=False)
    return sorted(files)


class _Search:
    """Finds modules as an audit does: the audit file's folder, then what is installed, then the current folder."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self._first, self._last = [str(directory)], [str(folder)]
        self._known: dict[str, list[ModuleSpec]] = {}

    def find(self, name: str) -> list[ModuleSpec]:
        """Specs of a dotted module and of the packages it is in, as far down as they exist; none is imported."""
        if name not in self._known:
            parent, _, _ = name.rpartition(".")
            above = self.find(parent) if parent else []
            whole = len(above) == name.count(".")
            spec = self._one(name, above[-1] if above else None) if whole else None
            self._known[name] = [*above, spec] if spec is not None else above
        return self._known[name]

    def _one(self, name: str, parent: ModuleSpec | None) -> ModuleSpec | None:
        if parent is not None:
            places = parent.submodule_search_locations
            return None if places is None else PathFinder.find_spec(name, list(places))
        found = PathFinder.find_spec(name, self._first)
        # A folder without __init__.py counts only where no regular module has the name.
        if found is not None and found.origin is not None:
            return found
        spec = None
        for finder in sys.meta_path:
            # Finders of editable installs are asked too; none of them imports a top-level module to find it.
            spec = finder.find_spec(name, None)
            if spec is not None:
                break
        if spec is None or spec.origin is None:
            last = PathFinder.find_spec(name, self._last)
            spec = last if last is not None and (spec is None or last.origin) else spec
        return spec if spec is not None and (spec.origin or found is None) else found


def _imports(file: Path, package: str) -> Iterator[str]:
    """Dotted names that a file imports, each of them perhaps a module and perhaps a name in one."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
            base = base if node.level else node.module or ""
            if base:
                yield base
                for alias in node.names:
                    yield f"{base}.{alias.name}"


def _file(spec: ModuleSpec) -> Path | None:
    if not spec.has_location or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).resolve()


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _is_owners(file: Path) -> bool:
    return not any(folder in _INSTALLED for folder in file.parents)
