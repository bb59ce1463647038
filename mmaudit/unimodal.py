"""The reference model of a modality: what could be said from it alone, by the same encoder, without competition.

Where the modality has an encoder of its own, this is that encoder, re-initialised, and a linear head; else it is the whole
network, re-initialised, trained and tested with all other modalities masked (as Li et al.
2023 train their mono-modal concepts). The model without a modality is the whole network in the same way, with that one masked.

A masked input is mostly the same in every sample. Normalisation that learns from it divides by a spread of nothing: what it keeps
for evaluation never fits what it did in training. So layers that keep statistics and see nothing but masked modalities are left in
evaluation mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
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
from mmaudit.evidence.scoring import task_scores, value_function
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.calling import Caller
from mmaudit.masking.paths import get_value
from mmaudit.masking.spec import AuditSpec, FactorySpec, OutputSpec
from mmaudit.measures.plain_score import accuracy_estimate, r2_estimate
from mmaudit.report.schema import Estimate
from mmaudit.training import Recipe, TrainingResult, TrainingStep, train
from mmaudit.training.branches import Branch, Branched, find_branches
from mmaudit.training.loop import Data
from mmaudit.training.surroundings import evaluation_mode
from mmaudit.training.task import Labelled, Task
from mmaudit.typing import TaskName

__all__ = [
    "UnimodalModel",
    "UnimodalResult",
    "build",
    "given_outputs",
    "reinitialise",
    "train_unimodal",
]

FACTORY = "mmaudit.unimodal:build"


class UnimodalModel(Branched):
    """One modality's encoder with a linear head, or a whole network that is to see one modality; called as the user's model is.

    Args:
        model: The user's model.
        modality: Its name.
        branch: Where its features are; ``None`` for the whole network, whose other inputs have to come masked.
        classes: Number K of classes; of labels or numbers; for segments ``(T, K)``.
        outputs: Where the whole network's outputs are, and what they are.
        task: What it predicts.
    """

    def __init__(
        self,
        model: nn.Module,
        modality: str,
        branch: Branch | None,
        *,
        classes: int | Sequence[int],
        outputs: OutputSpec | None = None,
        task: TaskName = "multiclass",
    ) -> None:
        super().__init__(model, {} if branch is None else {modality: branch})
        self.modality, self.branch, self.task = modality, branch, task
        self.classes = classes if isinstance(classes, int) else tuple(classes)
        self.outputs = outputs or OutputSpec()
        self.shape = (classes,) if isinstance(classes, int) else tuple(classes)
        self.head = None if branch is None else nn.Linear(branch.width, math.prod(self.shape))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Logits, ``(n, K)`` or ``(n, T, K)``; of a regression the numbers, ``(n, D)``."""
        if self.head is None:
            returned = self.model(*args, **kwargs)
            path = self.outputs.path
            output = returned if path is None else get_value(returned, path)
            return task_scores(output, self.outputs, self.task)
        features = self.features(*args, **kwargs)
        if self.modality not in features:
            raise ModelError(f"the encoders of {self.modality} were not called: give its inputs.")
        scores: Tensor = self.head(features[self.modality]).unflatten(1, self.shape)
        return scores

    def settings(self) -> dict[str, Any]:
        """What :func:`build` takes beside the factory, as JSON."""
        return {
            "modality": self.modality,
            "branch": None if self.branch is None else self.branch.model_dump(mode="json"),
            "classes": self.classes if isinstance(self.classes, int) else list(self.classes),
            "outputs": self.outputs.model_dump(mode="json"),
            **({} if self.task == "multiclass" else {"task": self.task}),
        }


def build(
    factory: str,
    args: Mapping[str, Any] | None = None,
    *,
    modality: str,
    branch: Mapping[str, Any] | None,
    classes: int | Sequence[int],
    outputs: Mapping[str, Any] | None = None,
    task: TaskName = "multiclass",
) -> UnimodalModel:
    """Build a reference model, for its weights to be loaded into.

    Args:
        factory: ``package.module:callable`` that builds the multimodal model.
        args: Of that factory.
        modality: See :class:`UnimodalModel`.
        branch: The same, as JSON.
        classes: The same.
        outputs: The same, as JSON.
        task: The same.

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
        task=task,
    )


def given_outputs(task: TaskName) -> OutputSpec:
    """What a reference model gives: logits, or the numbers of a regression."""
    return OutputSpec(kind="values" if task == "regression" else "logits")


@dataclass(frozen=True)
class UnimodalResult:
    """A trained reference model.

    Attributes:
        modality: What it sees, or what it does without.
        model: Holds the weights that did best on validation data; ``model.settings()`` is what :func:`build` takes.
        training: Files and figures of the training; ``training.weights`` are the weights.
        accuracy: On test samples that have something that it sees, with Wilson's interval; of a regression R2.
        own_encoder: Whether the modality's own encoder was trained; else the whole network, and inputs of other modalities have to
            come masked.
        notes: What could not be done as it should.
        without: Whether it sees everything but the modality.
    """

    modality: str
    model: UnimodalModel
    training: TrainingResult
    accuracy: Estimate
    own_encoder: bool
    notes: tuple[str, ...]
    without: bool = False

    def factory(self, spec: AuditSpec) -> FactorySpec:
        """What an audit file names under ``model`` for the weights to be loaded; its outputs are logits."""
        assert spec.model is not None  # what was trained was built by it
        args = {"factory": spec.factory.factory, "args": spec.factory.args, **self.model.settings()}
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
    without: bool = False,
    structure: Structure | None = None,
    resume: bool = False,
    device: Literal["auto", "cpu"] = "auto",
    workers: int = 0,
    progress: Callable[[TrainingStep], None] | None = None,
) -> UnimodalResult:
    """Train the reference model of one modality, or the model without it, and test it.

    Samples that have nothing of what the model sees do not count, neither in training nor in the accuracy.

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
        without: Train the whole network with the modality masked, instead of what sees it alone.
        structure: What is known of the model's inside; left out, it is found here.
        resume: Go on with what is in ``out``.
        device: ``auto`` takes the accelerator there is.
        workers: Processes that load data.
        progress: Called after every step and epoch.

    Raises:
        SpecError: If there is no such modality, or it is the only one and is to be left out.
        ModelError: If nothing of the network can be trained.
    """
    if modality not in task.modalities:
        raise SpecError(f"'{modality}' is no modality; there are {', '.join(task.modalities)}.")
    if without and len(task.modalities) == 1:
        raise SpecError(f"{modality} is the only modality: a model without it sees nothing.")
    reference, notes, still = _reference(
        model, task, modality, recipe, example, structure, without=without
    )
    others = [m for m, name in enumerate(task.modalities) if name != modality]
    seen = others if without else [task.modalities.index(modality)]
    part = _Seen(task, seen, masks_others=reference.branch is None)
    # As the training itself would do, which leaves the flags of what is partly in training mode as they are.
    all_at_rest = not any(module.training for module in model.modules())
    if all_at_rest:
        reference.train()
    for module in still:
        module.training = False
    result = train(
        reference,
        train_data,
        validation_data,
        recipe,
        loss=part.loss,
        forward=part.forward,
        scores={"accuracy": part.accuracy} if task.measured() else {},
        collate=collate,
        place=task.place,
        out=out,
        identity={"model without" if without else "reference model of": modality},
        resume=resume,
        progress=progress,
        device=device,
        workers=workers,
    )
    if all_at_rest:
        reference.eval()
    of_test = collate["test"] if isinstance(collate, Mapping) else collate
    accuracy = part.test(reference, test_data, of_test, recipe.batch_size, workers)
    return UnimodalResult(
        modality=modality,
        model=reference,
        training=result,
        accuracy=accuracy,
        own_encoder=reference.branch is not None,
        notes=tuple(notes),
        without=without,
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
    *,
    without: bool,
) -> tuple[UnimodalModel, list[str], list[nn.Module]]:
    """The reference model, re-initialised; sentences about it, and the modules that are to stay in evaluation mode."""
    caller = Caller(model, task.spec)
    placed = task.place(example, model_device(model))
    with left_as_it_came(model), torch.no_grad():
        known = structure or find_structure(model, caller, placed.masked)
        branch = None
        if not without:
            branch = find_branches(model, known, caller, placed.masked).get(modality)
        shape = task.forward(model, task.place(example, model_device(model))).shape[1:]
    inside = copy.deepcopy(model)
    notes = reinitialise(inside, seed=recipe.seed)
    with seeded(recipe.seed + 1):  # another stream than that of the encoders
        reference = UnimodalModel(
            inside,
            modality,
            branch,
            classes=shape[0] if len(shape) == 1 else tuple(shape),
            outputs=task.spec.outputs,
            task=task.spec.task,
        )
    still: dict[str, nn.Module] = {}
    if branch is None:
        absent = {name for name in task.modalities if (name == modality) == without}
        still = _of_nothing_else(inside, known, absent)
    if still:
        names = list(still)
        notes.append(
            f"Modules {', '.join(names[:6])}{', ...' if len(names) > 6 else ''} see nothing but what is masked: they stayed in "
            "evaluation mode, because statistics of masked inputs are none."
        )
    if branch is None and not without:
        notes.append(
            f"{modality} has no encoder of its own: the whole network was trained and tested with everything else masked."
        )
    if not any(parameter.requires_grad for parameter in reference.parameters()):
        which = f"without {modality}" if without else f"of {modality}"
        raise ModelError(f"nothing of the network {which} can be trained: all of it is frozen.")
    return reference, notes, list(still.values())


def _of_nothing_else(
    model: nn.Module, structure: Structure, absent: set[str]
) -> dict[str, nn.Module]:
    """Modules that keep statistics of what they are given, and are given nothing but absent modalities; by name.

    That is normalisation, and whatever else has floating-point buffers of its own. Recurrent layers are left out: on a GPU they have
    no gradients in evaluation mode.
    """
    modules = dict(model.named_modules())
    found = {}
    for row in structure.record.modules:
        module = modules.get(row.name)
        if module is None or not row.calls or not row.modalities or set(row.modalities) - absent:
            continue
        keeps = any(buffer.is_floating_point() for buffer in module.buffers(recurse=False))
        norm = isinstance(module, nn.modules.batchnorm._NormBase)
        if norm or (keeps and not isinstance(module, nn.RNNBase)):
            found[row.name] = module
    return found


class _Seen:
    """A task with some of the modalities, by their places; others are masked, or never read."""

    def __init__(self, task: Task, seen: list[int], *, masks_others: bool) -> None:
        self.task, self.seen, self.masks_others = task, seen, masks_others
        self.coalition = sum(1 << m for m in seen)
        # The reference model itself gives what is judged: logits, or the numbers of a regression.
        self.spec = task.spec.model_copy(update={"outputs": given_outputs(task.spec.task)})

    def forward(self, model: nn.Module, batch: Labelled) -> Tensor:
        data = batch.masked.coalition(self.coalition) if self.masks_others else batch.data
        scores: Tensor = Caller(model, self.spec)(data)
        return scores.float()

    def counts(self, batch: Labelled) -> Tensor:
        """Which samples have something that is seen."""
        return batch.present[:, self.seen].any(1)

    def loss(self, scores: Tensor, batch: Labelled) -> Tensor:
        return self.task.loss(scores, batch).where(self.counts(batch), 0.0)

    def accuracy(self, scores: Tensor, batch: Labelled) -> Tensor:
        return self.task.accuracy(scores, batch).where(self.counts(batch), 0.0)

    def test(
        self,
        model: nn.Module,
        data: Data,
        collate: Callable[[list[Any]], Batch],
        batch_size: int,
        workers: int,
    ) -> Estimate:
        """Accuracy (R2) with its interval, every sample once."""
        loader: DataLoader[Any] = DataLoader(
            data,  # type: ignore[arg-type]  # a list is a dataset to DataLoader, not to its annotations
            batch_size=batch_size,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        value = value_function(self.spec)
        judged: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        groups: list[str | None] = []
        home, device = model_device(model), PartialState().device
        with evaluation_mode(model.to(device)):
            for batch in loader:
                placed = self.task.place(batch, device)
                has = self.counts(placed).cpu().numpy()
                rows = value.rows(batch)
                rows = rows.where(has[rows.sample])
                found = value.judged(value.scores(self.forward(model, placed))[None], rows)
                score = found.get("correct", -found["loglik"])[:, 0].astype(np.float64)
                judged.append((score, rows.truth, rows.target))
                groups += rows.groups
        model.to(home)
        score, truth, cells = (np.concatenate(column) for column in zip(*judged, strict=True))
        if not len(score):
            return Estimate(undefined="no test sample has what the model sees")
        grouped = any(group is not None for group in groups)
        units = np.unique(np.array(groups, str), return_inverse=True)[1] if grouped else None
        if self.spec.task == "regression":
            return r2_estimate(score, truth, cells, units)
        return accuracy_estimate(score, units)
