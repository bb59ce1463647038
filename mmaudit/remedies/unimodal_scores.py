"""What each modality alone says of a sample, within a training step.

Where the class scores are a sum of one term per modality (a linear head on concatenated or added features, or one head per
modality whose outputs are added) the terms are read off the step's own forward, by watching it: no pass is added. Every other
fusion is asked by masking: mono-modal responses, from passes in evaluation mode. Which of the two holds is not read off
names but found out on an example, numerically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.tracing import CallKey
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.exceptions import ModelError
from mmaudit.masking.calling import Caller
from mmaudit.masking.paths import map_tensors
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.remedies.base import Remedy
from mmaudit.remedies.input_channels import Seen, channels_by_modality, watched
from mmaudit.training.hooks import Training
from mmaudit.training.task import Labelled, Task

__all__ = ["How", "UnimodalScores", "block_logits", "find_unimodal_scores"]

How: TypeAlias = Literal["auto", "blocks", "masking"]
"""``blocks`` reads terms of a sum, ``masking`` works for every fusion, ``auto`` takes the first where it can."""


class UnimodalScores(Protocol):
    """Evaluates a micro-batch together with what each modality alone says of it."""

    def forward(self, run: Training, batch: Labelled) -> tuple[Tensor, Tensor]:
        """One pass of a step.

        Returns:
            Class scores of the training-mode pass with its graph, ``(n, K)``; and class scores of every modality alone, detached,
            float64 ``(M, n, K)``.
        """


def block_logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Terms of a linear head's output, one per modality.

    f_m = W h_m + b / M        (Peng et al. 2022, with b/2 for their two modalities)

    Args:
        features: What each modality contributes to the head's input, ``(M, n, d)``; for concatenated features zero outside the
            modality's own columns, so that its block of W is what counts.
        weight: Of the head, ``(K, d)``.
        bias: Of the head, ``(K,)``.

    Returns:
        Shape ``(M, n, K)``; the sum over M is the head's output.

    Example:
        >>> h = torch.tensor([[[2.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.5]]])
        >>> block_logits(h, torch.tensor([[1.0, 0, 0, 1], [0, 1, -1, 0]]), torch.tensor([0.2, -0.2]))
        tensor([[[ 2.1000, -0.1000]],
        <BLANKLINE>
                [[ 0.6000, -0.1000]]])
    """
    terms = F.linear(features, weight)
    return terms if bias is None else terms + bias / len(features)


def find_unimodal_scores(remedy: Remedy, run: Training, how: How) -> UnimodalScores:
    """How the modalities of this model are asked one by one.

    Args:
        remedy: Its structure, task and example are used; what was found is added to its notes.
        run: The training, with its model on the device.
        how: What is allowed.

    Raises:
        ModelError: If ``blocks`` is asked for and the class scores are no sum of one term per modality.
    """
    if how != "masking":
        terms = _Finder(remedy, run).find()
        if terms is not None:
            remedy.notes.append(f"Unimodal scores are read off the step's own pass: {terms.words}.")
            return _BlockScores(remedy.task, terms)
        if how == "blocks":
            raise ModelError(
                f"{remedy.title} with scores 'blocks' needs class scores that are a sum of one term per modality, and no linear "
                "head on concatenated or added features, nor outputs that are added, were found: take scores 'masking'."
            )
    reason = "as asked" if how == "masking" else "the fusion is no sum of one term per modality"
    remedy.notes.append(f"Unimodal scores come from masked passes in evaluation mode: {reason}.")
    M = len(remedy.modalities)
    weights = torch.as_tensor(shapley_matrix(M)[:, 1:], dtype=torch.float64, device=run.device)
    return _MaskedScores(remedy.task, remedy.evaluator(run, differentiable=False), weights)


class _MaskedScores:
    """Mono-modal responses: Shapley values of the class scores, the empty coalition counting as zero."""

    def __init__(self, task: Task, evaluator: CoalitionEvaluator, weights: Tensor) -> None:
        self._task, self._evaluator, self._weights = task, evaluator, weights

    def forward(self, run: Training, batch: Labelled) -> tuple[Tensor, Tensor]:
        outputs = [self._task.scores(o) for o in self._evaluator.training_step(batch.masked)]
        with torch.no_grad():
            stacked = torch.stack(outputs).double()
            return outputs[-1], torch.einsum("ms,snk->mnk", self._weights, stacked)


@dataclass(frozen=True)
class _Terms:
    """Where a model's terms are."""

    words: str
    logits: Callable[[Seen], Tensor]
    """``(M, n, K)``, or ``(M, n, 1)`` of a model with one logit."""
    inputs: Mapping[str, nn.Module]
    outputs: Mapping[str, nn.Module]
    calls: frozenset[CallKey]
    """All calls of these modules in one forward."""


class _BlockScores:
    """Terms of the step's own output."""

    def __init__(self, task: Task, terms: _Terms) -> None:
        self._task, self._terms = task, terms

    def forward(self, run: Training, batch: Labelled) -> tuple[Tensor, Tensor]:
        terms, bf16 = self._terms, run.recipe.precision == "bf16"
        with (
            watched(inputs=terms.inputs, outputs=terms.outputs) as seen,
            torch.autocast(run.device.type, torch.bfloat16, enabled=bf16),
        ):
            scores = self._task.forward(run.model, batch)
        if seen.inputs.keys() | seen.outputs.keys() != terms.calls:
            raise ModelError(
                "modules that unimodal scores are read off are called otherwise in training than on the example in evaluation "
                "mode: take scores 'masking'."
            )
        with torch.no_grad():
            return scores, _by_class(terms.logits(seen)).double()


class _Finder:
    """Looks for terms on the example, in evaluation mode, and believes only in those that add up to the class scores."""

    def __init__(self, remedy: Remedy, run: Training) -> None:
        assert remedy.structure is not None
        self.task, self.model, self.M = remedy.task, run.model, len(remedy.modalities)
        self.caller = Caller(run.model, remedy.task.spec)
        self.modules = dict(run.model.named_modules())
        self.head_name = remedy.structure.record.head
        head = self.modules.get(self.head_name) if self.head_name is not None else None
        self.head = head if isinstance(head, nn.Linear) else None
        self.encoder_calls = remedy.structure.encoder_calls
        self.batch = remedy.task.place(remedy.example, run.device).masked

    def find(self) -> _Terms | None:
        encoders = {call.key[0]: self.modules[call.key[0]] for call in self.encoder_calls}
        heads = {self.head_name: self.head} if self.head_name and self.head is not None else {}
        with left_as_it_came(self.model), torch.no_grad():
            with watched(inputs=heads, outputs=encoders) as seen:
                scores = self.task.scores(self.caller(map_tensors(self.batch.whole, torch.clone)))
            for terms in self._candidates(seen):
                if _add_up(_by_class(terms.logits(seen)), scores):
                    return terms
        return None

    def _candidates(self, seen: Seen) -> Iterator[_Terms]:
        if len(seen.inputs) == 1 and self.head is not None:
            ((key, given),) = seen.inputs.items()
            if given.dim() == 2:
                for owners in self._owners(seen, key, given):
                    yield self._concatenated(key, owners)
                for how in _POOLINGS:
                    for factor in (1.0, 1 / self.M):
                        yield from self._added(seen, how, factor, self.head)
        for factor in (1.0, 1 / self.M):
            yield from self._added(seen, "flattened", factor, None)

    def _features(self, seen: Seen, how: str) -> list[tuple[CallKey, int, int, Tensor]]:
        """Call, place among its tensors, modality and one row per sample, of all that encoders returned."""
        found = []
        for call in self.encoder_calls:
            for place, tensor in enumerate(seen.outputs.get(call.key, ())):
                feature = _pooled(tensor, how, self.batch.n)
                if feature is not None:
                    found.append((call.key, place, call.modality, feature))
        return found

    def _owners(self, seen: Seen, key: CallKey, given: Tensor) -> Iterator[Tensor]:
        """Whose the columns of the head's input may be, bool ``(M, d)``; each column has one owner, each modality a column."""
        assert self.head is not None
        reach = channels_by_modality(self.model, self.caller, self.batch, {key[0]: self.head})[key]
        # By value first: a column that is zero on the example follows no change, but lies between others.
        for how in _POOLINGS:
            owners = _segments(given, self._features(seen, how), self.M)
            if owners is not None and not bool((reach & ~owners).any()):
                yield owners
        if bool((reach.sum(0) == 1).all()) and bool(reach.any(1).all()):
            yield reach

    def _concatenated(self, key: CallKey, owners: Tensor) -> _Terms:
        head = self.head
        assert head is not None
        columns = owners.to(head.weight.device, head.weight.dtype).unsqueeze(1)  # (M, 1, d)

        def logits(seen: Seen) -> Tensor:
            return block_logits(
                seen.inputs[key].to(columns.dtype) * columns,
                head.weight.detach(),
                None if head.bias is None else head.bias.detach(),
            )

        words = f"weight blocks of '{key[0]}', a linear head on concatenated features"
        return _Terms(words, logits, {key[0]: head}, {}, frozenset({key}))

    def _added(
        self, seen: Seen, how: str, factor: float, head: nn.Linear | None
    ) -> Iterator[_Terms]:
        """Features added (or averaged) before a shared head; without a head, outputs added."""
        live = {
            (call.key, i) for call in self.encoder_calls for i, on in enumerate(call.live) if on
        }
        parts = [part for part in self._features(seen, how) if part[:2] in live]
        width = None if head is None else head.in_features
        same = {tuple(feature.shape) for *_, feature in parts}
        everyone = {m for _, _, m, _ in parts} == set(range(self.M))
        if not everyone or len(same) != 1 or width not in (None, parts[0][3].shape[1]):
            return
        names = {key[0]: self.modules[key[0]] for key, *_ in parts}
        calls = frozenset(key for key in seen.outputs if key[0] in names)

        def logits(seen: Seen) -> Tensor:
            sums: list[Tensor | None] = [None] * self.M
            for key, place, m, _ in parts:
                tensor = seen.outputs[key][place]
                feature = _pooled(tensor, how, len(tensor))
                assert feature is not None
                known = sums[m]
                sums[m] = feature if known is None else known + feature
            features = torch.stack([total for total in sums if total is not None]) * factor
            if head is None:
                return features
            bias = None if head.bias is None else head.bias.detach()
            return block_logits(features.to(head.weight.dtype), head.weight.detach(), bias)

        words = (
            "the outputs of one module per modality, which the model adds"
            if head is None
            else f"'{self.head_name}', a linear head on added features, of each modality's features"
        )
        yield _Terms(words, logits, {}, names, calls)


_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "flattened": lambda t: t.flatten(1),
    "averaged": lambda t: t.flatten(2).mean(2),
    "largest": lambda t: t.flatten(2).amax(2),
    "averaged over steps": lambda t: t.mean(1),
    "last step": lambda t: t[:, -1],
}
"""From what encoders return, samples first, to one row per sample."""


def _pooled(tensor: Tensor, how: str, n: int) -> Tensor | None:
    if not tensor.is_floating_point() or not tensor.dim() or len(tensor) != n:
        return None
    if tensor.dim() <= 2:
        return tensor.reshape(n, -1)
    pooled = _POOLINGS[how](tensor)
    return pooled if pooled.dim() == 2 else None


def _segments(
    whole: Tensor, features: Sequence[tuple[CallKey, int, int, Tensor]], M: int
) -> Tensor | None:
    """Owner of every column, bool ``(M, d)``, where these are the features side by side, each used once."""
    at, owners, unused = 0, [], list(features)
    while at < whole.shape[1]:
        fitting = [
            part
            for part in unused
            if at + part[3].shape[1] <= whole.shape[1]
            and torch.allclose(
                whole[:, at : at + part[3].shape[1]], part[3].to(whole.dtype), rtol=1e-4, atol=1e-6
            )
        ]
        if not fitting:
            return None
        best = max(fitting, key=lambda part: part[3].shape[1])
        unused = [part for part in unused if part is not best]
        owners += [best[2]] * best[3].shape[1]
        at += best[3].shape[1]
    return F.one_hot(torch.tensor(owners), M).T.bool() if len(set(owners)) == M else None


def _by_class(logits: Tensor) -> Tensor:
    """One column per class, also where a head gives one logit per sample."""
    return torch.cat([torch.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def _add_up(terms: Tensor, scores: Tensor) -> bool:
    """Whether terms add up to the class scores, apart from what softmax takes away."""
    total, scores = terms.double().sum(0).log_softmax(1), scores.double().log_softmax(1)
    return total.shape == scores.shape and torch.allclose(total, scores, rtol=1e-3, atol=1e-4)
