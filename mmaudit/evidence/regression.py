"""The value function of a regression: the worth of a coalition is how small its squared errors are.

Per row the table keeps the predicted number and the negative squared error, the stand-in of the log-likelihood. R2 divides the
sum of the errors by the spread of the target, so that it is no matter of single rows: it is made where rows are summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmaudit.evidence.rows import Rows, part_rows
from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.batches import Batch
from mmaudit.typing import FloatArray, TaskName

__all__ = ["Regression", "value_scores"]

_MOST_NAMED = 8
_ROUNDING = 4 * float(torch.finfo(torch.float32).eps)
"""A response is none where it does not exceed this share of the row's largest absolute prediction."""


class Regression:
    """Prediction of D numbers for each sample; a number that is NaN in the target is left out.

    What modality m alone predicts is the prediction of the empty coalition plus its Shapley share of what all modalities
    together add to it (rule ``exact``), or that share alone where the empty coalition counts as 0 (rule ``zero``).

    Args:
        classes: How many numbers D are predicted, if it is known beforehand.
    """

    task: TaskName = "regression"

    def __init__(self, *, classes: int | None = None) -> None:
        self.classes = classes
        self.warning: str | None = None

    def scores(self, output: Tensor) -> Tensor:
        """Predictions.

        Args:
            output: Shape ``(n, D)``, or ``(n,)`` for one number.

        Returns:
            Float64 ``(n, D)`` on the CPU.

        Raises:
            ModelError: If the shape is another.
        """
        values = value_scores(output.detach().double().cpu())
        if self.classes is not None and values.shape[1] != self.classes:
            raise ModelError(
                f"the model gives {values.shape[1]} numbers for each sample where {self.classes} are known."
            )
        self.classes = values.shape[1]
        return values

    def rows(self, batch: Batch) -> Rows:
        """Rows of a batch: one for each predicted number of each sample, where it is known.

        Raises:
            DataError: If the batch has no targets.
        """
        if batch.targets is None:
            raise DataError("the audit needs the true numbers: name their path under 'target'.")
        rows = part_rows(batch, ~np.isnan(batch.targets), batch.targets)
        if rows.parts > 1:
            return rows
        # One number is the sample itself: no part in its id, and no group of its own.
        ids = [batch.ids[i] for i in rows.sample]
        groups = rows.groups if batch.groups is not None else [None] * len(rows)
        return Rows(ids, groups, rows.sample, rows.part, rows.target, rows.truth)

    def said(self, scores: Tensor, names: Sequence[str] | None) -> tuple[str, float | None]:
        """The numbers of one sample ``(D,)``."""
        return self.told(scores.numpy(), names), None

    def told(self, target: np.ndarray, names: Sequence[str] | None) -> str:
        """The true numbers of one sample; a dash where one is unknown."""
        shown = [f"{value:.4g}" if np.isfinite(value) else "–" for value in target[:_MOST_NAMED]]
        return ", ".join(shown) + (f", ... ({len(target)})" if len(target) > _MOST_NAMED else "")

    def judged(self, scores: Tensor, rows: Rows) -> dict[str, np.ndarray]:
        """How far predictions are off.

        Args:
            scores: Predictions of S coalitions (or other versions of them), ``(S, n, D)``.
            rows: Of these samples.

        Returns:
            ``prediction`` and ``loglik`` (negative squared error), float64, each ``(r, S)``.

        Raises:
            ModelError: If the model gives another number of numbers than the target has.
        """
        picked = rows.pick(scores)
        return {"prediction": picked.T.numpy(), "loglik": _off(picked, rows)}

    def columns(self, scores: Tensor, rows: Rows, responses: FloatArray) -> dict[str, np.ndarray]:
        """Columns of the coalition table.

        Args:
            scores: Predictions of every coalition, float64 ``(2**M, n, D)``.
            rows: Of these samples.
            responses: Shapley weights, ``(M, 2**M)``.

        Returns:
            Column -> array of r rows, as ``report.tables.coalition_schema`` lists them.
        """
        picked = rows.pick(scores)
        weights = torch.as_tensor(np.asarray(responses), dtype=torch.float64)
        # Together the rows of weights turn all but the empty prediction into what modalities add to it.
        share = weights @ picked
        alone = {"exact": picked[:1] + share, "zero": share - weights[:, :1] * picked[:1]}
        size = share.abs()
        found = size > _ROUNDING * picked.abs().amax(0)
        columns = {
            "truth": rows.truth,
            "prediction": picked.T.numpy(),
            "loglik": _off(picked, rows),
            "response_size": size.where(found, 0.0).T.numpy(),
        }
        for empty, prediction in alone.items():
            columns[f"response_prediction_{empty}"] = prediction.T.numpy()
            columns[f"response_loglik_{empty}"] = _off(prediction, rows)
        return columns


def value_scores(output: Tensor) -> Tensor:
    """Predicted numbers that gradients flow through, ``(n, D)``, float32 or wider.

    Raises:
        ModelError: If the shape is neither ``(n,)`` nor ``(n, D)``.
    """
    values = output if output.dtype is torch.float64 else output.float()
    values = values.unsqueeze(1) if values.dim() == 1 else values
    if values.dim() != 2:
        raise ModelError(
            f"outputs have shape {tuple(output.shape)}; task 'regression' expects (n,) or (n, D)."
        )
    return values


def _off(predictions: Tensor, rows: Rows) -> np.ndarray:
    """Negative squared errors of predictions ``(S, r)``, shape ``(r, S)``."""
    truth = torch.as_tensor(rows.truth, dtype=torch.float64)
    return np.asarray(-((predictions - truth) ** 2).T.numpy())
