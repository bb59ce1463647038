"""Puts weights into a module, strictly: every key by name, every shape, all checked before anything is copied.

Training wrappers leave their names in the keys (``module.`` of data parallelism, ``_orig_mod.`` of ``torch.compile``,
``model.`` of Lightning modules). They are removed where the keys then fit better, and the record says so. Parts that a file
keeps under names of their own (:mod:`mmaudit.checkpoint.parts`) go where they alone fit; nothing else about a key is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mmaudit.checkpoint.averages import AVERAGE_PREFIXES
from mmaudit.checkpoint.parts import pair_parts, part_names
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["LEADING_WRAPPERS", "Plan", "load_into", "plan_load"]

LEADING_WRAPPERS = ("module.", "model.", "net.")
"""Prefixes that wrappers put before all keys, in any combination."""

_COUNTED_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
_INNER_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_AVERAGING_COUNTER = "n_averaged"
_MOST_WRAPPERS = 4
_LONGEST_SENTENCE = 380


class Plan(NamedTuple):
    """A load that has been checked: the values for every key of the module's state dict, and sentences for the record."""

    module: nn.Module
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]
    where: str

    def carry_out(self) -> None:
        """Copy the values into the module.

        Raises:
            CheckpointError: If a loading hook of the module's own refuses them.
        """
        try:
            self.module.load_state_dict(self.tensors, strict=True)
        except Exception as error:
            reason = shown(
                str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__,
                120,
            )
            raise CheckpointError(
                f"The model does not take the weights of {shown(self.where)} ({reason}); check that factory and"
                " checkpoint belong together."
            ) from error


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], *, strip_prefix: str | None = None, where: str
) -> tuple[str, ...]:
    """Load weights into a module, strictly.

    Args:
        module: Gets the values in place, on its own device and in its own dtypes.
        tensors: Key -> tensor, as in a state dict.
        strip_prefix: Take only the keys that begin so, without it; left out: known wrappers' prefixes are removed where
            the keys then fit better. The empty string removes nothing.
        where: What to call the weights in messages, usually the file's path.

    Returns:
        Sentences for the record: prefixes removed, dtypes converted, tied weights filled in.

    Raises:
        CheckpointError: If keys are missing, unexpected or mis-shaped, values do not survive the conversion to the model's
            dtype, tied weights differ, or the module has parameters that are not initialised. The module is then
            unchanged.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> load_into(model, {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}, where="best.pt")
        ("Removed the prefix 'module.' from the keys of best.pt.",)
    """
    plan = plan_load(module, tensors, strip_prefix=strip_prefix, where=where)
    plan.carry_out()
    return plan.notes


def plan_load(
    module: nn.Module, tensors: Mapping[str, Tensor], *, strip_prefix: str | None = None, where: str
) -> Plan:
    """Check a load without changing the module; arguments and errors as of :func:`load_into`."""
    target = dict(module.state_dict(keep_vars=True))
    lazy = [name for name, value in target.items() if isinstance(value, Tensor) and is_lazy(value)]
    if lazy:
        raise CheckpointError(
            f"The model has parameters without a shape ({listed(lazy)}): lazy modules get theirs in the first call;"
            " let the factory call the model once on a sample batch before it returns it."
        )
    # A compiled part of the model has the wrapper's name in its own keys; both sides are compared without it.
    plain = {_without_inner(name): name for name in target}
    if len(plain) != len(target):
        plain = {name: name for name in target}
    fitted, notes = _fit_keys(dict(tensors), plain, strip_prefix, where)
    if strip_prefix is None:
        shapes = {name: target[full] for name, full in plain.items()}
        fitted, renamed = _fit_parts(fitted, shapes, where)
        notes += renamed
    fitted, tied = _fill_tied(fitted, {name: target[full] for name, full in plain.items()}, where)
    named = {plain.get(key, key): value for key, value in fitted.items()}
    named, lenient = _apply_own_rules(module, named, target)
    _check_names(named, target, tensors, where)
    _check_shapes(named, target, where)
    converted = _check_dtypes(named, target, where)
    return Plan(module, named, (*notes, *tied, *lenient, *converted), where)


def _fit_keys(
    tensors: dict[str, Tensor], plain: Mapping[str, str], strip_prefix: str | None, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Remove prefixes; returns the tensors under their new names and what was done."""
    if strip_prefix is not None:
        inside = {
            key.removeprefix(strip_prefix): t
            for key, t in tensors.items()
            if key.startswith(strip_prefix)
        }
        if not inside:
            raise CheckpointError(
                f"No key of {shown(where)} begins with '{shown(strip_prefix, 40)}' ({_beginning(tensors)});"
                " correct strip_prefix or leave it out."
            )
        notes = [
            f"Removed the prefix '{shown(strip_prefix, 40)}' from the keys of {_short(where)}."
        ] * bool(strip_prefix)
        left = [key for key in tensors if not key.startswith(strip_prefix)]
        if left:
            notes.append(
                f"Left out {len(left)} keys of {_short(where)} without that prefix: {listed(left, 3)}."
            )
        return inside, notes
    best, best_fit, best_words = tensors, _fit(tensors, plain), ""
    for words, candidate in _candidates(tensors):
        fit = _fit(candidate, plain)
        if fit > best_fit:
            best, best_fit, best_words = candidate, fit, words
    best, notes = _without_averages(best, plain, where)
    if not best_words:
        return best, notes
    notes.insert(0, f"Removed {best_words} from the keys of {_short(where)}.")
    if "module." in best_words and _AVERAGING_COUNTER in best and _AVERAGING_COUNTER not in plain:
        best = {key: tensor for key, tensor in best.items() if key != _AVERAGING_COUNTER}
        notes.append(
            f"Left out '{_AVERAGING_COUNTER}', the counter of torch's AveragedModel, in {_short(where)}."
        )
    return best, notes


def _fit_parts(
    tensors: dict[str, Tensor], target: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Put parts under the names of the sub-modules that they fit; returns what was renamed."""
    paired = pair_parts(tensors, target, _candidates)
    if paired is None:
        return tensors, []
    said = [f"{shown(part, 40)} for {shown(child, 40)}" for part, child in paired.names.items()]
    more = f" and {len(said) - 6} more" if len(said) > 6 else ""
    return paired.tensors, [f"Took, in {_short(where)}, {', '.join(said[:6])}{more}{paired.how}."]


def _without_averages(
    tensors: dict[str, Tensor], plain: Mapping[str, str], where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out averaged weights beside the model's own, where they are all that the model does not know."""
    odd = [key for key in tensors if key not in plain]
    if not odd or not all(key.startswith(AVERAGE_PREFIXES) for key in odd):
        return tensors, []
    if any(name not in tensors for name in plain):
        return tensors, []
    kept = {key: tensor for key, tensor in tensors.items() if key in plain}
    note = f"Left out {len(odd)} averaged weights of {_short(where)} ({listed(odd)}); 'weights: ema' takes them."
    return kept, [note]


def _candidates(tensors: dict[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """The keys with fewer and fewer wrappers, each with the words for what was removed."""
    found: list[tuple[str, dict[str, Tensor]]] = []
    removed = sorted(
        {wrapper for wrapper in _INNER_WRAPPERS for key in tensors if f".{wrapper}" in f".{key}"}
    )
    without = _renamed(tensors, {key: _without_inner(key) for key in tensors})
    inner = ", ".join(f"'{wrapper}'" for wrapper in removed)
    frontier = [("", tensors)]
    if removed and without is not None:
        found.append((f"the prefix {inner}", without))
        frontier = [("", without)]
    for _ in range(_MOST_WRAPPERS):
        following = []
        for prefix, keys in frontier:
            for wrapper in LEADING_WRAPPERS:
                if any(key.startswith(wrapper) for key in keys):
                    shorter = _renamed(keys, {key: key.removeprefix(wrapper) for key in keys})
                    if shorter is not None:
                        following.append((prefix + wrapper, shorter))
        for prefix, keys in following:
            words = f"the prefix '{prefix}'" + (
                f" and {inner}" if removed and without is not None else ""
            )
            found.append((words, keys))
        frontier = following
    if any(
        ".module." in key for key in tensors
    ):  # a part of the model was trained under data parallelism
        for words, keys in [*found, *([("", tensors)] if without is None or not removed else [])]:
            inside = _renamed(keys, {key: key.replace(".module.", ".") for key in keys})
            if inside is not None:
                found.append(
                    (f"{words} and 'module.' inside" if words else "'module.' inside", inside)
                )
    return found


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor] | None:
    """The tensors under new names; nothing where two would get the same."""
    renamed = {names[key]: tensor for key, tensor in tensors.items()}
    return renamed if len(renamed) == len(tensors) else None


def _fit(tensors: Mapping[str, Tensor], plain: Mapping[str, str]) -> int:
    return sum(key in plain for key in tensors)


def _without_inner(key: str) -> str:
    key = f".{key}"
    for wrapper in _INNER_WRAPPERS:
        key = key.replace(f".{wrapper}", ".")
    return key[1:]


def _fill_tied(
    tensors: dict[str, Tensor], target: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Give every name of a tied parameter its value; files often store it under one name only."""
    groups: dict[int, list[str]] = {}
    for name, value in target.items():
        groups.setdefault(id(value), []).append(name)
    filled = []
    tensors = dict(tensors)
    for names in groups.values():
        present = [name for name in names if name in tensors]
        if len(names) == 1 or not present:
            continue
        first = tensors[present[0]]
        for name in present[1:]:
            if not _same(first, tensors[name]):
                raise CheckpointError(
                    f"{shown(present[0], 60)} and {shown(name, 60)} are one parameter in the model but differ in"
                    f" {shown(where)}; build the model without tying them, or correct the file."
                )
        for name in names:
            if name not in tensors:
                tensors[name] = first
                filled.append(f"{shown(name, 60)} (tied to {shown(present[0], 60)})")
    return tensors, [
        f"Tied weights are stored once in {_short(where)}: {listed(filled, 3)}."
    ] if filled else []


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_meta or other.is_meta:  # known by shape alone, and compared again once it is read
        return True
    if one.is_floating_point() or one.is_complex():
        return bool(torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True))
    return torch.equal(one, other)


def _apply_own_rules(
    module: nn.Module, tensors: dict[str, Tensor], target: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Let the module's own loading rules adapt old files, on a copy without memory.

    Modules rename or fill in keys of older versions of themselves (batch norm's counter, weight norm's factors). Only
    those rules are asked, and only where the keys differ.
    """
    if set(tensors) == set(target):
        return tensors, []
    adapted = dict(tensors)
    missing: list[str] = []
    for prefix, part in module.named_modules():
        path = f"{prefix}." if prefix else ""
        for hook in part._load_state_dict_pre_hooks.values():
            # A hook that fails on these keys is no rule for them; the names are then reported as they are.
            try:
                hook(adapted, path, {}, True, missing, [], [])
            except Exception:
                return tensors, []
        counter = f"{path}num_batches_tracked"
        if isinstance(part, _COUNTED_NORMS) and counter in target and counter not in adapted:
            adapted[counter] = target[counter].detach().clone()
    if set(adapted) != set(target):
        return tensors, []
    changed = [key for key in adapted if key not in tensors]
    return adapted, [f"The model's own rules for older files supplied {listed(changed, 3)}."]


def _check_names(
    tensors: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    original: Mapping[str, Tensor],
    where: str,
) -> None:
    missing = [name for name in target if name not in tensors]
    unexpected = [key for key in tensors if key not in target]
    if not missing and not unexpected:
        return
    hint = "check that the factory builds the model that was saved"
    if missing and unexpected:
        parts, children = part_names(tensors), part_names(target)
        hint = f"if a prefix is wrong ({_beginning(original)}), name it as strip_prefix"
        if len(parts) > 1 and not set(parts) & set(children):
            hint = f"save its parts {listed(parts, 4, 80)} under the names of the model's, {listed(children, 4, 80)}"
    for most in (3, 2, 1):  # as many names as one line holds
        parts = [f"missing {listed(missing, most, 56 * most)}"] * bool(missing)
        parts += [f"unexpected {listed(unexpected, most, 56 * most)}"] * bool(unexpected)
        sentence = f"{shown(where, 70)} and the model disagree: {', '.join(parts)}; {hint}."
        if len(sentence) < _LONGEST_SENTENCE:
            break
    raise CheckpointError(sentence)


def _check_shapes(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], where: str) -> None:
    wrong = [
        f"{shown(name, 50)} is {_size(tensors[name])} and should be {_size(value)}"
        for name, value in target.items()
        if isinstance(value, Tensor) and tensors[name].shape != value.shape
    ]
    if wrong:
        more = f" (+{len(wrong) - 2})" if len(wrong) > 2 else ""
        raise CheckpointError(
            f"{shown(where, 70)} and the model disagree in shape: {', '.join(wrong[:2])}{more};"
            " check the factory's arguments."
        )


def _check_dtypes(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], where: str
) -> list[str]:
    """Check that no value is lost beyond rounding; returns what will be converted."""
    converted: dict[str, list[str]] = {}
    for name, value in target.items():
        given = tensors[name]
        if not isinstance(value, Tensor) or given.is_meta or given.dtype == value.dtype:
            continue
        how = f"{_dtype(given)} to {_dtype(value)}"
        if not value.is_meta and not _survives(given, value.dtype):
            raise CheckpointError(
                f"{shown(name, 60)} of {shown(where)} does not survive the conversion from {how};"
                " build the model in the dtype it was saved in."
            )
        converted.setdefault(how, []).append(name)
    return [
        f"Converted {len(names)} tensors of {_short(where)} from {how}: {listed(names)}."
        for how, names in converted.items()
    ]


def _survives(given: Tensor, dtype: torch.dtype) -> bool:
    if given.is_complex() and not dtype.is_complex:
        return False
    cast = given.to(dtype)
    if not torch.can_cast(
        given.dtype, dtype
    ):  # for example a counter that was averaged: fine if it is whole
        return bool(torch.equal(cast.to(given.dtype), given))
    if not cast.is_floating_point() or not given.is_floating_point():
        return True
    # Overflow: finite before, not finite after.
    return bool((torch.isfinite(cast.float()) | ~torch.isfinite(given.double())).all())


def _beginning(tensors: Mapping[str, Tensor]) -> str:
    """What all keys have in common at their beginning, up to a dot, in words."""
    parts = zip(*(key.split(".")[:-1] for key in tensors), strict=False)
    prefix = "".join(f"{step[0]}." for step in takewhile(lambda step: len(set(step)) == 1, parts))
    if prefix and len(tensors) > 1:
        return f"the file's keys begin with '{shown(prefix, 40)}'"
    first = next(iter(tensors), "")
    return f"the file's first key is '{shown(first, 60)}'" if first else ""


def _size(tensor: Tensor) -> str:
    return shown(tuple(tensor.shape), 40)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _short(where: str) -> str:
    return shown(Path(where).name or where, 60)
