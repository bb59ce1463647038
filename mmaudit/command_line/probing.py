"""Running a model on one batch to see how its ``forward`` is called, what it returns, and what task that is."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmaudit.command_line.guessing import Guess, about_target
from mmaudit.evidence.wording import explain
from mmaudit.exceptions import MMAuditError, ModelError
from mmaudit.masking.calling import Caller
from mmaudit.masking.paths import tensor_paths
from mmaudit.masking.spec import MaskingSpec

__all__ = ["FoundOutputs", "find_call", "find_outputs", "parameters_of"]

_SCORE_NAMES = (
    "logits",
    "scores",
    "logit",
    "probs",
    "probabilities",
    "output",
    "out",
    "prediction",
    "pred",
    "y_hat",
)


@dataclass(frozen=True)
class FoundOutputs:
    """Where the outputs are in what the model returns, and what they seem to be."""

    path: str | None
    kind: str
    shape: tuple[int, ...]
    reason: str
    task: str = "multiclass"
    task_reason: str = ""
    """Why the task is taken for another than ``multiclass``."""


def parameters_of(model: Any) -> list[str]:
    """Names of what the model's forward takes, in order."""
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):
        return []
    kinds = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.POSITIONAL_ONLY,
    )
    return [
        parameter.name for parameter in signature.parameters.values() if parameter.kind in kinds
    ]


def _calls(guessed: Guess, parameters: list[str]) -> Iterator[dict[str, Any]]:
    """Ways to call the model, the most telling first."""
    inputs = [entry for modality in guessed.modalities for entry in modality.inputs.values()]
    inputs.sort(key=guessed.found.index)
    paths = [entry.path for entry in inputs]
    names = {entry.name: entry.path for entry in inputs}
    if len(names) == len(inputs) and set(names) <= set(parameters):
        others = {
            e.name: e.path
            for e in guessed.found
            if e.name in parameters and e.path in guessed.left_out
        }
        yield {"kwargs": names}
        if others:
            yield {"kwargs": {**names, **others}}
    modalities = {
        modality.name: next(iter(modality.inputs.values())).path for modality in guessed.modalities
    }
    if set(modalities) <= set(parameters) and len(modalities) == len(inputs):
        yield {"kwargs": modalities}
    yield {"args": paths}
    mains = [next(iter(modality.inputs.values())).path for modality in guessed.modalities]
    if mains != paths:
        yield {"args": mains}
    folders = [path.split(".")[:-1] for path in paths]
    parent = [
        steps[0]
        for steps in itertools.takewhile(
            lambda steps: len(set(steps)) == 1, zip(*folders, strict=False)
        )
    ]
    if parent:
        yield {"args": [".".join(parent)]}
    yield {"args": ["batch"]}


def find_call(
    model: Any, batch: Any, guessed: Guess, parameters: list[str]
) -> tuple[dict[str, Any], Any]:
    """Find a call that the model takes.

    Args:
        model: In eval mode.
        batch: The batch.
        guessed: What it seems to hold.
        parameters: Names of what ``forward`` takes.

    Returns:
        The ``call`` of a spec, and what the model returned.

    Raises:
        ModelError: If the model runs in none of the ways that were tried.
    """
    modalities = {
        m.name: {"inputs": {name: e.path for name, e in m.inputs.items()}, "mask": m.masks}
        for m in guessed.modalities
    }
    said: list[str] = []
    for call in _calls(guessed, parameters):
        spec = MaskingSpec.model_validate({"modalities": modalities, "call": call})
        args, kwargs = Caller(model, spec).arguments(batch)
        try:
            return call, model(*args, **kwargs)
        except MMAuditError:
            raise
        except Exception as error:  # a foreign forward may raise anything; the next way may suit it
            said.append(f"with {_call_text(call)}: {explain(error)}")
    raise ModelError(
        f"the model does not run on a batch: forward({', '.join(parameters)}) raised {said[0]}. Batches hold "
        f"{'; '.join(entry.describe() for entry in guessed.found)}. Let --data give what forward takes."
    )


def _call_text(call: Mapping[str, Any]) -> str:
    if "kwargs" in call:
        return ", ".join(
            f"{name}={path}" if name != path else name for name, path in call["kwargs"].items()
        )
    return ", ".join(call["args"])


def find_outputs(returned: Any, guessed: Guess) -> FoundOutputs:
    """Find the outputs in what a model returned, and guess what they are, and the task, from their shapes and values.

    Args:
        returned: A tensor, or tensors in any container.
        guessed: What the batch seems to hold; its target says what the task can be, and how many classes there are at least.

    Raises:
        ModelError: If nothing in it can be the outputs.
    """
    n, most = guessed.n, _largest_label(guessed)
    tensors = {None: returned} if isinstance(returned, Tensor) else dict(tensor_paths(returned))
    known = {
        path: t
        for path, t in tensors.items()
        if t.is_floating_point() and t.dim() in (1, 2, 3) and t.shape[0] == n
    }
    task, task_reason, candidates = _task(known, guessed, most)
    if not candidates:
        shapes = (
            ", ".join(f"{path or 'outputs'} {tuple(t.shape)}" for path, t in tensors.items())
            or type(returned).__name__
        )
        classes = f" and more than {most} classes" if most > 1 else ""
        target = guessed.target
        several = target is not None and not target.is_vector
        expected = (
            f"outputs for a target of shape {target.shape}: as many, or class scores for each"
            if target is not None and several
            else f"class scores (B, K) with B = {n}{classes}, or one logit per sample"
        )
        raise ModelError(f"the model returned {shapes}; expected {expected}{about_target(guessed)}")
    names = [str(path).rsplit(".", 1)[-1].lower() for path in candidates]
    place = next((names.index(name) for name in _SCORE_NAMES if name in names), 0)
    path = list(candidates)[place]
    kind, reason = _kind(candidates[path], task)
    return FoundOutputs(path, kind, tuple(candidates[path].shape), reason, task, task_reason)


def _task(
    known: Mapping[str | None, Tensor], guessed: Guess, most: int
) -> tuple[str, str, dict[str | None, Tensor]]:
    """The task, why, and the tensors that can be its outputs."""
    target = guessed.target
    single = {path: t for path, t in known.items() if t.dim() == 1 or t.shape[1:] == (1,)}
    scores = {path: t for path, t in known.items() if t.dim() == 2 and t.shape[1] > max(most, 1)}
    if target is None or target.is_text:
        return "multiclass", "", scores or (single if most <= 1 else {})
    values = target.value
    whole = not values.is_floating_point() or bool(
        (values == values.round())[values.isfinite()].all()
    )
    if target.is_vector and whole and not bool((values < 0).any()):
        if scores or most <= 1:
            return "multiclass", "", scores or single
        return (
            "regression",
            "one number per sample, and the target has more than two values",
            single,
        )
    width = 1 if target.is_vector else target.shape[1]
    same = {path: t for path, t in known.items() if t.dim() == 2 and t.shape[1] == width}
    if not whole or target.is_vector:
        return (
            "regression",
            "the target has numbers that are no classes",
            same or (single if width == 1 else {}),
        )
    each = {path: t for path, t in known.items() if t.dim() == 3 and t.shape[1] == width}
    if each:
        return "segments", f"class scores for each of {width} segments of a sample", each
    if bool(((values < 0) | (values == 0) | (values == 1) | values.isnan()).all()):
        exclusive = bool((values == 1).sum(1).eq(1).all()) and target.n > 20
        hint = (
            "; exactly one is 1 everywhere: classes that exclude each other are one number"
            if exclusive
            else ""
        )
        return "multilabel", f"{width} outputs and {width} zeros or ones per sample{hint}", same
    return "regression", f"{width} numbers per sample", same


def _kind(scores: Tensor, task: str) -> tuple[str, str]:
    values = scores.detach().double()
    if task == "regression":
        return "values", "the numbers themselves"
    if task == "multilabel":
        inside = bool(values.min() >= 0 and values.max() <= 1)
        return (
            ("probabilities", "all in [0, 1]") if inside else ("logits", "one logit for each label")
        )
    if values.dim() == 3:
        values = values.flatten(0, 1)
    if values.dim() == 1 or values.shape[1] == 1:
        inside = bool(values.min() >= 0 and values.max() <= 1)
        warning = "; all in [0, 1]: is it taken after a sigmoid?" if inside else ""
        return "one_logit", f"one number per sample{warning}"
    if bool(values.min() >= 0) and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
        return "probabilities", "rows sum to 1"
    if bool(values.max() <= 0) and bool(((values.exp().sum(1) - 1).abs() < 1e-3).all()):
        return "log_probabilities", "exponentials of rows sum to 1"
    return "logits", "rows do not sum to 1"


def _largest_label(guessed: Guess) -> int:
    target = guessed.target
    if target is None:
        return 1
    if target.is_text:
        return len(set(target.value)) - 1
    values = target.value
    known = values[values.isfinite()] if values.is_floating_point() else values
    return int(known.max()) if known.numel() else 1
