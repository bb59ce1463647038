"""The one training loop.

It trains a model on one device or many (accelerate), measures clean losses after every epoch (both splits, evaluation mode,
every sample once), selects the model on validation data only and leaves a state behind from which a killed run goes on to
the same weights. What varies comes in as functions: ``forward`` calls the model on a batch, ``loss`` and the scores give
one value per sample, so that means stay exact for any batch size, accumulation and number of processes. What a remedy
changes comes in as ``hooks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from mmaudit.exceptions import CheckpointError, DataError, ModelError, SpecError
from mmaudit.training.hooks import Hooks, Micro
from mmaudit.training.order import MicroBatch, epoch_batches, shard_batches, steps_per_epoch
from mmaudit.training.recipe import Recipe, build_optimizer, learning_rate_factor
from mmaudit.training.recorder import Recorder, Split
from mmaudit.training.state import Standing, load_state, save_state, save_weights, write_atomically
from mmaudit.training.surroundings import (
    borrowed_random_states,
    evaluation_mode,
    kept_train_flags,
    plain_accelerator,
    seed_streams,
)

__all__ = [
    "Collate",
    "Data",
    "Forward",
    "PerSample",
    "Run",
    "TrainingResult",
    "TrainingStep",
    "train",
]

Data: TypeAlias = Dataset[Any] | Sequence[Any]
"""Anything with a length and samples by position."""
Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""``forward(model, batch) -> outputs``."""
Collate: TypeAlias = Callable[[list[Any]], Any]
"""Samples -> batch."""
PerSample: TypeAlias = Callable[[Any, Any], Tensor]
"""``f(outputs, batch)`` -> one value per sample, shape ``(B,)``."""


_SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class TrainingStep:
    """What the progress callback is told.

    Args:
        epoch: The epoch that is running or, where ``values`` is filled, has ended; 0 is the model before training.
        epochs: Largest number of epochs.
        step: Optimiser steps taken.
        steps: Largest number of steps.
        values: After an epoch ``"validation loss"`` and the like; empty within one.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training leaves.

    Args:
        weights: safetensors file of the selected model.
        history: The loss record (``mmaudit.training.read_history``).
        epochs: Epochs trained.
        steps: Optimiser steps taken.
        best_epoch: Epoch the selected model comes from.
        best_value: Its monitored validation value.
        model: What was trained, holding the selected weights; the model itself unless the hooks trained another around it.
    """

    weights: Path
    history: Path
    epochs: int
    steps: int
    best_epoch: int
    best_value: float
    model: nn.Module = field(repr=False, compare=False)


def train(
    model: nn.Module,
    train_data: Data,
    validation_data: Data,
    recipe: Recipe,
    *,
    loss: PerSample,
    forward: Forward,
    out: Path,
    scores: Mapping[str, PerSample] | None = None,
    collate: Collate | Mapping[str, Collate] | None = None,
    place: Callable[[Any, torch.device], Any] = send_to_device,
    hooks: Hooks | None = None,
    identity: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Callable[[TrainingStep], None] | None = None,
    device: Literal["auto", "cpu"] = "auto",
    workers: int = 0,
) -> TrainingResult:
    """Train a model; afterwards it holds the selected weights, on the device and with the train flags it came with.

    Under ``torchrun`` every process calls this with the same arguments; batches are cut into shards, so the number of
    processes changes nothing but what depends on the batch a process sees (batch statistics, dropout).

    Args:
        model: Trained in place. If all its modules are in evaluation mode they are put into training mode; otherwise flags
            are kept, so that layers frozen on purpose stay frozen.
        train_data: Samples by position, of any structure ``collate`` can batch.
        validation_data: The same; it only selects the model.
        recipe: What decides the trajectory.
        loss: Per-sample loss of outputs and batch, shape ``(B,)``; its mean is minimised.
        forward: Calls the model on a batch.
        out: Folder for ``last.safetensors`` (resumable state), ``best.safetensors`` (selected weights), ``recipe.json`` and
            ``history.jsonl``; made if missing.
        scores: Further per-sample values to record, name -> function, for example accuracy.
        collate: Samples -> batch, for both splits or by split; torch's default if left out.
        place: Puts a batch on the device.
        hooks: What a remedy changes; left out, nothing.
        identity: Names the remedy and its settings as JSON; a run is only resumed with the same.
        resume: Go on from ``last.safetensors`` if there is one. An interrupt (Ctrl-C, kill) at any moment leaves the state of
            the last finished epoch, and the resumed run takes the same steps as an uninterrupted one.
        progress: Called on the main process after every step and every epoch.
        device: ``auto`` takes the accelerator there is.
        workers: Processes that load data; 0 loads in this one.

    Returns:
        Files and figures of the selected model.

    Raises:
        SpecError: If the recipe monitors a value that is not measured.
        DataError: If a split is empty, has no length, or batches are too small to be shared out.
        ModelError: If a loss is not finite or not one value per sample.
        CheckpointError: If ``out`` holds a run and ``resume`` is false, or a run of another recipe, model or data.
    """
    measured = {"loss": loss, **(scores or {})}
    if recipe.monitor not in measured:
        raise SpecError(
            f"The recipe monitors '{recipe.monitor}'; measured are {', '.join(measured)}. "
            "Name one of them, or pass the score."
        )
    with borrowed_random_states(), kept_train_flags(model):
        home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        if not any(module.training for module in model.modules()):
            model.train()
        run: Run | None = None
        try:
            run = Run(
                model=model,
                recipe=recipe,
                data={"train": train_data, "validation": validation_data},
                measured=measured,
                forward=forward,
                out=Path(out),
                collate=collate
                if isinstance(collate, Mapping)
                else dict.fromkeys(_SPLITS, collate),
                loader={
                    "num_workers": workers,
                    "multiprocessing_context": "spawn" if workers else None,
                },
                place=place,
                hooks=hooks or Hooks(),
                identity=dict(identity or {}),
                progress=progress or (lambda step: None),
                accelerator=plain_accelerator(cpu=device == "cpu"),
            )
            return run.execute(resume=resume)
        finally:
            trained = run.model if run is not None else model
            trained.zero_grad(set_to_none=True)
            trained.to(home)
            model.to(home)


class _Loss(nn.Module):
    """What one backward goes through, as one module: gradients are shared between processes around its forward."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model = run.model
        self._run = [run]  # in a list, because it is no submodule

    def forward(self, batch: Any, micro: MicroBatch, part: int) -> Tensor:
        """The hooks' loss on one micro-batch."""
        run = self._run[0]
        return run.hooks.loss(run, run.hooks.batch(run, batch, micro), micro, part)


class Run:
    """One training from first to last epoch; the arguments are those of :func:`train`, which is how to run one."""

    def __init__(
        self,
        *,
        model: nn.Module,
        recipe: Recipe,
        data: Mapping[Split, Data],
        measured: Mapping[str, PerSample],
        forward: Forward,
        out: Path,
        collate: Mapping[str, Collate | None],
        loader: Mapping[str, Any],
        place: Callable[[Any, torch.device], Any],
        hooks: Hooks,
        identity: dict[str, Any],
        progress: Callable[[TrainingStep], None],
        accelerator: Accelerator,
    ) -> None:
        self.model, self.recipe, self.data, self.measured = model, recipe, data, measured
        self.forward, self.out, self.loader, self.tell = forward, out, loader, progress
        self.collate = collate
        self.accelerator, self.place, self.hooks = accelerator, place, hooks
        self.device, self.processes = accelerator.device, accelerator.num_processes
        self.state, self.best = out / "last.safetensors", out / "best.safetensors"
        self.samples = (_length(data["train"], "train"), _length(data["validation"], "validation"))
        self.steps = recipe.epochs * steps_per_epoch(self.samples[0], recipe.batch_size)
        model.to(accelerator.device)
        seed_streams(recipe.seed, 0, 0)  # what hooks initialise is the same in every process
        self.model = hooks.prepare(self).to(accelerator.device)
        optimizer = build_optimizer(self.model.parameters(), recipe)
        self.scheduler = LambdaLR(
            optimizer, lambda step: learning_rate_factor(recipe, step, self.steps)
        )
        self.wrapped = accelerator.prepare(_Loss(self))
        self.optimizer = optimizer
        self.total = torch.zeros((), device=self.device)
        self.done = Standing(
            recipe=recipe.model_dump(mode="json"), samples=self.samples, remedy=identity
        )

    def execute(self, *, resume: bool) -> TrainingResult:
        """Train to the end."""
        self._start(resume)
        while not self.done.finished:
            epoch = self.done.epoch + 1
            self._train_epoch(epoch)
            self._finish_epoch(epoch)
        self.accelerator.wait_for_everyone()
        if self.done.best_value is None or not self.best.is_file():
            raise CheckpointError(
                f"{self.best} is missing though the training is finished: start again in an empty folder."
            )
        self.model.load_state_dict(load_file(self.best))
        return TrainingResult(
            weights=self.best,
            history=self.out / "history.jsonl",
            epochs=self.done.epoch,
            steps=self.done.step,
            best_epoch=self.done.best_epoch,
            best_value=self.done.best_value,
            model=self.model,
        )

    def _start(self, resume: bool) -> None:
        found = self.state.exists()
        # Every process has looked before the first one writes.
        self.accelerator.wait_for_everyone()
        if found and not resume:
            raise CheckpointError(
                f"{self.out} holds a training: resume it, or choose another folder."
            )
        if found:
            self._resume()
        elif self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            text = self.recipe.model_dump_json(indent=2) + "\n"
            write_atomically(self.out / "recipe.json", text.encode())
        if self.accelerator.is_main_process:
            for leftover in self.out.glob(".*.tmp"):  # of a process killed while it wrote
                leftover.unlink()
            kept = self.done.epoch if found else -1
            self.recorder = Recorder(self.out / "history.jsonl", keep_epochs=kept)
        if not found:
            self._measure_and_record(0)
            self._save()

    def _resume(self) -> None:
        mine = self.done
        self.done, remedy = load_state(self.state, self.model, self.optimizer, self.scheduler)
        if self.done.remedy != mine.remedy:
            raise CheckpointError(
                f"{self.state} belongs to a training with {self.done.remedy or 'no remedy'}, asked for is "
                f"{mine.remedy or 'none'}: resume with the same, or choose another folder."
            )
        self.hooks.load_state(remedy)
        changed = [key for key in mine.recipe if self.done.recipe.get(key) != mine.recipe[key]]
        if changed:
            raise CheckpointError(
                f"{self.state} belongs to a recipe with another {', '.join(changed)}: resume with the stored "
                "recipe.json, or choose another folder."
            )
        if self.done.samples != mine.samples:
            raise CheckpointError(
                f"{self.state} was trained on {self.done.samples[0]} and validated on {self.done.samples[1]} samples, "
                f"this data has {mine.samples[0]} and {mine.samples[1]}: resume with the same data."
            )

    def _train_epoch(self, epoch: int) -> None:
        accelerator, recipe = self.accelerator, self.recipe
        seed_streams(recipe.seed, epoch, accelerator.process_index)
        batches = epoch_batches(self.samples[0], recipe.batch_size, seed=recipe.seed, epoch=epoch)
        plan = list(
            shard_batches(
                batches,
                accumulation=recipe.accumulation,
                rank=accelerator.process_index,
                processes=accelerator.num_processes,
            )
        )
        self.total = torch.zeros((), device=accelerator.device)
        loaded = self._load("train", [list(micro.indices) for micro in plan])
        micros: list[Micro] = []
        for micro, batch in zip(plan, loaded, strict=True):
            micros.append((replace(micro, epoch=epoch, step=self.done.step + 1), batch))
            if micro.last:
                self.hooks.step(self, micros)
                micros = []
                self.done.step += 1
                self._tell(epoch)
        # Looked at once per epoch: reading it at every step would make the device wait.
        if not np.isfinite(float(self.reduce(self.total))):
            raise ModelError(
                f"The training loss is not finite in epoch {epoch}: take a lower lr or set clip, and look for "
                f"non-finite inputs. The state of epoch {epoch - 1} is kept."
            )

    # What hooks use.

    def joint_loss(self, batch: Any, micro: MicroBatch) -> Tensor:
        """Loss of the model's own forward."""
        outputs = self._outputs(self.model, batch)
        return self.share(self._values("loss", outputs, batch, micro.indices), micro)

    def share(self, losses: Tensor, micro: MicroBatch) -> Tensor:
        """Gradients are averaged over processes: this makes the average that of the whole step."""
        scalar: Tensor = losses.sum() * (self.processes / micro.total)
        return scalar

    def backward(self, batch: Any, micro: MicroBatch, part: int = 0) -> None:
        """Add the gradients of one micro-batch."""
        with nullcontext() if micro.last else self.accelerator.no_sync(self.wrapped):
            loss = self.wrapped(batch, micro, part)
            self.accelerator.backward(loss)
        self.total += loss.detach()

    def update(self, *, last: bool = True) -> None:
        """One step of the optimiser."""
        if self.recipe.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if last:
            self.scheduler.step()

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum over processes."""
        if self.processes == 1:
            return tensor
        summed: Tensor = self.accelerator.reduce(tensor, "sum")
        return summed

    def _finish_epoch(self, epoch: int) -> None:
        value = self._measure_and_record(epoch)
        done, recipe = self.done, self.recipe
        better = done.best_value is None or (
            value < done.best_value if recipe.monitor == "loss" else value > done.best_value
        )
        done.epoch = epoch
        if better:
            done.best_epoch, done.best_value = epoch, value
            if self.accelerator.is_main_process:
                save_weights(self.best, self.model)
        stale = recipe.patience is not None and epoch - done.best_epoch >= recipe.patience
        done.finished = epoch == recipe.epochs or stale
        self._save()

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            remedy = self.hooks.state()
            save_state(self.state, self.model, self.optimizer, self.scheduler, self.done, remedy)

    def _measure_and_record(self, epoch: int) -> float:
        """Measure both splits, record and report them; returns the monitored validation value."""
        for buffer in self.model.buffers() if self.accelerator.num_processes > 1 else ():
            broadcast(
                buffer
            )  # batch statistics differ between processes; the first one's are the stored ones
        told: dict[str, float] = {}
        for split in _SPLITS:
            seed_streams(self.recipe.seed, epoch, self.accelerator.process_index)
            values = self._measure(split, epoch)
            told |= {f"{split} {name}": value for name, value in values.items()}
            if self.accelerator.is_main_process:
                self.recorder.record(step=self.done.step, epoch=epoch, split=split, values=values)
        coefficients = self.hooks.coefficients()
        if coefficients and self.accelerator.is_main_process:
            step = self.done.step
            self.recorder.record(step=step, epoch=epoch, split="remedy", values=coefficients)
        self._tell(epoch, told)
        return told[f"validation {self.recipe.monitor}"]

    def _measure(self, split: Split, epoch: int) -> dict[str, float]:
        """Mean of every measured value over one split, in evaluation mode, every sample once."""
        n, size = self.samples[split == "validation"], self.recipe.batch_size
        positions = range(self.accelerator.process_index, n, self.accelerator.num_processes)
        batches = [list(positions[i : i + size]) for i in range(0, len(positions), size)]
        sums = torch.zeros(len(self.measured), dtype=torch.float64)
        # The bare model: processes may have different numbers of batches, and the wrapper would wait for all of them.
        with evaluation_mode(self.model):
            for indices, batch in zip(batches, self._load(split, batches), strict=True):
                outputs = self._outputs(self.model, batch)
                for i, name in enumerate(self.measured):
                    sums[i] += self._values(name, outputs, batch, indices).cpu().double().sum()
        if self.processes > 1:
            sums = self.reduce(sums.to(self.device)).cpu()
        means = dict(zip(self.measured, (sums / n).tolist(), strict=True))
        for name, value in means.items():
            if not np.isfinite(value):
                raise ModelError(
                    f"The {split} {name} is not finite after epoch {epoch}: take a lower lr or set clip, and look "
                    "for non-finite inputs."
                )
        return means

    def _outputs(self, model: nn.Module, batch: Any) -> Any:
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=bf16):
            return self.forward(model, batch)

    def _values(self, name: str, outputs: Any, batch: Any, indices: Sequence[int]) -> Tensor:
        values = self.measured[name](outputs, batch)
        if not isinstance(values, Tensor) or values.shape != (len(indices),):
            came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ModelError(
                f"'{name}' must give one value per sample, shape ({len(indices)},), and gave {came}: "
                "use reduction='none'."
            )
        return values.float()

    def _load(self, split: Split, batches: list[list[int]]) -> Iterator[Any]:
        loader: DataLoader[Any] = DataLoader(
            self.data[split],  # type: ignore[arg-type]  # a list is a dataset to DataLoader, not to its annotations
            batch_sampler=batches,
            collate_fn=self.collate[split],
            **self.loader,
        )
        for batch in loader:
            yield self.place(batch, self.device)

    def _tell(self, epoch: int, values: Mapping[str, float] | None = None) -> None:
        if self.accelerator.is_main_process:
            recipe = self.recipe
            self.tell(TrainingStep(epoch, recipe.epochs, self.done.step, self.steps, values or {}))


def _length(data: Data, split: str) -> int:
    try:
        n = len(data)  # type: ignore[arg-type]  # what torch calls a Dataset need not have a length
    except TypeError:
        raise DataError(
            f"The {split} data ({type(data).__name__}) has no length: pass a dataset with samples by position."
        ) from None
    if n == 0:
        raise DataError(f"The {split} data is empty: pass at least one sample.")
    return n
