"""Filters the ``config.json`` of a Hugging Face directory: only what its configuration class declares, and only data.

An allowlist and no list of known evils: a key that the class does not declare is left out and named. What the class declares
but what fetches, quantises or chooses code is refused or left out, at every depth.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmaudit.checkpoint.formats import CONFIG
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["filtered"]

_COMMON = frozenset(
    {"id2label", "label2id", "num_labels", "problem_type", "tie_word_embeddings", "is_decoder"}
    | {"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "cross_attention"}
    | {"text_config_dict", "vision_config_dict", "num_channels", "out_features", "out_indices"}
    | {"add_cross_attention", "pruned_heads", "finetuning_task", "sliding_window_pattern"}
)
"""Keys that classes take without declaring them, some of them for older files."""

_CODE = frozenset(
    {"auto_map", "trust_remote_code", "attn_implementation", "experts_implementation"}
    | {"custom_pipelines", "custom_generate", "use_kernels", "kernel_config", "code_revision"}
    | {"transformers_weights", "name_or_path", "revision", "token", "subfolder"}
)
"""Keys that choose code or files; what they ask for is never done, whoever declares them."""

_OURS = frozenset({"architectures", "model_type", "transformers_version", "dtype", "torch_dtype"})
"""Keys that are read here or set by mmaudit."""

_LABELS = frozenset({"id2label", "label2id"})
"""Mappings whose keys are the user's own words."""

_PRETRAINED = ("use_pretrained_backbone", "use_timm_backbone", "pretrained_backbone")
_DEEPEST = 12
_LARGEST_NUMBER = 10**8
_MOST_LAYERS = 2_000
_LONGEST = 10_000
_COUNTS = ("layers", "layer", "depth", "depths", "blocks", "experts", "stages", "heads")


def filtered(
    path: Path, raw: Mapping[str, Any], kind: type[Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What of a configuration is given to its class.

    Args:
        path: The directory, for messages.
        raw: ``config.json`` as read.
        kind: The configuration class of the model's class.

    Returns:
        Keyword arguments, and sentences about what was left out.

    Raises:
        CheckpointError: If the configuration is of another model, wants weights quantised or a backbone fetched, or is of
            a size that no model has.
    """
    declared = raw.get("model_type")
    own = getattr(kind, "model_type", "")
    if declared is not None and own and declared != own:
        raise CheckpointError(
            f"{shown(path / CONFIG)} is of type '{shown(declared, 40)}', and its class takes '{own}'; they do not belong together."
        )
    left: list[str] = []
    code: list[str] = []
    settings = _level(path, raw, kind, left, code, "", 0)
    notes = []
    if code:
        notes.append(
            f"{CONFIG} of {shown(path.name, 60)} chooses code or files ({listed(code, 4)}): that was ignored."
        )
    if left:
        notes.append(
            f"{len(left)} keys of {CONFIG} are none of {kind.__name__} and were left out: {listed(left, 4)}."
        )
    return settings, tuple(notes)


def _level(
    path: Path,
    raw: Mapping[str, Any],
    kind: type[Any] | None,
    left: list[str],
    code: list[str],
    trail: str,
    depth: int,
) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise _absurd(path, trail, "nested too deeply")
    allowed = _declared(kind) if kind is not None else None
    kept = {}
    for key, value in raw.items():
        name = f"{trail}{key}"
        if key in _CODE or key.startswith("_"):
            if value is not None and key != "_name_or_path":
                code.append(name)
            continue
        if key in _OURS:
            if depth and key == "model_type":
                kept[key] = value  # tells which class a nested configuration is of
            continue
        if key == "quantization_config" and value:
            raise CheckpointError(
                f"{shown(path / CONFIG)} wants its weights quantised ('{shown(name, 60)}'), which needs code that is not loaded here;"
                " save the model unquantised."
            )
        fetches = (key == "backbone" and isinstance(value, str)) or (key in _PRETRAINED and value)
        if fetches:
            raise CheckpointError(
                f"{shown(path / CONFIG)} wants a backbone to be fetched ('{shown(name, 60)}'), and nothing is fetched here;"
                " name a factory that builds the model."
            )
        if allowed is not None and key not in allowed:
            left.append(name)
            continue
        _check_value(path, name, key, value)
        if key in _LABELS:
            kept[key] = value
            continue
        if isinstance(value, Mapping):
            inner = _nested(kind, key, value)
            value = _level(path, value, inner, left, code, f"{name}.", depth + 1)
        elif isinstance(value, list):
            value = [
                _level(path, item, None, left, code, f"{name}.", depth + 1)
                if isinstance(item, Mapping)
                else item
                for item in value
            ]
        kept[key] = value
    return kept


def _declared(kind: type[Any]) -> frozenset[str]:
    names: Iterable[str] = inspect.signature(kind.__init__).parameters
    if dataclasses.is_dataclass(kind):
        names = [*names, *(field.name for field in dataclasses.fields(kind))]
    names = [*names, *_older_keys(kind)]
    aliases = getattr(kind, "attribute_map", {})
    nested = getattr(kind, "sub_configs", {})
    return frozenset({*names, *aliases, *aliases.values(), *nested, *_COMMON}) - {"self", "kwargs"}


def _older_keys(kind: type[Any]) -> set[str]:
    """Keys of older files, which a class takes out of what it does not declare."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("transformers."):
            found |= set(re.findall(r"kwargs\.(?:pop|get)\(\s*[\"'](\w+)", inspect.getsource(base)))
    return found


def _nested(kind: type[Any] | None, key: str, value: Mapping[str, Any]) -> type[Any] | None:
    """The class of a nested configuration, where it can be told."""
    known = getattr(kind, "sub_configs", {}).get(key) if kind is not None else None
    if isinstance(known, type) and bool(getattr(known, "model_type", None)):
        return known
    named = value.get("model_type")
    if known is None or not isinstance(named, str):
        return None
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[named] if named in CONFIG_MAPPING else None  # noqa: SIM401  it loads lazily, and 'get' does not


def _check_value(path: Path, name: str, key: str, value: Any) -> None:
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) > _LONGEST:
        raise _absurd(path, name, f"a list of {len(numbers)}")
    counts = any(part in _COUNTS for part in key.lower().split("_"))
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            continue
        most = _MOST_LAYERS if counts else _LARGEST_NUMBER
        if abs(number) > most:
            raise _absurd(path, name, str(number) if abs(number) < 10**20 else "a huge number")


def _absurd(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(path / CONFIG)} gives '{shown(name, 60)}' as {what}, more than any model has; check the file."
    )
