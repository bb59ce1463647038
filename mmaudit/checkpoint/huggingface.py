"""Opens a directory of Hugging Face: the class from transformers itself, its configuration as data, weights from safetensors.

``config.json`` can ask for a good deal of code: classes of its own (``auto_map``), kernels from the hub (``_attn_implementation``),
backbones to be fetched. So ``from_pretrained`` never sees the directory. The configuration is filtered to what the
configuration class declares; the weights are read by mmaudit's own reader; transformers gets both in memory, renames keys
as its version does, and reports what was missing. Meanwhile it is offline.
"""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.formats import CONFIG, find_weights
from mmaudit.checkpoint.huggingface_config import filtered
from mmaudit.checkpoint.model import seeded
from mmaudit.checkpoint.reading import Stamp, WeightsFile, file_record, read_stamped, stamped
from mmaudit.checkpoint.state_dict import Wanted
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError
from mmaudit.report.schema import FileRecord

__all__ = ["OpenedDirectory", "open_hugging_face"]

_LARGEST_CONFIG = 1_000_000
_WEIGHTS = ("model.safetensors.index.json", "model.safetensors")
_ROOM = 1_000_000
_NOT_MODELS = ("timm_wrapper", "timm_backbone", "rag", "auto")
"""Families of transformers whose classes fetch or build something that is not transformers' own."""


class OpenedDirectory(NamedTuple):
    """A model, and what the record says about it."""

    model: nn.Module
    config: dict[str, Any]
    """The configuration as it was used."""
    format: str
    files: tuple[FileRecord, ...]
    notes: tuple[str, ...]
    stamps: list[Stamp]


def open_hugging_face(
    path: Path, *, weights: Wanted = "model", tensors: WeightsFile | None = None
) -> OpenedDirectory:
    """Build the model of a directory and load its weights.

    Args:
        path: Directory with ``config.json`` and safetensors.
        weights: The ``model``'s, or their exponential moving average (``ema``).
        tensors: Weights in place of the directory's own.

    Raises:
        CheckpointError: If the extra is not installed, a file leads out of the directory, the configuration asks for code, its
            class is none of transformers, or the weights are not all there and of the right shape.
    """
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f"{shown(path)} is a Hugging Face directory, which needs transformers: pip install 'mmaudit[transformers]'."
        ) from error
    place = _inside(path, path / CONFIG)
    stamps, records = [stamped(place)], [file_record(place, "checkpoint")]
    raw = _read_config(place)
    with _quiet_and_offline():
        kind = _model_class(path, raw, transformers)
        settings, notes = filtered(path, raw, kind.config_class)
        config = _config(path, kind, settings)
        if tensors is None:
            tensors, more = read_stamped(_weights(path), "checkpoint", weights=weights)
            stamps += more
        _check_size(path, kind, config, tensors.tensors)
        model, said = _loaded(path, kind, config, tensors)
    words = f"Hugging Face directory, {kind.__name__}, {tensors.format}, transformers {transformers.__version__}"
    return OpenedDirectory(
        model,
        settings,
        words,
        (*records, *tensors.files),
        (*notes, *tensors.notes, *said),
        stamps,
    )


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_CONFIG:
        raise CheckpointError(f"{shown(path)} is larger than 1 MB, which no model's is.")
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{shown(path)} is not readable as JSON ({shown(error, 60)}); copy or download it again."
        ) from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{shown(path)} holds a {type(raw).__name__}, expected a mapping.")
    return raw


def _model_class(path: Path, raw: Mapping[str, Any], transformers: Any) -> Any:
    """The class that ``architectures`` names, if it is one of transformers."""
    named = raw.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise CheckpointError(
            f"{shown(path / CONFIG)} names no class under 'architectures' (expected one); name a factory that builds the model."
        )
    name = named[0]
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    own = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    family = kind.__module__.split(".") if own and kind is not None else []
    if family[:2] != ["transformers", "models"] or family[2] in _NOT_MODELS:
        remote = " and its own code ('auto_map') is never run" if "auto_map" in raw else ""
        raise CheckpointError(
            f"{shown(path / CONFIG)} names the class '{shown(name, 60)}', which is none of transformers"
            f" {transformers.__version__}{remote}; name a factory that builds the model."
        )
    return kind


def _config(path: Path, kind: Any, settings: dict[str, Any]) -> Any:
    try:
        return kind.config_class(**settings)
    except Exception as error:
        raise CheckpointError(
            f"{shown(path / CONFIG)} is no configuration of a {kind.__name__} ({_reason(error)}); check its values."
        ) from error


def _check_size(path: Path, kind: Any, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Build the model without memory first: a configuration can describe one of any size."""
    held = sum(tensor.numel() for tensor in tensors.values())
    try:
        with torch.device("meta"), seeded(0):
            described = sum(p.numel() for p in kind(copy.deepcopy(config)).parameters())
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)}: transformers cannot build a {kind.__name__} from {CONFIG} ({_reason(error)}); check its values."
        ) from error
    if described > 2 * held + _ROOM:
        raise CheckpointError(
            f"{shown(path / CONFIG)} describes a model of {described} parameters and the weights hold {held}; they do not belong"
            " together."
        )


def _loaded(
    path: Path, kind: Any, config: Any, weights: WeightsFile
) -> tuple[nn.Module, list[str]]:
    try:
        with seeded(0):
            model, found = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(weights.tensors),
                output_loading_info=True,
                local_files_only=True,
                dtype=torch.float32,
            )
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)}: the weights do not fit a {kind.__name__} as {CONFIG} describes it ({_reason(error)})."
        ) from error
    problems = [
        f"{word} {listed(sorted(map(str, found[key])), 2)}"
        for key, word in (
            ("missing_keys", "missing"),
            ("unexpected_keys", "unexpected"),
            ("mismatched_keys", "of another shape"),
            ("error_msgs", "failed"),
        )
        if found.get(key)
    ]
    if problems:
        raise CheckpointError(
            f"{shown(path)}: the weights and the class {kind.__name__} disagree: {', '.join(problems)}; check that they belong"
            " together."
        )
    notes = []
    others = {
        str(t.dtype).removeprefix("torch.")
        for t in weights.tensors.values()
        if t.is_floating_point() and t.dtype != torch.float32
    }
    if others:
        notes.append(
            f"Converted weights of {shown(path.name, 60)} from {listed(sorted(others))} to float32."
        )
    model.eval()
    return model, notes


def _weights(path: Path) -> Path:
    """The file of weights, nothing of it outside the directory."""
    names = [name for name in _WEIGHTS if (path / name).exists()]
    if names:
        found = path / names[0]
    else:
        others = sorted(
            entry.name for entry in path.iterdir() if entry.suffix in (".bin", ".h5", ".msgpack")
        )
        if others and not any(entry.suffix == ".safetensors" for entry in path.iterdir()):
            raise CheckpointError(
                f"{shown(path)} has no safetensors weights, only {listed(others, 2)}; make some with 'mmaudit convert'."
            )
        found = find_weights(path)
    _inside(path, found)
    if found.suffix == ".json":
        for shard in path.glob("*.safetensors"):
            _inside(path, shard)
    return found


def _inside(root: Path, path: Path) -> Path:
    """Check that a file of the directory is not a link that leads out of it.

    The cache of the hub keeps files as links into a folder ``blobs`` beside the snapshots: that is still the model's own.
    """
    real, home = path.resolve(), root.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(folder in real.parents for folder in allowed):
        raise CheckpointError(
            f"{shown(path)} is a link that leads out of its directory; put the file itself there."
        )
    return path


@contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """Keep transformers from progress bars, warnings and the network."""
    import huggingface_hub.constants as hub
    from transformers.utils import logging

    offline, level = hub.HF_HUB_OFFLINE, logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    try:
        hub.HF_HUB_OFFLINE = True
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.HF_HUB_OFFLINE = offline
        logging.set_verbosity(level)
        if bars:
            with contextlib.suppress(Exception):
                logging.enable_progress_bar()


def _reason(error: Exception) -> str:
    text = shown(" ".join(str(error).split()), 140).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
