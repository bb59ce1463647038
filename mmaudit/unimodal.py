"""The reference model of a modality: what could be said from it alone, by the same encoder, without competition.

Where the modality has an encoder of its own, this is that encoder, re-initialised, and a linear head; else it is the whole
network, re-initialised, trained and tested with all other modalities masked (as Li et al.
2023 train their mono-modal concepts).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader

from mmaudit.checkpoint.importing import call_factory, import_callable
from mmaudit.checkpoint.model import left_as_it_came, model_device, seeded, unwrapped
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.evidence.scoring import class_scores
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.calling import Caller
from mmaudit.masking.paths import get_value
from mmaudit.masking.spec import AuditSpec, FactorySpec, OutputSpec
from mmaudit.measures.intervals import proportion_intervals
from mmaudit.report.schema import Estimate
from mmaudit.training import Recipe, TrainingResult, TrainingStep, train
from mmaudit.training.branches import Branch, Branched, find_branches
from mmaudit.training.loop import Data
from mmaudit.training.surroundings import evaluation_mode
from mmaudit.training.task import Labelled, Task

__all__ = ["UnimodalModel", "UnimodalResult", "build", "reinitialise", "train_unimodal"]

FACTORY = "mmaudit.unimodal:build"


class UnimodalModel(Branched):
    """One modality's encoder with a linear head, or a whole network that is to see one modality; called as the user's model is.

    Args:
        model: The user's model.
        modality: Its name.
        branch: Where its features are; ``None`` for the whole network, whose other inputs have to come masked.
        classes: Number K of classes.
        outputs: Where the whole network's class scores are, and what they are.
    """

    def __init__(
        self,
        model: nn.Module,
        modality: str,
        branch: Branch | None,
        *,
        classes: int,
        outputs: OutputSpec | None = None,
    ) -> None:
        super().__init__(model, {} if branch is None else {modality: branch})
        self.modality, self.branch, self.classes = modality, branch, classes
        self.outputs = outputs or OutputSpec()
        self.head = None if branch is None else nn.Linear(branch.width, classes)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Logits, ``(n, K)``."""
        if self.head is None:
            returned = self.model(*args, **kwargs)
            path = self.outputs.path
            output = returned if path is None else get_value(returned, path)
            return class_scores(output, self.outputs.kind)
        features = self.features(*args, **kwargs)
        if self.modality not in features:
            raise ModelError(f"the encoders of {self.modality} were not called: give its inputs.")
        logits: Tensor = self.head(features[self.modality])
        return logits

    def settings(self) -> dict[str, Any]:
        """What :func:`build` takes beside the factory, as JSON."""
        return {
            "modality": self.modality,
            "branch": None if self.branch is None else self.branch.model_dump(mode="json"),
            "classes": self.classes,
            "outputs": self.outputs.model_dump(mode="json"),
        }


def build(
    factory: str,
    args: Mapping[str, Any] | None = None,
    *,
    modality: str,
    branch: Mapping[str, Any] | None,
    classes: int,
    outputs: Mapping[str, Any] | None = None,
) -> UnimodalModel:
    """Build a reference model, for its weights to be loaded into.

    Args:
        factory: ``package.module:callable`` that builds the multimodal model.
        args: Of that factory.
        modality: See :class:`UnimodalModel`.
        branch: The same, as JSON.
        classes: The same.
        outputs: The same, as JSON.

    Raises:
        ModelError: If the factory does not give a torch module.
    """
    model = unwrapped(call_factory(import_callable(factory), args, name=factory))
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"'{factory}' gave a {type(model).__name__}; a reference model needs a torch module."
        )
    return UnimodalModel(
        model,
        modality,
        None if branch is None else Branch.model_validate(branch),
        classes=classes,
        outputs=OutputSpec.model_validate(outputs or {}),
    )


@dataclass(frozen=True)
class UnimodalResult:
    """A trained reference model.

    Attributes:
        modality: What it sees.
        model: Holds the weights that did best on validation data; ``model.settings()`` is what :func:`build` takes.
        training: Files and figures of the training; ``training.weights`` are the weights.
        accuracy: On test samples that have the modality, with Wilson's interval.
        own_encoder: Whether the modality's own encoder was trained; else the whole network, and inputs of other modalities have to
            come masked.
        notes: What could not be done as it should.
    """

    modality: str
    model: UnimodalModel
    training: TrainingResult
    accuracy: Estimate
    own_encoder: bool
    notes: tuple[str, ...]

    def factory(self, spec: AuditSpec) -> FactorySpec:
        """What an audit file names under ``model`` for the weights to be loaded; its outputs are logits."""
        args = {"factory": spec.model.factory, "args": spec.model.args, **self.model.settings()}
        return FactorySpec(factory=FACTORY, args=args)


def train_unimodal(
    model: nn.Module,
    task: Task,
    modality: str,
    recipe: Recipe,
    *,
    train_data: Data,
    validation_data: Data,
    test_data: Data,
    collate: Callable[[list[Any]], Batch] | Mapping[str, Callable[[list[Any]], Batch]],
    example: Batch,
    out: Path,
    structure: Structure | None = None,
    resume: bool = False,
    device: Literal["auto", "cpu"] = "auto",
    workers: int = 0,
    progress: Callable[[TrainingStep], None] | None = None,
) -> UnimodalResult:
    """Train the reference model of one modality, and test it.

    Samples that lack the modality do not count, neither in training nor in the accuracy.

    Args:
        model: The multimodal model; it stays as it is.
        task: How it is called and masked.
        modality: One of the task's.
        recipe: How to train.
        train_data: Samples by position.
        validation_data: Select the model.
        test_data: Looked at once, at the end.
        collate: Samples -> batch; one, or one each for ``train``, ``validation`` and ``test``.
        example: A batch of the training data.
        out: Folder of the training, see :func:`~mmaudit.training.train`.
        structure: What is known of the model's inside; left out, it is found here.
        resume: Go on with what is in ``out``.
        device: ``auto`` takes the accelerator there is.
        workers: Processes that load data.
        progress: Called after every step and epoch.

    Raises:
        SpecError: If there is no such modality.
        ModelError: If nothing of the modality's network can be trained.
    """
    if modality not in task.modalities:
        raise SpecError(f"'{modality}' is no modality; there are {', '.join(task.modalities)}.")
    reference, notes = _reference(model, task, modality, recipe, example, structure)
    alone = _Alone(task, modality, masks_others=reference.branch is None)
    # Where all of it is in evaluation mode, the training puts all of it into training mode.
    if not any(module.training for module in model.modules()):
        reference.eval()
    result = train(
        reference,
        train_data,
        validation_data,
        recipe,
        loss=alone.loss,
        forward=alone.forward,
        scores={"accuracy": alone.accuracy},
        collate=collate,
        place=task.place,
        out=out,
        identity={"reference model of": modality},
        resume=resume,
        progress=progress,
        device=device,
        workers=workers,
    )
    of_test = collate["test"] if isinstance(collate, Mapping) else collate
    accuracy = alone.test(reference, test_data, of_test, recipe.batch_size, workers)
    return UnimodalResult(
        modality=modality,
        model=reference,
        training=result,
        accuracy=accuracy,
        own_encoder=reference.branch is not None,
        notes=tuple(notes),
    )


def reinitialise(model: nn.Module, *, seed: int) -> list[str]:
    """Give every module the parameters and buffers that it starts with, as its own ``reset_parameters`` draws them.

    Modules whose parameters are all frozen keep them: they are not meant to be learnt.

    Args:
        model: Changed in place.
        seed: Of the draws.

    Returns:
        Sentences about what keeps its values.
    """
    kept: list[str] = []
    frozen: list[str] = []
    buffers: list[str] = []
    untouched = {p: p.clone() for p in model.parameters() if not p.requires_grad}
    with seeded(seed), torch.no_grad():
        for name, module in reversed(list(model.named_modules())):  # a parent may set its children
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                frozen.append(name or type(module).__name__)
                continue
            reset = getattr(module, "reset_parameters", None)
            reset = reset if callable(reset) else getattr(module, "_reset_parameters", None)
            before = [parameter.clone() for parameter in own]
            if callable(reset):
                reset()
            elif not own and any(
                buffer.is_floating_point() for buffer in module.buffers(recurse=False)
            ):
                buffers.append(name or type(module).__name__)
            # What stays the same although its entries differ was not drawn (a parametrised weight, say).
            stays = [
                torch.equal(a, b) and (not callable(reset) or bool((a != a.flatten()[:1]).any()))
                for a, b in zip(before, own, strict=True)
            ]
            if parametrize.is_parametrized(module) or any(stays):
                kept.append(name or type(module).__name__)
        for parameter, value in untouched.items():  # a parent may have drawn a frozen child anew
            parameter.copy_(value)
    said = (
        ("could not be re-initialised: they have no reset_parameters that sets them", kept),
        ("are frozen and keep their weights", frozen),
        ("keep their buffers, which nothing resets", buffers),
    )
    return [
        f"Modules {', '.join(names[::-1][:6])}{', ...' if len(names) > 6 else ''} {what}."
        for what, names in said
        if names
    ]


def _reference(
    model: nn.Module,
    task: Task,
    modality: str,
    recipe: Recipe,
    example: Batch,
    structure: Structure | None,
) -> tuple[UnimodalModel, list[str]]:
    """The reference model, re-initialised."""
    caller = Caller(model, task.spec)
    placed = task.place(example, model_device(model))
    with left_as_it_came(model), torch.no_grad():
        known = structure or find_structure(model, caller, placed.masked)
        branch = find_branches(model, known, caller, placed.masked).get(modality)
        classes = task.forward(model, task.place(example, model_device(model))).shape[1]
    inside = copy.deepcopy(model)
    notes = reinitialise(inside, seed=recipe.seed)
    with seeded(recipe.seed + 1):  # another stream than that of the encoders
        reference = UnimodalModel(
            inside, modality, branch, classes=classes, outputs=task.spec.outputs
        )
    if branch is None:
        notes.append(
            f"{modality} has no encoder of its own: the whole network was trained and tested with everything else masked."
        )
    if not any(parameter.requires_grad for parameter in reference.parameters()):
        raise ModelError(
            f"nothing of the network of {modality} can be trained: all of it is frozen."
        )
    return reference, notes


class _Alone:
    """A task with one modality."""

    def __init__(self, task: Task, modality: str, *, masks_others: bool) -> None:
        self.task, self.place = task, task.modalities.index(modality)
        self.masks_others = masks_others
        self.spec = task.spec.model_copy(update={"outputs": OutputSpec()})

    def forward(self, model: nn.Module, batch: Labelled) -> Tensor:
        data = batch.masked.coalition(1 << self.place) if self.masks_others else batch.data
        scores: Tensor = Caller(model, self.spec)(data)
        return scores.float()

    def loss(self, scores: Tensor, batch: Labelled) -> Tensor:
        return self.task.loss(scores, batch).where(batch.present[:, self.place], 0.0)

    def accuracy(self, scores: Tensor, batch: Labelled) -> Tensor:
        return self.task.accuracy(scores, batch).where(batch.present[:, self.place], 0.0)

    def test(
        self,
        model: nn.Module,
        data: Data,
        collate: Callable[[list[Any]], Batch],
        batch_size: int,
        workers: int,
    ) -> Estimate:
        """Accuracy with its interval, every sample once."""
        loader: DataLoader[Any] = DataLoader(
            data,  # type: ignore[arg-type]  # a list is a dataset to DataLoader, not to its annotations
            batch_size=batch_size,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        hits: list[np.ndarray] = []
        groups: list[str] = []
        grouped = self.task.spec.group is not None
        home, device = model_device(model), PartialState().device
        with evaluation_mode(model.to(device)):
            for batch in loader:
                placed = self.task.place(batch, device)
                has = placed.present[:, self.place]
                right = self.accuracy(self.forward(model, placed), placed)
                hits.append(right[has].double().cpu().numpy())
                if grouped and batch.groups is not None:
                    groups += [
                        g for g, there in zip(batch.groups, has.tolist(), strict=True) if there
                    ]
        model.to(home)
        return _estimate(np.concatenate(hits), groups or None)


def _estimate(hits: np.ndarray, groups: list[str] | None) -> Estimate:
    """Share of hits, with Wilson's interval over samples or groups."""
    if not len(hits):
        return Estimate(undefined="no test sample has the modality")
    units = np.arange(len(hits)) if groups is None else np.unique(groups, return_inverse=True)[1]
    number = int(units.max()) + 1
    successes = np.bincount(units, hits, number)[:, None]
    counts = np.bincount(units, minlength=number)[:, None].astype(np.float64)
    found = proportion_intervals(successes.astype(np.float64), counts, grouped=groups is not None)
    return found.estimate(0, n=len(hits), groups=None if groups is None else number)
