"""Finds the averaged weights (EMA) in a checkpoint, in the places where people's trainers put them.

They are a state dict under a name of its own, a callback's state, keys with a prefix among the model's own, or a list without
names. A list is matched to the model's weights by order and shape, and refused where that is ambiguous. What an average
leaves out (running statistics are rarely averaged) is taken from the model's own weights. The record says all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmaudit.checkpoint.state_dict import (
    LIGHTNING_LAST,
    WEIGHT_KEYS,
    StateDict,
    find_state_dict,
    holds_weights,
    plain,
)
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["AVERAGE_KEYS", "AVERAGE_PREFIXES", "find_average", "is_averaged_model"]

AVERAGE_KEYS = (
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "ema_model_state_dict",
    "model_ema_state_dict",
    "params_ema",
    "ema_params",
    "ema_weights",
    "ema",
    "model_averaged",
    "averaged_model",
    "averaged_state_dict",
    "averaged",
    "avg_model",
    "model_avg",
    "avg_state_dict",
    "swa_model",
    "model_swa",
    "swa_state_dict",
    "swa_model_state_dict",
    "swa",
    "polyak",
    "ema_shadow",
    "shadow",
)
"""Names under which averaged weights are looked for, in this order; then any one name with such a word in it."""

AVERAGE_PREFIXES = (
    *("ema_model.", "model_ema.", "_ema_model.", "averaged_model.", "ema."),
    *("swa_model.", "avg_model.", "model_avg.", "averaged.", "swa.", "polyak.", "ema_shadow."),
)
"""Prefixes of averaged weights among the model's own."""

_LISTS = ("shadow_params", "ema_params", "ema_weights")
_COUNTERS = frozenset(
    {"decay", "num_updates", "n_averaged", "initted", "step", "updates", "optimization_step"}
    | {"collected_params", "temp_stored_params", "inv_gamma", "power", "min_decay"}
    | {"update_after_step", "use_ema_warmup"}
)
_WORDS = frozenset({"ema", "swa", "avg", "average", "averaged", "averages", "polyak", "shadow"})
_COUNTER = "n_averaged"
_NEVER_AVERAGED = ("running_mean", "running_var", "num_batches_tracked")


def find_average(path: Path, loaded: Any) -> StateDict:
    """Find averaged weights.

    Args:
        path: The file, for messages.
        loaded: What is in it.

    Returns:
        The averaged weights, completed by what is not averaged, and sentences for the record.

    Raises:
        CheckpointError: If there are none, or none with names; the sentence says what there is.
    """
    if not isinstance(loaded, dict):
        return find_state_dict(path, loaded)  # says what is there instead
    whole = plain(loaded)
    if LIGHTNING_LAST in whole and holds_weights(whole.get("state_dict")):
        found = find_state_dict(path, {"state_dict": whole["state_dict"]})
        note = f"Took the averaged weights under 'state_dict' of {shown(path.name)} (Lightning's weight averaging)."
        return StateDict(found.tensors, "Lightning", (note,))
    own = _own_weights(path, whole)
    for trail, value in _places(whole):
        named = _named(path, value, own)
        if named is None:
            continue
        tensors, how = named
        completed, added = _completed(tensors, own)
        notes = [f"Took the averaged weights under '{shown(trail)}' of {shown(path.name)}{how}."]
        if added:
            notes.append(
                f"{len(added)} values are not averaged in {shown(path.name)} and are the model's own: {listed(added, 3)}."
            )
        return StateDict(completed, "", tuple(notes))
    raise CheckpointError(
        f"{shown(path)} has no averaged weights under a known name ({_present(whole)}); leave out 'weights: ema',"
        " or save them under 'ema_state_dict'."
    )


def _places(whole: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Where averaged weights may be, with the way there, the likeliest first."""
    holders = [("", whole)]
    holders += [
        (f"{key}.", plain(whole[key])) for key in WEIGHT_KEYS if isinstance(whole.get(key), dict)
    ]
    for trail, holder in holders:
        for key in (*AVERAGE_KEYS, *_LISTS):
            if key in holder:
                yield f"{trail}{key}", holder[key]
    callbacks = whole.get("callbacks")
    for name, state in plain(callbacks).items() if isinstance(callbacks, dict) else ():
        if isinstance(state, dict) and any(w in str(name).lower() for w in ("ema", "averag")):
            inner = plain(state)
            for key in (*AVERAGE_KEYS, *_LISTS, *WEIGHT_KEYS):
                if key in inner:
                    yield f"callbacks.{name}.{key}", inner[key]
            yield f"callbacks.{name}", inner
    for trail, holder in holders:
        for prefix in AVERAGE_PREFIXES:
            inside = {
                key.removeprefix(prefix): value
                for key, value in holder.items()
                if isinstance(key, str) and key.startswith(prefix)
            }
            if inside:
                yield f"{trail}{prefix}", inside

    others = [(trail, key) for trail, holder in holders for key in holder if _says_average(key)]
    if len(others) == 1:
        ((trail, key),) = others
        yield f"{trail}{key}", dict(holders)[trail][key]
    for trail, holder in holders:
        if is_averaged_model(holder):
            yield trail.removesuffix(".") or _COUNTER, holder


def is_averaged_model(value: Any) -> bool:
    """Whether a mapping is the state dict of torch's ``AveragedModel``: its counter beside the average under ``module.``."""
    if not isinstance(value, dict) or _COUNTER not in value or len(value) == 1:
        return False
    return all(key == _COUNTER or str(key).startswith("module.") for key in value)


def _says_average(key: Any) -> bool:
    """Whether a name that is none of the known ones has a word for averages in it."""
    if not isinstance(key, str) or key in AVERAGE_KEYS or key in _LISTS or "." in key:
        return False
    return bool(_WORDS & set(re.split(r"[^a-z]+", key.lower())))


def _named(
    path: Path, value: Any, own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str] | None:
    """Averaged weights under their names and how the names were found; nothing where there are no weights."""
    if isinstance(value, dict):
        inner = plain(value)
        for key in _LISTS:
            if _is_tensors(inner.get(key)):
                return _matched(path, inner[key], own)
        inner = {key: v for key, v in inner.items() if key not in _COUNTERS}
        for prefix in AVERAGE_PREFIXES:  # a wrapper that holds the model and its average
            inside = {
                key.removeprefix(prefix): v
                for key, v in inner.items()
                if isinstance(key, str) and key.startswith(prefix)
            }
            if inside:
                inner = inside
                break
        for key in ("shadow", *WEIGHT_KEYS):
            if holds_weights(inner.get(key)):
                inner = {k: v for k, v in plain(inner[key]).items() if k not in _COUNTERS}
                break
        by_part = bool(inner) and all(holds_weights(part) for part in inner.values())
        if not (holds_weights(inner) or by_part):
            return None
        tensors = find_state_dict(path, inner).tensors
        return _with_dots(tensors, own), ""
    return _matched(path, value, own) if _is_tensors(value) else None


def _is_tensors(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(v, Tensor) for v in value)
    )


def _matched(
    path: Path, values: Sequence[Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Give a list of averages the names of the model's weights, where order and shapes leave no doubt."""
    for names in (
        [name for name in own if name.rpartition(".")[2] not in _NEVER_AVERAGED],
        list(own),
    ):
        if len(names) == len(values) and all(
            own[name].shape == value.shape for name, value in zip(names, values, strict=True)
        ):
            named = {name: Tensor.detach(value) for name, value in zip(names, values, strict=True)}
            return named, ", a list without names, matched to the model's own by order and shape"
    raise CheckpointError(
        f"{shown(path)} holds averaged weights as a list of {len(values)} tensors without names, which does not match the"
        f" {len(own)} weights beside it; save them as a state_dict."
    )


def _with_dots(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put back dots that a wrapper took out of the names, where that is unambiguous."""
    if not tensors or any("." in name for name in tensors):
        return tensors
    for cut in ("", *sorted({f"{name.partition('.')[0]}." for name in own})):
        names: dict[str, str] = {}
        for name in own:
            if name.startswith(cut):
                names.setdefault(name.removeprefix(cut).replace(".", ""), name)
        shapes_fit = all(
            name in names and own[names[name]].shape == value.shape
            for name, value in tensors.items()
        )
        if shapes_fit and len({names[name] for name in tensors}) == len(tensors):
            return {names[name]: value for name, value in tensors.items()}
    return tensors


def _completed(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The average with what only the model's own weights have, and the names of that."""
    bare = {name.removeprefix("module."): name for name in tensors}
    plain_own = {name.removeprefix("module."): value for name, value in own.items()}
    if not set(bare) <= set(plain_own):
        return tensors, []
    added = [name for name in plain_own if name not in bare]
    averaged = {name: tensors[full] for name, full in bare.items()}
    return {name: averaged.get(name, value) for name, value in plain_own.items()}, added


def _own_weights(path: Path, whole: dict[Any, Any]) -> dict[str, Tensor]:
    """The model's own weights, empty where there are none."""
    rest = {
        key: value
        for key, value in whole.items()
        if key not in AVERAGE_KEYS
        and key not in _LISTS
        and not _says_average(key)
        and not (isinstance(key, str) and key.startswith(AVERAGE_PREFIXES))
    }
    try:
        found = find_state_dict(path, rest).tensors
    except CheckpointError:
        return {}
    if is_averaged_model(found):  # the average itself
        return {}
    return {name: value for name, value in found.items() if not name.startswith(AVERAGE_PREFIXES)}


def _present(whole: dict[Any, Any]) -> str:
    held = [key for key, value in whole.items() if isinstance(key, str) and holds_weights(value)]
    if held:
        return f"it holds weights under {listed(held, 4)}"
    return f"its keys are {listed(whole, 3)}" if whole else "it is empty"
