"""Adaptive gradient modulation (AGM): every modality is slowed down or sped up against its own history.

Li, Li, Hu, Lei, Li, Zhang: *Boosting Multi-modal Model Performance with Adaptive Gradient Modulation*, ICCV 2023.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.exceptions import ModelError
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.remedies.base import Remedy, RemedyOptions
from mmaudit.training.hooks import Means, State, Training
from mmaudit.training.order import MicroBatch
from mmaudit.training.task import Labelled

__all__ = [
    "AGM",
    "AGMOptions",
    "modulation_coefficients",
    "strength_ratios",
    "surplus_coefficients",
]

LARGEST_NLL = 18.420681
"""-log(1e-8): where the authors' code cuts a loss off, so that ratios stay finite."""


def strength_ratios(losses: Tensor) -> Tensor:
    """How much stronger each modality is than the others.

    r^m = exp( 1/(M-1) * sum over j != m of (s^j - s^m) )        (eq. 7, 9)

    Args:
        losses: Cross-entropy s^m of each mono-modal response, nats, shape ``(M,)``; lower is stronger.

    Returns:
        Shape ``(M,)``, above 0; their product is 1. All 1 where M is 1.

    Example:
        >>> strength_ratios(torch.tensor([0.5, 1.2], dtype=torch.float64))
        tensor([2.0138, 0.4966], dtype=torch.float64)
    """
    M = len(losses)
    if M == 1:
        return torch.ones_like(losses)
    return torch.exp((losses.sum() - M * losses) / (M - 1))


def modulation_coefficients(
    losses: Tensor, history: Tensor, *, alpha: float, cap: float | None = None
) -> Tensor:
    """Factor on the gradient of each modality.

    kappa^m = exp( -alpha * (r^m - tau^m) ), tau^m being r^m of the running mean losses        (eq. 8)

    Args:
        losses: s^m of this step, shape ``(M,)``, nats.
        history: Running means of s^m *before* this step, shape ``(M,)``; zeros at the first.
        alpha: Strength, at least 0.
        cap: Largest ``tau - r``; ``None`` for none.

    Returns:
        Shape ``(M,)``, above 0: below 1 for a modality that is stronger than it was.

    Example:
        >>> s = torch.tensor([0.5, 1.2], dtype=torch.float64)
        >>> modulation_coefficients(s, torch.zeros(2, dtype=torch.float64), alpha=1.0)
        tensor([0.3629, 1.6544], dtype=torch.float64)
    """
    surplus = strength_ratios(history) - strength_ratios(losses)
    if cap is not None:
        surplus = surplus.clamp(max=cap)
    return torch.exp(alpha * surplus)


def surplus_coefficients(kappa: Tensor, weights: Tensor) -> Tensor:
    """What each coalition's pass adds to the gradient of joint training, as a multiple of the gradient at the full output.

    The output is the sum of the mono-modal responses, and kappa^m scales what flows back through the response of m: the pass of
    coalition S gets ``sum over m of kappa^m w_mS``, w being the Shapley weights without the empty coalition. For kappa = 1 that
    is 1 for the grand coalition and 0 for the others, which is taken off here: kappa = 1 is plain training bit for bit.

    Args:
        kappa: Shape ``(M,)``.
        weights: Shapley weights of coalitions 1 to 2**M - 1, shape ``(M, 2**M - 1)``; the last is the grand coalition.

    Returns:
        Shape ``(2**M - 1,)``.

    Example:
        >>> weights = torch.as_tensor(shapley_matrix(2)[:, 1:])
        >>> surplus_coefficients(torch.tensor([0.5, 2.0], dtype=torch.float64), weights)
        tensor([-0.7500,  0.7500,  0.2500], dtype=torch.float64)
    """
    return (kappa - 1) @ weights


class AGMOptions(RemedyOptions):
    """Settings of :class:`AGM`."""

    alpha: float = Field(default=1.0, ge=0)
    cap: float | None = Field(default=10.0, gt=0)
    first_epoch: int = Field(default=1, ge=0)
    last_epoch: int | None = Field(default=None, ge=0)
    coalitions: Literal["reuse", "separate"] = "reuse"
    routing: Literal["outputs", "parameters"] = "outputs"


class AGM(Remedy):
    """Adaptive gradient modulation.

    What it changes:
        The model's output is the sum of one mono-modal response per modality (their Shapley values in logit space). The
        gradient that flows back through the response of modality m is multiplied by kappa^m, which is below 1 while m is
        stronger than its own history says and above 1 while it is weaker. No parameter has to belong to a modality, so that
        every kind of fusion is served. The loss itself stays that of joint training.

    When it helps:
        One modality learns fast and the others stop learning. Where modalities are balanced kappa stays near 1. It needs a
        masked input that means something; with many modalities the coalition passes become dear (2**M - 1 of them).

    Cost:
        ``coalitions="reuse"``: one forward of a masked sample per modality, and the part after the encoders once per coalition.
        ``"separate"``: 2**M - 1 forward and backward passes.

    Hyperparameters:
        alpha: Strength; the authors use 1.5 to 6. 0 is plain training.
        cap: Largest ``tau - r``; the authors use 10, 7 or none.
        first_epoch, last_epoch: Epochs in which gradients are modulated, both included, counted from 1.
        coalitions: ``reuse`` takes what the encoders returned in the step's own (training mode) pass wherever their modality is
            present; ``separate`` runs every coalition whole, in evaluation mode, as the authors do. Equal where encoders hold
            neither batch normalisation nor dropout. ``reuse`` is the default by measurement (``tests.benchmarks.study``): MNIST x
            FSDD degraded, late fusion with batch normalisation, five seeds, five epochs, each tuned on the same validation grid:
            test accuracy .954 +- .008 (joint .956 +- .006) against .925 +- .007, audio response .43 against .36, at 1.13 joint
            steps against 2.83. ``separate`` diverged at the grid's larger learning rate (.04).
        routing: ``outputs`` as above. ``parameters`` multiplies the gradients of the parameters that see one modality alone
            (eq. 6, late fusion); its coalition passes need no gradients.

    Source:
        Li et al. 2023, eq. 1 to 10; the authors' released code for order and conventions.

    Differences from the authors' code:
        After ``last_epoch`` kappa returns to 1 (released: stays at its last value). Losses and coefficients are float64.
        Non-finite responses stop the training. Samples that lack a modality do not count in its loss. ``reuse`` is ours.
    """

    key = "agm"
    title = "AGM"
    Options = AGMOptions
    options: AGMOptions

    def prepare(self, run: Training) -> nn.Module:
        """Find encoders and parameter groups."""
        model = super().prepare(run)
        options, M = self.options, len(self.modalities)
        weights = torch.as_tensor(shapley_matrix(M)[:, 1:], dtype=torch.float64, device=run.device)
        self._weights, self._history = (
            weights,
            torch.zeros(M, dtype=torch.float64, device=run.device),
        )
        self._steps = 0
        self._kappa = torch.ones(M, dtype=torch.float64, device=run.device)
        self._evaluator = self.evaluator(
            run,
            differentiable=options.routing == "outputs",
            reuse=options.coalitions == "reuse",
        )
        self._recorded = Means(
            [f"{what} {name}" for what in ("kappa", "response loss") for name in self.modalities]
        )
        self._groups = self._parameter_groups(run) if options.routing == "parameters" else []
        return model

    def loss(self, run: Training, batch: Labelled, micro: MicroBatch, part: int) -> Tensor:
        """Cross-entropy of the full output, with gradients that flow back as kappa says."""
        outputs = [self.task.scores(o) for o in self._evaluator.training_step(batch.masked)]
        whole = outputs[-1]
        share = run.share(self.task.loss(whole, batch), micro)
        with torch.no_grad():
            losses = self._response_losses(run, torch.stack(outputs).double(), batch)
            active = self._active(micro.epoch)
            kappa = (
                modulation_coefficients(
                    losses, self._history, alpha=self.options.alpha, cap=self.options.cap
                )
                if active
                else torch.ones_like(losses)
            )
            self._steps += 1
            self._history += (losses - self._history) / self._steps
            self._recorded.add(torch.cat([kappa, losses]))
        if not active:
            return share
        if self.options.routing == "parameters":
            self._kappa = kappa
            return share
        (gradient,) = torch.autograd.grad(share, whole, retain_graph=True)
        coefficients = surplus_coefficients(kappa, self._weights).to(whole.dtype)
        surplus = (coefficients[:, None, None] * gradient * torch.stack(outputs)).sum()
        return share + (surplus - surplus.detach())  # the value stays that of the loss

    def after_backward(self, run: Training, micro: MicroBatch) -> None:
        """Scale parameter groups, where routing says so."""
        if self._active(micro.epoch):
            for m, parameters in enumerate(self._groups):
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.mul_(self._kappa[m].to(parameter.grad.dtype))

    def coefficients(self) -> dict[str, float]:
        """Kappa and the loss of each response, over the epoch."""
        return self._recorded.take()

    def state(self) -> State:
        """Running means and their count."""
        return {"history": self._history, "steps": self._steps}

    def load_state(self, state: State) -> None:
        """Running means and their count."""
        history = state["history"]
        assert isinstance(history, Tensor)
        self._history, self._steps = history.to(self._history.device), int(state["steps"])

    def _active(self, epoch: int) -> bool:
        options = self.options
        inside = options.first_epoch <= epoch and (
            options.last_epoch is None or epoch <= options.last_epoch
        )
        return inside and options.alpha > 0

    def _response_losses(self, run: Training, outputs: Tensor, batch: Labelled) -> Tensor:
        """s^m over the samples of all processes that have m, float64 ``(M,)``."""
        responses = torch.einsum("ms,snk->mnk", self._weights, outputs)
        targets = batch.targets.expand(len(responses), -1)
        nll = F.cross_entropy(responses.transpose(1, 2), targets, reduction="none")
        has = batch.present.T.double()
        sums = run.reduce(
            torch.stack([(nll.clamp(max=LARGEST_NLL).where(has > 0, 0.0)).sum(1), has.sum(1)])
        )
        if not bool(torch.isfinite(sums).all()):
            raise ModelError(
                "AGM: a coalition of modalities gives outputs that are not finite: take a lower lr, set clip, or look at the mask."
            )
        # A modality that no sample of this step has keeps what is known of it.
        return torch.where(sums[1] > 0, sums[0] / sums[1].clamp(min=1), self._history)

    def _parameter_groups(self, run: Training) -> list[list[nn.Parameter]]:
        assert self.structure is not None
        groups, known = self.structure.record.parameter_groups, dict(run.model.named_parameters())
        without = [name for name in self.modalities if not groups.get(name)]
        if without:
            raise ModelError(
                f"AGM with routing 'parameters' scales what sees one modality alone, and nothing sees {without[0]} alone: "
                "use routing 'outputs'."
            )
        return [[known[name] for name in groups[modality]] for modality in self.modalities]
