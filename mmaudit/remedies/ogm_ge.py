"""On-the-fly gradient modulation with generalisation enhancement (OGM-GE): the modality that is ahead is slowed down.

Peng, Wei, Deng, Wang, Hu: *Balanced Multimodal Learning via On-the-fly Gradient Modulation*, CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmaudit.exceptions import ModelError
from mmaudit.masking.base import stable_hash
from mmaudit.remedies.base import Remedy, RemedyOptions
from mmaudit.remedies.drawing import standard_normals
from mmaudit.remedies.modality_weights import Kind, ModalityWeight, modality_weights
from mmaudit.remedies.unimodal_scores import How, find_unimodal_scores
from mmaudit.training.hooks import Means, Training
from mmaudit.training.order import MicroBatch
from mmaudit.training.task import Labelled

__all__ = [
    "OGM",
    "OGMGE",
    "OGMGEOptions",
    "OGMOptions",
    "modulate_",
    "modulation_coefficients",
    "sample_noise",
    "score_ratios",
    "true_class_scores",
]

EPS = 1e-8
"""Smallest denominator of a ratio, and the least spread of the noise."""
TIE = 1e-9
"""Ratios this close above 1 are ties: the coefficient jumps at 1, and rounding must not decide."""
_LARGE = 2**16
"""Entries from which the time that a spread takes matters."""


def true_class_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Probability that each modality alone gives to the true class.

    s_i^m = softmax(f^m(x_i))_{y_i}        (eq. 7, 8)

    Args:
        logits: f^m, shape ``(M, n, K)``.
        targets: Classes, int64 ``(n,)``.

    Returns:
        Shape ``(M, n)``, in [0, 1]; higher is stronger.
    """
    index = targets.expand(len(logits), -1).unsqueeze(2)
    return logits.softmax(2).gather(2, index).squeeze(2)


def score_ratios(sums: Tensor, counts: Tensor) -> Tensor:
    """How far each modality is ahead of the others.

    rho^m = s^m / mean over j != m of s^j        (eq. 9, there for two modalities)

    s^m is the mean score over the samples that have m; where all samples have all modalities this is the ratio of sums over the
    batch (and not the mean of ratios).

    Args:
        sums: Sum of the scores over the samples that have the modality, shape ``(M,)``.
        counts: Number of these samples, shape ``(M,)``. A modality that no sample has takes no part: its ratio is 1.

    Returns:
        Shape ``(M,)``; 1 where there is nothing to compare with.

    Example:
        >>> score_ratios(torch.tensor([1.0, 0.5]), torch.tensor([2.0, 2.0]))
        tensor([2.0000, 0.5000])
    """
    has = (counts > 0).to(sums.dtype)
    means = sums / counts.clamp(min=1) * has
    others = (means.sum() - means, has.sum() - has)
    ratios = means / (others[0] / others[1].clamp(min=1)).clamp(min=EPS)
    return torch.where((has > 0) & (others[1] > 0), ratios, torch.ones_like(ratios))


def modulation_coefficients(ratios: Tensor, *, alpha: float) -> Tensor:
    """Factor on the gradient of each modality.

    k^m = 1 - tanh(alpha * rho^m) if rho^m > 1, else 1        (eq. 10)

    Args:
        ratios: rho^m, shape ``(M,)``.
        alpha: Strength, at least 0.

    Returns:
        Shape ``(M,)``, in [0, 1]. It jumps: just above rho = 1 it is ``1 - tanh(alpha)``.

    Example:
        >>> modulation_coefficients(torch.tensor([1.5, 1.0, 0.5]), alpha=0.8)
        tensor([0.1663, 1.0000, 1.0000])
    """
    ones = torch.ones_like(ratios)
    return torch.where(ratios > 1 + TIE, 1 - torch.tanh(alpha * ratios), ones)


def modulate_(gradient: Tensor, k: Tensor, noise: Tensor | None = None) -> Tensor:
    """Scale a gradient in place and add noise as large as its entries are spread.

    g <- k g + (std(g) + 1e-8) e, e ~ N(0, 1) entry by entry        (released code)

    Args:
        gradient: Any shape; the spread is that of its entries before scaling, unbiased.
        k: Coefficient, shape ``()``.
        noise: e, of the gradient's shape; ``None`` for none. A single entry has no spread and gets none.

    Example:
        >>> modulate_(torch.tensor([3.0, -3.0, 1.0, -1.0]), torch.tensor(0.4), torch.tensor([0.0, 0.0, 0.0, 1.0]))
        tensor([ 1.2000, -1.2000,  0.4000,  2.1820])
    """
    if noise is None or gradient.numel() < 2:
        return gradient.mul_(k.to(gradient.dtype))
    spread = _spread(gradient) + EPS
    return gradient.mul_(k.to(gradient.dtype)).addcmul_(noise, spread)


def _spread(values: Tensor) -> Tensor:
    """Unbiased standard deviation of all entries."""
    if values.numel() < _LARGE:
        return values.std()
    # Two sums are as good to five digits where the mean is not far above the spread, and cost a third of std().
    flat, n = values.reshape(-1), values.numel()
    total = flat.sum()
    return ((flat.dot(flat) - total * total / n).clamp(min=0) / (n - 1)).sqrt()


def sample_noise(
    losses: Tensor, draws: Tensor, parameters: Sequence[Tensor], *, total: int
) -> list[Tensor]:
    """Noise with the covariance of stochastic gradients, as the paper wants it.

    h = gradient of 1/B * sum_i (e_i - mean e) l_i, e_i ~ N(0, 1)

    has exactly the covariance (1/B) [ (1/B) sum_i g_i g_i^T - g g^T ] of eq. 14, g_i being the gradient of sample i.

    Args:
        losses: Of this process's samples, with their graph, which is kept; shape ``(n,)``.
        draws: ``e_i - mean e`` of the same samples, the mean being over all of the step; shape ``(n,)``.
        parameters: What to differentiate by.
        total: Samples of the whole step, B.

    Returns:
        This process's share of h for each parameter; the shares of all add up to h.
    """
    weighted = (losses * draws.to(losses.dtype)).sum() / total
    return list(
        torch.autograd.grad(weighted, list(parameters), retain_graph=True, materialize_grads=True)
    )


class OGMOptions(RemedyOptions):
    """Settings of :class:`OGM`."""

    alpha: float = Field(default=0.8, ge=0)
    first_epoch: int = Field(default=1, ge=0)
    last_epoch: int | None = Field(default=None, ge=0)
    scores: How = "auto"
    parameters: Kind = "auto"


class OGMGEOptions(OGMOptions):
    """Settings of :class:`OGMGE`."""

    noise: Literal["tensor_spread", "sample_covariance", "none"] = "tensor_spread"


class OGM(Remedy):
    """On-the-fly gradient modulation, without noise.

    What it changes:
        After the backward pass of the joint loss, the gradients of the weights that see modality m alone are multiplied by k^m,
        which is below 1 while m alone predicts the batch better than the others do and 1 otherwise. Momentum, weight decay,
        biases, normalisation and what comes after the fusion are left alone.

    When it helps:
        One modality is ahead all the time and the encoders of the others stop learning. It needs weights that see one modality
        alone, or input channels that do, and a classification. With Adam-type optimisers a constant factor on a gradient
        largely cancels, and only changes of k act.

    Cost:
        Next to nothing where scores are read off the step's own pass (linear heads on concatenated or added features, outputs
        that are added). Elsewhere masked passes without gradients: one more forward of the encoders, and of the part after
        them once per coalition.

    Hyperparameters:
        alpha: Strength. 0.8 is what the authors advise for CREMA-D (0.1 for VGGSound); 0 is plain training.
        first_epoch, last_epoch: Epochs in which gradients are modulated, both included, counted from 1; left out, to the end.
            The authors modulate the first 51 of 100.
        scores: ``blocks`` reads the terms of a sum, W_m h_m + b/M; ``masking`` takes mono-modal responses in logit space (the
            empty coalition counting as 0), which equals it where a masked encoder gives 0; ``auto`` takes blocks where it can.
        parameters: ``conv`` scales weights with four dimensions, as released; ``weights`` all with two or more; ``auto`` the
            first where every modality has some. Where modalities are concatenated before the first weight, the blocks of that
            weight stand for them.

    Source:
        Peng et al. 2022, eq. 7 to 11; the authors' released code for what is scaled.

    Differences from the authors' code:
        A tie leaves all modalities alone (released: the first is slowed down). More than two modalities: each against the mean of
        the others. Coefficients are detached float64, from sums over all processes and micro-batches of a step. Samples that
        lack a modality do not count in its score.
    """

    key = "ogm"
    title = "OGM"
    Options = OGMOptions
    options: OGMOptions

    def prepare(self, run: Training) -> nn.Module:
        """Find out where unimodal scores are read and which weights are scaled."""
        model = super().prepare(run)
        self._scores = find_unimodal_scores(self, run, self.options.scores)
        self._weights = modality_weights(self, run, self.options.parameters)
        names = self.modalities
        self._recorded = Means([f"{what} {name}" for what in ("k", "rho") for name in names])
        self._sums = torch.zeros(2, len(names), dtype=torch.float64, device=run.device)
        if run.recipe.optimizer != "sgd":
            self.notes.append(
                f"With {run.recipe.optimizer} a constant factor on a gradient largely cancels in the update, so that only changes "
                "of the coefficients act; the authors use sgd."
            )
        return model

    def loss(self, run: Training, batch: Labelled, micro: MicroBatch, part: int) -> Tensor:
        """Cross-entropy of the joint output; what each modality alone says is noted on the way."""
        if not self._active(micro.epoch):
            return run.joint_loss(batch, micro)
        whole, alone = self._scores.forward(run, batch)
        losses = self.task.loss(whole, batch)
        with torch.no_grad():
            has = batch.present.T.double()
            scores = true_class_scores(alone, batch.targets).where(has > 0, 0.0)
            self._sums += torch.stack([scores.sum(1), has.sum(1)])
        self._look_at(run, losses, micro)
        return run.share(losses, micro)

    def after_backward(self, run: Training, micro: MicroBatch) -> None:
        """Scale the gradients of every modality's weights."""
        if not self._active(micro.epoch):
            return
        sums, counts = run.reduce(self._sums)
        self._sums = torch.zeros_like(self._sums)
        ratios = score_ratios(sums, counts)
        k = modulation_coefficients(ratios, alpha=self.options.alpha)
        self._recorded.add(torch.cat([k, ratios]))
        self._modulate(run, k, micro)

    def coefficients(self) -> dict[str, float]:
        """Coefficients and ratios over the epoch.

        Raises:
            ModelError: If a ratio was not finite, which would otherwise pass for "not ahead".
        """
        found = self._recorded.take()
        if not all(math.isfinite(value) for value in found.values()):
            raise ModelError(
                f"{self.title}: what a modality alone says was not finite: take a lower lr, set clip, or look at the mask."
            )
        return found

    def _active(self, epoch: int) -> bool:
        first, last = self.options.first_epoch, self.options.last_epoch
        return first <= epoch and (last is None or epoch <= last)

    def _look_at(self, run: Training, losses: Tensor, micro: MicroBatch) -> None:
        """Per-sample losses of a micro-batch, before the step's backward."""

    def _modulate(self, run: Training, k: Tensor, micro: MicroBatch) -> None:
        """Change the gradients of the step, given the coefficients ``(M,)``."""
        self._scale(k)

    def _scale(self, k: Tensor, seed: Callable[[ModalityWeight], int] | None = None) -> None:
        """Multiply by the coefficients; with seeds, add noise as large as each gradient's entries are spread."""
        parts = [
            (w, _block(w.parameter.grad, w)) for w in self._weights if w.parameter.grad is not None
        ]
        noises: Iterable[Tensor | None] = repeat(None)
        if seed is not None:
            noises = standard_normals([part for _, part in parts], [seed(w) for w, _ in parts])
        for (weight, part), noise in zip(parts, noises, strict=False):
            modulate_(part, k[weight.modality], noise)
            if weight.channels is not None and weight.parameter.grad is not None:
                weight.parameter.grad.index_copy_(1, weight.channels, part)


class OGMGE(OGM):
    """On-the-fly gradient modulation with generalisation enhancement.

    What it changes:
        As OGM (gradients of the weights that see the leading modality alone are multiplied by k < 1), and the gradients of all
        modalities' weights get Gaussian noise, also where k is 1, to give back the gradient noise that slowing down takes away.

    When it helps:
        As OGM. Reported gains depend on the set-up (CREMA-D 51.7 to 61.9 in the paper; users found less): compare with ``ogm`` and
        with plain joint training of the same budget. With Adam-type optimisers a constant factor largely cancels.

    Cost:
        As OGM, and one draw per weight; with noise ``sample_covariance`` one more backward pass through the modalities' weights.

    Hyperparameters:
        alpha, first_epoch, last_epoch, scores, parameters: As OGM.
        noise: ``tensor_spread``, as released: independent entries with the standard deviation of the entries of the weight's
            gradient. ``sample_covariance``, as in the paper: noise with the covariance of the mini-batch gradient. ``none``: OGM.

    Source:
        Peng et al. 2022, eq. 7 to 18; the authors' released code for what is scaled and for the noise.

    Differences from the authors' code:
        Those of OGM. Noise comes from a generator seeded by recipe and step: it is the same on all processes and in a resumed run.
        A weight with a single entry gets no noise (released: NaN).
    """

    key = "ogm_ge"
    title = "OGM-GE"
    Options = OGMGEOptions
    options: OGMGEOptions

    def prepare(self, run: Training) -> nn.Module:
        """As OGM."""
        model = super().prepare(run)
        # Each parameter once: two modalities may have blocks of the same one.
        self._parameters = list({id(w.parameter): w.parameter for w in self._weights}.values())
        self._noise: list[Tensor] | None = None
        return model

    def _look_at(self, run: Training, losses: Tensor, micro: MicroBatch) -> None:
        if self.options.noise != "sample_covariance":
            return
        generator = torch.Generator().manual_seed(self._seed(run, micro))
        draws = torch.randn(micro.total, generator=generator)
        draws = (draws - draws.mean())[list(micro.places)].to(run.device)
        found = sample_noise(losses, draws, self._parameters, total=micro.total)
        if self._noise is None:
            self._noise = found
        else:
            torch._foreach_add_(self._noise, found)

    def _modulate(self, run: Training, k: Tensor, micro: MicroBatch) -> None:
        if self.options.noise == "tensor_spread":
            self._scale(k, lambda w: self._seed(run, micro, w.name, self.modalities[w.modality]))
            return
        self._scale(k)
        if self.options.noise == "sample_covariance":
            self._add_sample_noise(run)

    def _add_sample_noise(self, run: Training) -> None:
        assert self._noise is not None
        noise = {
            id(parameter): run.reduce(share)
            for parameter, share in zip(self._parameters, self._noise, strict=True)
        }
        self._noise = None
        for weight in self._weights:
            gradient, added = weight.parameter.grad, noise[id(weight.parameter)]
            if gradient is None:
                continue
            if weight.channels is None:
                gradient.add_(added)
            else:
                gradient.index_add_(1, weight.channels, _block(added, weight))

    def _seed(self, run: Training, micro: MicroBatch, *what: str) -> int:
        """Of a step: the same on every process and in a resumed run."""
        return stable_hash(self.key, run.recipe.seed, micro.step, *what)


def _block(gradient: Tensor, weight: ModalityWeight) -> Tensor:
    """The modality's part of a gradient: itself, or a copy of some input channels."""
    return gradient if weight.channels is None else gradient.index_select(1, weight.channels)
