"""Value functions of tasks with classes: of samples, of their segments, and yes or no for each of several labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmaudit.evidence.rows import Rows, part_rows, sample_rows
from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.batches import Batch
from mmaudit.report.tables import LEAST_LOGLIK, NOTHING, TIE
from mmaudit.typing import FloatArray, TaskName

__all__ = ["Classification", "MultiLabel", "Segments", "class_scores", "label_scores"]


_MOST_NAMED = 8


class Classification:
    """Multi-class and binary classification of samples.

    Args:
        kind: What the outputs are: ``logits``, ``probabilities``, ``log_probabilities`` or ``one_logit``.
        binary: Whether there must be exactly two classes.
        classes: Number K of classes, if it is known beforehand.
    """

    task: TaskName = "multiclass"
    _dims = 2

    def __init__(self, kind: str, *, binary: bool = False, classes: int | None = None) -> None:
        self.kind, self.binary, self.classes = kind, binary, classes
        self.warning: str | None = None
        if binary:
            self.task = "binary"

    def scores(self, output: Tensor) -> Tensor:
        """Class scores in logit space.

        Args:
            output: Shape ``(n, K)``; ``(n,)`` or ``(n, 1)`` for ``one_logit`` and for the probability of class 1. For segments
                with a further dimension T before that of the classes.

        Returns:
            Float64 ``(n, K)`` or ``(n, T, K)`` on the CPU; log-probabilities where the model gives probabilities, ``(0, z)`` for
            one logit z.

        Raises:
            ModelError: If the outputs are not what the spec says they are.
        """
        values = _by_class(output.detach().double().cpu(), self.kind, self._dims)
        if self.kind == "one_logit" and len(values) > 1:
            single = values[..., 1]
            if bool(((single > 0) & (single < 1)).all()):
                self.warning = "All outputs lie between 0 and 1: they look like probabilities, the spec says one_logit (a probability per sample is outputs.kind probabilities)."
        if self.binary and values.shape[-1] != 2:
            raise ModelError(
                f"task 'binary' expects 2 classes, the model gives {values.shape[-1]}."
            )
        if self.classes is not None and values.shape[-1] != self.classes:
            raise ModelError(
                f"the model gives {values.shape[-1]} class scores where {self.classes} classes are known."
            )
        self.classes = values.shape[-1]
        return self._logarithms(values)

    def _logarithms(self, values: Tensor) -> Tensor:
        finite = torch.isfinite(values).all(-1)
        known = values[finite]
        if self.kind == "probabilities":
            if len(known) and (known.min() < -1e-4 or (known.sum(1) - 1).abs().max() > 1e-2):
                raise ModelError(
                    "outputs.kind is 'probabilities', but the rows do not sum to 1: are they logits?"
                )
            return _log(values)
        if (
            self.kind == "log_probabilities"
            and len(known)
            and (known.exp().sum(1) - 1).abs().max() > 1e-2
        ):
            raise ModelError(
                "outputs.kind is 'log_probabilities', but their exponentials do not sum to 1: are they logits?"
            )
        if (
            self.kind == "logits"
            and len(known)
            and known.min() >= 0
            and (known.sum(1) - 1).abs().max() < 1e-4
        ):
            self.warning = "The outputs sum to 1 in every row: they look like probabilities, the spec says logits."
        return values

    def rows(self, batch: Batch) -> Rows:
        """Rows of a batch: one for each sample.

        Raises:
            DataError: If the batch has no labels.
        """
        return sample_rows(batch, _targets(batch))

    def said(self, scores: Tensor, names: Sequence[str] | None) -> tuple[str, float | None]:
        """The most likely class of one sample's scores ``(K,)``, and its probability."""
        confidence, found = torch.softmax(scores, -1).max(-1)
        return _name(int(found), names), float(confidence)

    def told(self, target: np.ndarray, names: Sequence[str] | None) -> str:
        """The class of one sample."""
        return _name(int(target), names)

    def picked(self, scores: Tensor, rows: Rows) -> Tensor:
        """Class scores of rows: ``(S, n, ...)`` to ``(S, r, K)``."""
        return rows.pick(scores)

    def judged(self, scores: Tensor, rows: Rows) -> dict[str, np.ndarray]:
        """What is right about the predictions.

        Args:
            scores: Scores of samples as :meth:`scores` gives them, of S coalitions (or other versions of them):
                ``(S, n, ...)``.
            rows: Of these samples.

        Returns:
            ``prediction``, ``correct``, ``loglik`` (nats), ``confidence``, ``entropy`` (nats), each ``(r, S)``.

        Raises:
            DataError: If a label is no class.
        """
        return _judged(self.picked(scores, rows), rows.truth)

    def columns(self, scores: Tensor, rows: Rows, responses: FloatArray) -> dict[str, np.ndarray]:
        """Columns of the coalition table.

        Args:
            scores: Scores of samples for every coalition, float64 ``(2**M, n, ...)``.
            rows: Of these samples.
            responses: Shapley weights, ``(M, 2**M)``: a row times the coalition axis is one mono-modal response.

        Returns:
            Column -> array of r rows, as ``report.tables.coalition_schema`` lists them.

        Raises:
            DataError: If a label is no class.
        """
        picked = self.picked(scores, rows)
        return {
            **_judged(picked, rows.truth),
            **_responses(picked, rows.truth, responses),
        }


class Segments(Classification):
    """Classification of each of T segments of a sample; a segment with a negative label is none."""

    task: TaskName = "segments"
    _dims = 3

    def rows(self, batch: Batch) -> Rows:
        """Rows of a batch: one for each segment that has a label.

        Raises:
            DataError: If the batch has no labels.
        """
        targets = _targets(batch)
        rows = part_rows(batch, targets >= 0, targets.astype(np.int64))
        return replace(rows, target=rows.truth.astype(np.int32))

    def said(self, scores: Tensor, names: Sequence[str] | None) -> tuple[str, float | None]:
        """The most likely class of each segment of one sample's scores ``(T, K)``."""
        return _listed([_name(int(k), names) for k in scores.argmax(-1)]), None

    def told(self, target: np.ndarray, names: Sequence[str] | None) -> str:
        """The class of each segment of one sample; a dash where there is none."""
        return _listed([_name(int(k), names) if k >= 0 else "–" for k in target])


class MultiLabel(Classification):
    """Yes or no for each of L labels of a sample; a label that is neither 0 nor 1 is left out.

    Args:
        kind: ``logits`` (or ``one_logit``), ``probabilities`` or ``log_probabilities``, one of each label.
        classes: Number L of labels, if it is known beforehand.
    """

    task: TaskName = "multilabel"

    def __init__(self, kind: str, *, classes: int | None = None) -> None:
        super().__init__(kind, classes=classes)

    def scores(self, output: Tensor) -> Tensor:
        """Logits of "yes".

        Args:
            output: Shape ``(n, L)``, or ``(n,)`` for one label.

        Returns:
            Float64 ``(n, L)`` on the CPU.

        Raises:
            ModelError: If the outputs are not what the spec says they are.
        """
        values = label_scores(output.detach().double().cpu(), self.kind)
        if self.classes is not None and values.shape[1] != self.classes:
            raise ModelError(
                f"the model gives {values.shape[1]} outputs for each sample where {self.classes} labels are known."
            )
        self.classes = values.shape[1]
        known = values[torch.isfinite(values)]
        logits = self.kind in ("logits", "one_logit")
        if logits and len(values) > 1 and len(known) and 0 <= known.min() <= known.max() <= 1:
            self.warning = "All outputs lie between 0 and 1: they look like probabilities, the spec says logits (outputs.kind)."
        return values

    def rows(self, batch: Batch) -> Rows:
        """Rows of a batch: one for each label of each sample, where it is known.

        Raises:
            DataError: If the batch has no labels.
        """
        targets = _targets(batch)
        return part_rows(batch, targets >= 0, targets.astype(np.int64))

    def said(self, scores: Tensor, names: Sequence[str] | None) -> tuple[str, float | None]:
        """The labels that are more likely than not by one sample's scores ``(L,)``."""
        return self.told(np.asarray(scores > 0), names), None

    def told(self, target: np.ndarray, names: Sequence[str] | None) -> str:
        """The labels of one sample."""
        return _listed([_name(int(k), names) for k in np.flatnonzero(target > 0)]) or "none"

    def columns(self, scores: Tensor, rows: Rows, responses: FloatArray) -> dict[str, np.ndarray]:
        """Columns of the coalition table, see :meth:`Classification.columns`; ``truth`` among them."""
        return {**super().columns(scores, rows, responses), "truth": rows.truth}

    def picked(self, scores: Tensor, rows: Rows) -> Tensor:
        """Scores of "no" and "yes": ``(S, n, L)`` to ``(S, r, 2)``."""
        yes = rows.pick(scores)
        return torch.stack([torch.zeros_like(yes), yes], -1)


def class_scores(output: Tensor, kind: str, *, segments: bool = False) -> Tensor:
    """Class scores that gradients flow through.

    Args:
        output: As :meth:`Classification.scores` takes it.
        kind: What the outputs are.
        segments: Whether there is a dimension of segments before that of the classes.

    Returns:
        Float32 or wider, ``(n, K)`` or ``(n, T, K)``, in logit space, on the device of the output.

    Raises:
        ModelError: If the shape is not what the kind says.
    """
    values = _by_class(_wide(output), kind, 3 if segments else 2)
    return _log(values) if kind == "probabilities" else values


def label_scores(output: Tensor, kind: str) -> Tensor:
    """Logits of yes-or-no labels that gradients flow through.

    Args:
        output: Shape ``(n, L)``, or ``(n,)`` for one label.
        kind: What the outputs are.

    Returns:
        Float32 or wider, ``(n, L)``, on the device of the output.

    Raises:
        ModelError: If the shape or the values are not what the kind says.

    Example:
        >>> label_scores(torch.tensor([[0.5, 0.75]]), "probabilities").round(decimals=3).tolist()
        [[0.0, 1.0989999771118164]]
    """
    values = _wide(output)
    values = values.unsqueeze(1) if values.dim() == 1 else values
    if values.dim() != 2:
        raise ModelError(
            f"outputs have shape {tuple(output.shape)}; task 'multilabel' expects (n, L), one for each label."
        )
    if kind in ("logits", "one_logit"):
        return values
    known = values.detach()[torch.isfinite(values.detach())]
    if kind == "probabilities":
        if len(known) and (known.min() < -1e-4 or known.max() > 1 + 1e-4):
            raise ModelError(
                "outputs.kind is 'probabilities', but some are below 0 or above 1: are they logits?"
            )
        return _log(values) - _log(1 - values)
    if len(known) and known.max() > 1e-4:
        raise ModelError(
            "outputs.kind is 'log_probabilities', but some are above 0: are they logits?"
        )
    return values - _log(-torch.expm1(values))


def _name(index: int, names: Sequence[str] | None) -> str:
    return names[index] if names and index < len(names) else str(index)


def _listed(words: list[str]) -> str:
    shown = ", ".join(words[:_MOST_NAMED])
    return f"{shown}, ... ({len(words)})" if len(words) > _MOST_NAMED else shown


def _targets(batch: Batch) -> np.ndarray:
    if batch.targets is None:
        raise DataError("the audit needs labels: name their path under 'target'.")
    return batch.targets


def _wide(output: Tensor) -> Tensor:
    return output if output.dtype is torch.float64 else output.float()


def _judged(scores: Tensor, truth: np.ndarray) -> dict[str, np.ndarray]:
    S, r, _ = scores.shape
    y = _checked(scores, truth)
    logp = torch.log_softmax(scores, -1)
    confidence, prediction = logp.max(-1)
    columns = {
        "prediction": prediction.T,
        "correct": (prediction == y).T,
        "loglik": logp.gather(-1, y.expand(S, r).unsqueeze(-1)).squeeze(-1).T,
        "confidence": confidence.exp().T,
        "entropy": torch.special.entr(logp.exp()).sum(-1).T,
    }
    return {name: value.numpy() for name, value in columns.items()}


def _responses(scores: Tensor, truth: np.ndarray, responses: FloatArray) -> dict[str, np.ndarray]:
    """What is right about mono-modal responses, for both rules for the empty coalition."""
    r, y = scores.shape[1], _checked(scores, truth)
    # Per row: what a difference of logits is small beside.
    scale = scores.abs().amax((0, 2)).unsqueeze(-1)
    weights = torch.as_tensor(np.asarray(responses), dtype=torch.float64)
    zeroed = weights.clone()
    zeroed[:, 0] = 0
    columns: dict[str, Tensor] = {}
    for empty, table in (("exact", weights), ("zero", zeroed)):
        phi = torch.einsum("ms,snk->mnk", table, scores)
        top = phi.max(-1, keepdim=True).values
        best = phi >= top - TIE * scale
        hit = best.gather(-1, y.expand(len(phi), r).unsqueeze(-1)).squeeze(-1)
        loglik = (
            torch.log_softmax(phi, -1).gather(-1, y.expand(len(phi), r).unsqueeze(-1)).squeeze(-1)
        )
        columns[f"response_prediction_{empty}"] = phi.argmax(-1).T
        columns[f"response_score_{empty}"] = (hit / best.sum(-1)).T
        columns[f"response_loglik_{empty}"] = loglik.clamp(min=LEAST_LOGLIK).T
        if empty == "exact":
            size = (phi - phi.mean(-1, keepdim=True)).abs().amax(-1)
            columns["response_size"] = size.where(size > NOTHING * scale.squeeze(-1), 0.0).T
    return {name: value.numpy() for name, value in columns.items()}


def _checked(scores: Tensor, truth: np.ndarray) -> Tensor:
    K = scores.shape[-1]
    if len(truth) and (truth.min() < 0 or truth.max() >= K):
        wrong = int(np.flatnonzero((truth < 0) | (truth >= K))[0])
        raise DataError(f"target {truth[wrong]} is no class: the model has {K} (0 to {K - 1}).")
    return torch.as_tensor(truth, dtype=torch.long)


def _by_class(values: Tensor, kind: str, dims: int) -> Tensor:
    """One column per class, also where the model gives one number per sample or segment."""
    shape, expected = tuple(values.shape), "(n, K)" if dims == 2 else "(n, T, K)"
    single = values[..., 0] if values.dim() == dims and values.shape[-1] == 1 else values
    if kind == "one_logit":
        if single.dim() != dims - 1:
            fits = "(n,) or (n, 1)" if dims == 2 else "(n, T) or (n, T, 1)"
            raise ModelError(f"outputs have shape {shape}; 'one_logit' expects {fits}.")
        return torch.stack([torch.zeros_like(single), single], -1)
    if kind == "probabilities" and single.dim() == dims - 1:
        return torch.stack([1 - single, single], -1)
    if values.dim() != dims or values.shape[-1] < 2:
        hint = ""
        if values.dim() == dims - 1 or values.shape[-1] == 1:
            each = "sample" if dims == 2 else "segment"
            hint = f" (one number per {each}: outputs.kind one_logit, or probabilities after a sigmoid?)"
        if dims == 2 and values.dim() == 3:
            hint = " (scores for each of several segments: task segments?)"
        what = "classification" if dims == 2 else "task 'segments'"
        raise ModelError(
            f"outputs have shape {shape}; {what} expects {expected} with K >= 2{hint}."
        )
    return values


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
