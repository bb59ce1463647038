"""Reads the zip file that ``torch.save`` writes, as data only.

``torch.load`` returns about one damaged file in five silently with wrong values and follows a compressed record to any
size, so the archive is checked first: whole, uncompressed, every checksum right. The pickle inside is read as opcodes, and a
file that needs anything but tensors and plain containers is refused with the names of what it needs. Only then is it
loaded, with ``weights_only=True`` written out: neither the environment nor a process-wide allowlist can widen it, and a
refusal is never tried again in another way.
"""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaudit.checkpoint.formats import TRUST
from mmaudit.checkpoint.named_globals import is_weight_global, told
from mmaudit.checkpoint.pickled_names import MOST_STEPS, UNREAD, TooLongError, names_in_pickle
from mmaudit.checkpoint.safetensors_file import MOST_TENSORS
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["check_program", "check_storages", "foreign_names", "read_torch_zip"]

_LARGEST_PICKLE = 10_000_000
_BYTES_PER_RECORD, _STEPS_PER_RECORD = 400, 60
"""What the description of one tensor takes, with room: about 150 bytes and 40 steps of the pickle."""
_FOLDER = 0x10
"""MS-DOS attribute of a folder."""
_END_OF_ARCHIVE = 22
_LARGEST_CODE = 200_000_000
"""Bytes of compressed records in a program, unpacked; its code is text."""


def read_torch_zip(path: Path) -> tuple[Any, list[int]]:
    """Load a file of ``torch.save`` with ``weights_only=True`` after checking the archive.

    Args:
        path: The file, already recognised as a torch zip.

    Returns:
        What was saved (usually nested dictionaries), its tensors on the CPU and mapped from the file where possible, and
        the sizes in bytes of the storages in the archive, for :func:`check_storages`.

    Raises:
        CheckpointError: If the archive is damaged, compressed or ambiguous, or the pickle needs more than weights.
    """
    sizes, pickled, most = _check_archive(path)
    if pickled is None:
        raise CheckpointError(
            f"{shown(path)} describes its tensors in more than {most.bytes} bytes, far more than they need;"
            " save model.state_dict() alone."
        )
    try:
        names, newer = names_in_pickle(pickled, most=most.steps)
    except TooLongError as error:
        raise CheckpointError(
            f"{shown(path)} describes its tensors in more than {most.steps} steps, far more than they need;"
            " save model.state_dict() alone."
        ) from error
    except Exception as error:  # pickletools raises half a dozen types on what is no pickle
        raise _damaged_description(path) from error
    needed = [name for name in names if not is_weight_global(name)]
    if needed:
        raise CheckpointError(
            f"{shown(path)} holds pickled objects besides weights ({told(needed, 3)}), which would run code when loaded;"
            f" {TRUST}."
        )
    if newer:
        raise CheckpointError(
            f"{shown(path)} was saved with a newer pickle protocol, which cannot be read as data only;"
            " save model.state_dict() with the default protocol of torch.save."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # By name, torch.load takes *.safetensors for another format, and only by name can it map the file.
            if path.name.endswith(".safetensors"):
                with path.open("rb") as file:
                    loaded = torch.load(file, map_location="cpu", weights_only=True)
            else:
                loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)} is a damaged torch file or holds more than weights ({type(error).__name__} while reading it);"
            " save model.state_dict() again."
        ) from error
    return loaded, sizes


def foreign_names(path: Path) -> tuple[str, ...]:
    """Check the archive, and name what its pickle would import and weights never need; empty for a file of weights.

    Raises:
        CheckpointError: If the archive is damaged, compressed or ambiguous.
    """
    _, pickled, most = _check_archive(path)
    if pickled is None:
        return (UNREAD,)
    found: dict[str, None] = {}
    newer = False
    try:
        newer = names_in_pickle(pickled, most=most.steps, found=found).newer
    except TooLongError:
        found[UNREAD] = None
    except Exception as error:  # pickletools raises half a dozen types on what is no pickle
        raise _damaged_description(path) from error
    needed = tuple(name for name in found if not is_weight_global(name))
    return needed or (("a newer pickle protocol",) if newer else ())


def check_program(path: Path) -> None:
    """Check the archive of a TorchScript or exported program: whole, unambiguous, every checksum right.

    Raises:
        CheckpointError: If it is not, or its compressed code is too large.
    """
    damaged = f"{shown(path)} is a damaged zip file"
    again = "copy or download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) != len(entries):
                raise CheckpointError(f"{damaged}: a record appears twice; {again}.")
            unpacked = sum(e.file_size for e in entries if e.compress_type != zipfile.ZIP_STORED)
            if len(entries) > MOST_TENSORS or unpacked > _LARGEST_CODE:
                raise CheckpointError(
                    f"{shown(path)} unpacks to {len(entries)} records and {unpacked} bytes of code; check the file."
                )
            folder = _without_content(entries)
            if folder is not None:
                raise CheckpointError(
                    f"{damaged}: {shown(folder, 60)} is marked as a folder, but holds a record; {again}."
                )
            wrong = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on damaged archives
        raise CheckpointError(
            f"{damaged} ({type(error).__name__} while reading it); {again}."
        ) from error
    if wrong is not None:
        raise CheckpointError(f"{damaged}: the checksum of {shown(wrong, 60)} is wrong; {again}.")


def check_storages(path: Path, tensors: Mapping[str, Tensor], sizes: list[int]) -> None:
    """Check that the tensors' storages are records of the archive, whole.

    A pickle can state any length for a storage; a mapped file would then yield its neighbours' bytes.

    Raises:
        CheckpointError: If more storages of a size are used than the archive has.
    """
    left = Counter(sizes)
    seen: set[int] = set()
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage.nbytes() == 0 or storage.data_ptr() in seen:
            continue
        seen.add(storage.data_ptr())
        left[storage.nbytes()] -= 1
        if left[storage.nbytes()] < 0:
            raise CheckpointError(
                f"{shown(path)} states {storage.nbytes()} bytes for the storage of {shown(key, 60)}, but has no such record;"
                " save model.state_dict() again."
            )


class _Most(NamedTuple):
    """How long the description of the tensors in an archive may be."""

    bytes: int
    steps: int


def _check_archive(path: Path) -> tuple[list[int], bytes | None, _Most]:
    """Check everything that can be checked before loading.

    Returns:
        Sizes of the storages; the pickle, or ``None`` where it is too long; what it was compared with.
    """
    damaged = f"{shown(path)} is a damaged zip file"
    again = "copy or download it again"
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(entries) > MOST_TENSORS:
                raise CheckpointError(
                    f"{shown(path)} holds {len(entries)} records, more than the {MOST_TENSORS} allowed; check the file."
                )
            if len({name.casefold() for name in names}) != len(names):
                raise CheckpointError(f"{damaged}: a record appears twice; {again}.")
            packed = [
                e.filename
                for e in entries
                if e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1
            ]
            if packed or any(entry.compress_size != entry.file_size for entry in entries):
                raise CheckpointError(
                    f"{shown(path)} has compressed records ({listed(packed or names, 1)}), which torch.save never writes;"
                    " unpack it and save model.state_dict() again."
                )
            folder = _without_content(entries)
            if folder is not None:
                raise CheckpointError(
                    f"{damaged}: {shown(folder, 60)} is marked as a folder, but holds a record; {again}."
                )
            # A second archive before or after the first would let two readers see two files.
            size = file.seek(0, 2)
            file.seek(size - _END_OF_ARCHIVE)
            ends_clean = file.read(4) == b"PK\x05\x06"
            if (
                not ends_clean
                or min(entry.header_offset for entry in entries) != 0
                or archive.comment
            ):
                raise CheckpointError(
                    f"{damaged}: something precedes or follows the archive; {again}."
                )
            if sum(entry.file_size for entry in entries) > size:
                raise CheckpointError(f"{damaged}: its records overlap; {again}.")
            root = names[0].partition("/")[0]
            pickles = [name for name in names if name.partition("/")[2].casefold() == "data.pkl"]
            if pickles != [f"{root}/data.pkl"] or any(
                name.partition("/")[0] != root for name in names
            ):
                raise CheckpointError(
                    f"{damaged}: it holds more than one folder of records; {again}."
                )
            if not any(entry.CRC for entry in entries):
                raise CheckpointError(
                    f"{shown(path)} was saved without checksums, so that damage could not be noticed;"
                    " save model.state_dict() again with checksums."
                )
            wrong = archive.testzip()
            if wrong is not None:
                raise CheckpointError(
                    f"{damaged}: the checksum of {shown(wrong, 60)} is wrong; {again}."
                )
            sizes = [e.file_size for e in entries if e.filename.startswith(f"{root}/data/")]
            most = _Most(
                _LARGEST_PICKLE + _BYTES_PER_RECORD * len(sizes),
                MOST_STEPS + _STEPS_PER_RECORD * len(sizes),
            )
            long = archive.getinfo(pickles[0]).file_size > most.bytes
            return sizes, None if long else archive.read(pickles[0]), most
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on damaged archives
        raise CheckpointError(
            f"{damaged} ({type(error).__name__} while reading it); {again}."
        ) from error


def _without_content(entries: list[zipfile.ZipInfo]) -> str | None:
    """A record that is marked as a folder and holds something; torch leaves its bytes out and the memory as it was."""
    return next(
        (
            entry.filename
            for entry in entries
            if entry.file_size and (entry.external_attr & _FOLDER or entry.filename.endswith("/"))
        ),
        None,
    )


def _damaged_description(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{shown(path)} has a damaged description of its tensors; copy or download it again."
    )
