"""The audit files that the owner of a workspace allows its jobs to run, each as it was when it was allowed.

A job runs the owner's code with the owner's rights, and it is started from a browser. So the browser names a registered file by
its id, and the file runs only while it and the Python files behind it are, byte for byte, those that were registered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from mmaudit.checkpoint.wording import shown
from mmaudit.exceptions import MMAuditError, RecordError, SpecError
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.lease import locked
from mmaudit.jobs.sources import factories, python_files
from mmaudit.jobs.states import now
from mmaudit.masking.spec import AuditSpec, read_spec
from mmaudit.report.store import write_json_atomic

__all__ = ["REGISTRY_NAME", "RegisteredFile", "identifier", "register", "registered", "unregister"]

REGISTRY_NAME = "registered.json"
_LOCK = ".registered.lock"
_MOST_FILES = 1000
_LARGEST_REGISTRY = 100_000_000


class RegisteredFile(BaseModel):
    """An audit file that jobs may run.

    Attributes:
        id: What the browser calls it.
        title: What people call it.
        path: The audit file, absolute.
        folder: The folder it was registered from, whose modules it may import.
        sha256: Of the audit file and of everything in ``files``.
        files: Path -> SHA-256 of the audit file and of the Python files its factories live in.
        splits: Splits of data that it names.
        added: When it was registered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    path: Path
    folder: Path
    sha256: str
    files: dict[str, str]
    splits: tuple[str, ...]
    added: AwareDatetime

    def unchanged(self) -> str | None:
        """``None`` if the file is what was registered, else the sentence that says what has changed."""
        again = "look at the change and register it again (mmaudit register)"
        try:
            _, files = _files_behind(self.path, self.folder)
        except (MMAuditError, OSError) as error:
            reason = " ".join(str(error).split())
            return f"{self.path.name} can no longer be used as it was registered: {reason}; {again}"
        for path, sha256 in self.files.items():
            if path not in files:
                return f"{self.path.name} no longer leads to {path}, as it did when it was registered; {again}"
            if files[path] != sha256:
                return f"{path} has changed since {self.path.name} was registered; {again}"
        for path in files:
            if path not in self.files:
                return f"{self.path.name} now leads to {path} too, which it did not when it was registered; {again}"
        return None


class _Registry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    files: tuple[RegisteredFile, ...] = ()


def register(workspace: Path | str, audit_file: Path | str) -> RegisteredFile:
    """Allow the jobs of a workspace to run an audit file as it is now.

    Nothing of it is run or imported. Registering a file again takes the place of what was registered before.

    Args:
        workspace: Folder of the workspace; made if missing.
        audit_file: The audit file. What its factories import may also lie in the current folder, as for ``mmaudit audit``.

    Raises:
        SpecError: If it is no audit file, or a factory's module is not found.
        JobError: If the registry is damaged or full.
        RecordError: If the registry cannot be written.
    """
    workspace, path = Path(workspace), Path(audit_file)
    if path.suffix not in (".yaml", ".yml"):
        raise SpecError(f"expected an audit file that ends in .yaml, found {path}")
    path, folder = path.resolve(), Path.cwd()
    spec, files = _files_behind(path, folder)
    if spec.data.train is None:
        raise SpecError(
            f"{path.name} names no data.train, and retraining needs training data: add it, then register the file again"
        )
    new = RegisteredFile(
        id=identifier(str(path)),
        title=(spec.title or path.stem)[:200],
        path=path,
        folder=folder,
        sha256=_digest(json.dumps(files, sort_keys=True).encode()),
        files=files,
        splits=tuple(
            name for name in ("test", "train", "validation") if getattr(spec.data, name) is not None
        ),
        added=now(),
    )
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot make {workspace}: {error.strerror or error}") from error
    with locked(workspace / _LOCK):
        others = [file for file in registered(workspace) if file.id != new.id]
        if len(others) >= _MOST_FILES:
            raise JobError(f"{workspace} has {_MOST_FILES} registered files already")
        _write(workspace, [*others, new])
    return new


def unregister(workspace: Path | str, file_id: str) -> None:
    """Allow a registered file no longer; jobs that wait for it will fail.

    Raises:
        JobError: If there is none of this id.
    """
    workspace = Path(workspace)
    with locked(workspace / _LOCK):
        files = registered(workspace)
        left = [file for file in files if file.id != file_id]
        if len(left) == len(files):
            raise JobError(f"no registered file has the id '{shown(file_id, 40)}'")
        _write(workspace, left)


def registered(workspace: Path | str) -> list[RegisteredFile]:
    """The audit files of a workspace, in the order of their registration.

    Raises:
        JobError: If the registry is damaged.
    """
    path = Path(workspace) / REGISTRY_NAME
    again = f"remove {path} and register the audit files again"
    try:
        if path.stat().st_size > _LARGEST_REGISTRY or not path.is_file():
            raise JobError(f"{REGISTRY_NAME} is no registry; {again}")
        return list(_Registry.model_validate(json.loads(path.read_bytes())).files)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JobError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, ValidationError):
        raise JobError(f"{REGISTRY_NAME} is damaged; {again}") from None


def identifier(text: str) -> str:
    """26 characters of ``a-z2-7`` that stand for a text.

    Example:
        >>> identifier("a"), len(identifier(""))
        ('zklycewkdo64v6wcggzzui64jw', 26)
    """
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:26]


def _files_behind(path: Path, folder: Path) -> tuple[AuditSpec, dict[str, str]]:
    """The spec, and path -> SHA-256 of the audit file and the Python files behind it."""
    spec = read_spec(path, AuditSpec)
    assert isinstance(spec, AuditSpec)
    directory = path.parent if spec.directory is None else (path.parent / spec.directory).resolve()
    behind = python_files(factories(spec), directory, folder)
    try:
        return spec, {str(file): _digest(file.read_bytes()) for file in [path, *behind]}
    except OSError as error:
        raise SpecError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(workspace: Path, files: list[RegisteredFile]) -> None:
    write_json_atomic(
        workspace / REGISTRY_NAME, _Registry(files=tuple(files)).model_dump(mode="json")
    )
    # It decides what code may be started from a browser.
    os.chmod(workspace / REGISTRY_NAME, 0o600)  # noqa: PTH101
