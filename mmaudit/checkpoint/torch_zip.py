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
from typing import Any

import torch
from torch import Tensor

from mmaudit.checkpoint.formats import TRUST
from mmaudit.checkpoint.pickled_names import names_in_pickle
from mmaudit.checkpoint.safetensors_file import MOST_TENSORS
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["check_program", "check_storages", "foreign_names", "read_torch_zip"]

_LARGEST_PICKLE = 50_000_000
_END_OF_ARCHIVE = 22
_LARGEST_CODE = 200_000_000
"""Bytes of compressed records in a program, unpacked; its code is text."""

_CONTAINERS = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.set",
        "builtins.complex",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
    }
)
_QUANTIZATION = frozenset(
    {
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.per_channel_affine",
        "torch.per_channel_symmetric",
        "torch.per_channel_affine_float_qparams",
    }
)


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
    sizes, pickled = _check_archive(path)
    needed, newer = _foreign_names(path, pickled)
    if needed:
        raise CheckpointError(
            f"{shown(path)} holds pickled objects besides weights ({listed(needed, 3)}), which would run code when loaded;"
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
    _, pickled = _check_archive(path)
    needed, newer = _foreign_names(path, pickled)
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


def _check_archive(path: Path) -> tuple[list[int], bytes]:
    """Check everything that can be checked before loading; returns sizes of the storages, and the pickle."""
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
            if archive.getinfo(pickles[0]).file_size > _LARGEST_PICKLE:
                raise CheckpointError(
                    f"{shown(path)} describes its tensors in more than {_LARGEST_PICKLE} bytes; check the file."
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
            return sizes, archive.read(pickles[0])
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on damaged archives
        raise CheckpointError(
            f"{damaged} ({type(error).__name__} while reading it); {again}."
        ) from error


def _foreign_names(path: Path, pickled: bytes) -> tuple[tuple[str, ...], bool]:
    """Names that the pickle would import and that weights never need, and whether its protocol is newer than torch.save's."""
    try:
        names, newer = names_in_pickle(pickled)
    except Exception as error:  # pickletools raises half a dozen types on what is no pickle
        raise CheckpointError(
            f"{shown(path)} has a damaged description of its tensors; copy or download it again."
        ) from error
    return tuple(name for name in names if not _is_weight_global(name)), newer


def _is_weight_global(name: str) -> bool:
    if name in _CONTAINERS or name in _QUANTIZATION:
        return True
    module, _, attribute = name.rpartition(".")
    if module == "torch":
        return attribute.endswith("Storage") or isinstance(
            getattr(torch, attribute, None), torch.dtype
        )
    if module == "torch._utils":
        return (
            attribute.startswith("_rebuild_")
            and "numpy" not in attribute
            and "cpu_tensor" not in attribute
        )
    return False
