"""Modality dropout: in training, samples lose modalities at random, so that each has to be good for something alone.

Neverova, Wolf, Taylor, Nebout: *ModDrop: adaptive multi-modal gesture recognition*, TPAMI 2016.
"""

from __future__ import annotations

from typing import get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from mmaudit.exceptions import ModelError
from mmaudit.masking.base import stable_hash
from mmaudit.masking.paths import with_values
from mmaudit.remedies.base import Remedy, RemedyOptions
from mmaudit.training.hooks import Means, Training
from mmaudit.training.order import MicroBatch
from mmaudit.training.task import Labelled
from mmaudit.typing import TaskName

__all__ = ["ModalityDropout", "ModalityDropoutOptions", "dropped_modalities"]


def dropped_modalities(present: Tensor, draws: Tensor, *, p: float) -> Tensor:
    """Which modalities each sample loses; never all that it has.

    Args:
        present: Whether each sample has each modality, bool ``(n, M)``.
        draws: Uniform numbers in [0, 1), two per sample and modality, ``(n, M, 2)``: the first decides whether the modality is
            dropped, the second which one stays where all would be, uniformly among those that are present.
        p: Probability of dropping a modality.

    Returns:
        Bool ``(n, M)``; false where the modality is absent already. Where all M are present the rate is ``p - p**M / M``.

    Example:
        >>> draws = torch.tensor([[[0.1, 0.4], [0.9, 0.3]], [[0.1, 0.4], [0.2, 0.3]]])
        >>> dropped_modalities(torch.ones(2, 2, dtype=torch.bool), draws, p=0.5)
        tensor([[ True, False],
                [False,  True]])
    """
    dropped = present & (draws[..., 0] < p)
    nothing_left = ~(present & ~dropped).any(1, keepdim=True)
    kept = draws[..., 1].masked_fill(~present, -1.0).argmax(1, keepdim=True)
    spared = torch.zeros_like(dropped).scatter_(1, kept, True)
    return dropped & ~(nothing_left & spared)


class ModalityDropoutOptions(RemedyOptions):
    """Settings of :class:`ModalityDropout`."""

    p: float = Field(default=0.3, ge=0, le=1)


class ModalityDropout(Remedy):
    """Joint training on samples that have lost modalities at random: the simplest remedy, and a control for the others.

    What it changes:
        In every training step each modality of each sample is replaced by its mask with probability p, independently; a sample
        always keeps one. Validation and test data stay whole.

    When it helps:
        A modality is ignored though it is informative, or may be absent when the model is used. The masks are those of the
        audit, so that a model trained with them no longer takes a masked input for something unheard of.

    Cost:
        None beyond masking the inputs.

    Hyperparameters:
        p: Probability of dropping a modality. 0 is plain training; with 1 every sample keeps one modality.

    Source:
        Neverova et al. 2016, section 4.4; one modality always stays, as is usual since.

    Differences from the authors' code:
        None is followed line by line. Masks are those of the spec instead of zeros; inputs with mask ``keep`` stay. Draws depend on
        seed, step, modality and place in the step's batch alone, not on the number of processes.
    """

    key = "modality_dropout"
    title = "modality dropout"
    Options = ModalityDropoutOptions
    needs_structure = False
    tasks = get_args(TaskName)
    options: ModalityDropoutOptions

    def prepare(self, run: Training) -> nn.Module:
        """See that single samples of a batch can be masked."""
        model = super().prepare(run)
        batch = self.task.place(self.example, run.device).masked
        for path, modality in batch.masked_paths.items():
            value = batch.values[path]
            if any(masker.changes_call for masker in batch.maskers[modality].values()):
                raise ModelError(
                    f"Modality dropout masks single samples, and mask 'drop' of {modality} leaves the input out for a whole batch: "
                    "choose another mask for it."
                )
            dense = isinstance(value, Tensor) and value.layout is torch.strided
            if not dense or batch.dims.get(path) is None:
                raise ModelError(
                    f"Modality dropout masks single samples, and '{path}' of {modality} is no dense tensor with a dimension over the "
                    f"{batch.n} samples of a batch: give it mask 'keep', or use another remedy."
                )
        self._recorded = Means([f"dropped {name}" for name in self.modalities])
        self._counts = torch.zeros(2, len(self.modalities), dtype=torch.float64, device=run.device)
        return model

    def batch(self, run: Training, batch: Labelled, micro: MicroBatch) -> Labelled:
        """The micro-batch with modalities masked, sample by sample."""
        dropped = dropped_modalities(
            batch.present, self._draws(run, micro).to(run.device), p=self.options.p
        )
        self._counts += torch.stack([dropped.sum(0), batch.present.sum(0)])
        if self.options.p == 0:
            return batch
        masked, values = batch.masked, {}
        for path, modality in masked.masked_paths.items():
            value, stand_in, dim = masked.values[path], masked.masked(path), masked.dims[path]
            assert stand_in is not None
            rows = dropped[:, self.modalities.index(modality)]
            shape = [-1 if d == dim else 1 for d in range(value.dim())]
            values[path] = torch.where(rows.view(shape), stand_in, value)
        return batch.seeing(with_values(batch.data, values))

    def after_backward(self, run: Training, micro: MicroBatch) -> None:
        """Note how much was dropped in this step."""
        dropped, had = run.reduce(self._counts)
        self._counts = torch.zeros_like(self._counts)
        self._recorded.add(dropped / had.clamp(min=1))

    def coefficients(self) -> dict[str, float]:
        """Share of each modality that was dropped, among the samples that have it."""
        return self._recorded.take()

    def _draws(self, run: Training, micro: MicroBatch) -> Tensor:
        """Uniform numbers of this process's samples, ``(n, M, 2)``; drawn per modality, so that their order changes nothing."""
        columns = []
        for name in self.modalities:
            seed = stable_hash(self.key, name, run.recipe.seed, micro.step)
            generator = torch.Generator().manual_seed(seed)
            columns.append(torch.rand(micro.total, 2, generator=generator)[list(micro.places)])
        return torch.stack(columns, 1)
