"""A loss recorder as a callback of Lightning and of the Hugging Face trainer.

Both libraries are optional. The classes are made when they are asked for, because their parents are foreign.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from torch import nn

from mmaudit.exceptions import SpecError
from mmaudit.training.loss_recorder import LossRecorder

__all__ = ["lightning_callback", "trainer_callback"]

_LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")


def lightning_callback(
    recorder: LossRecorder,
    *,
    module: str | None = None,
    steps: int | None = None,
    norms: int | None = None,
) -> Any:
    """A callback for Lightning's ``Trainer`` that records clean losses before the training and after every epoch.

    Args:
        recorder: What measures and writes.
        module: Dotted name of the part of the LightningModule that the recorder's spec is about; left out: the module itself, of
            which ``forward`` is called.
        steps: Record after every so many optimiser steps instead of every epoch.
        norms: Also record squared norms of gradients and weights at every so many-th optimiser step.

    Returns:
        A ``Callback`` of ``lightning`` or ``pytorch_lightning``, whichever the trainer is from.

    Raises:
        SpecError: If neither is installed, or a number is below 1.
    """
    _check_counts(steps=steps, norms=norms)
    follow = _Following(recorder, module, steps, norms)

    # Not on_fit_start: a training that goes on from a checkpoint does not know its step yet.
    def on_train_start(self: Any, trainer: Any, pl_module: Any) -> None:
        follow.begin(pl_module, trainer.global_step)

    def on_train_batch_end(self: Any, trainer: Any, pl_module: Any, *rest: Any) -> None:
        follow.stepped(pl_module, trainer.global_step)

    def on_train_epoch_end(self: Any, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch + _share_of_epoch(trainer)
        follow.epoch_ended(pl_module, trainer.global_step, epoch)

    def on_before_optimizer_step(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        follow.before_step(pl_module, trainer.global_step + 1)

    return _made(
        "LossRecorderCallback",
        _lightning_parents(),
        (on_train_start, on_train_batch_end, on_train_epoch_end, on_before_optimizer_step),
    )


def trainer_callback(
    recorder: LossRecorder,
    *,
    module: str | None = None,
    steps: int | None = None,
    norms: int | None = None,
) -> Any:
    """A callback for the Hugging Face ``Trainer`` that records clean losses before the training and after every epoch.

    Args:
        recorder: What measures and writes.
        module: Dotted name of the part of the model that the recorder's spec is about; left out: the model itself.
        steps: Record after every so many optimiser steps instead of every epoch.
        norms: Also record squared norms of gradients and weights at every so many-th optimiser step; gradients are clipped by then.

    Returns:
        A ``transformers.TrainerCallback``.

    Raises:
        SpecError: If transformers is not installed, or a number is below 1.
    """
    _check_counts(steps=steps, norms=norms)
    if importlib.util.find_spec("transformers") is None:
        raise SpecError(
            "the Hugging Face callback needs transformers: pip install 'mmaudit[transformers]'"
        )
    parent = importlib.import_module("transformers").TrainerCallback
    follow = _Following(recorder, module, steps, norms)

    def on_train_begin(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        follow.begin(rest["model"], state.global_step)

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        follow.stepped(rest["model"], state.global_step)

    def on_epoch_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        follow.epoch_ended(rest["model"], state.global_step, state.epoch)

    def on_pre_optimizer_step(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        follow.before_step(rest["model"], state.global_step + 1)

    return _made(
        "LossRecorderCallback",
        (parent,),
        (on_train_begin, on_step_end, on_epoch_end, on_pre_optimizer_step),
    )


class _Following:
    """What both callbacks do."""

    def __init__(
        self, recorder: LossRecorder, module: str | None, steps: int | None, norms: int | None
    ) -> None:
        self._recorder, self._module, self._steps, self._norms = recorder, module, steps, norms
        self._last = 0

    def begin(self, model: nn.Module, step: int) -> None:
        """Before the first step, or where a training goes on."""
        self._last = step
        if step == 0:
            self._record(model, 0, 0 if self._steps is None else None)

    def stepped(self, model: nn.Module, step: int) -> None:
        """After a batch; with gradient accumulation several of them belong to one step, with several optimisers it is several."""
        if self._steps is not None and step // self._steps > self._last // self._steps:
            self._record(model, step, None)

    def epoch_ended(self, model: nn.Module, step: int, epoch: float) -> None:
        """After an epoch; a training that ends within one has finished a part of it."""
        if self._steps is None:
            self._record(model, step, epoch)

    def before_step(self, model: nn.Module, step: int) -> None:
        """Between the gradients and the step that takes them."""
        if self._norms is not None and step % self._norms == 0:
            self._recorder.norms(self._part(model), step=step)

    def _record(self, model: nn.Module, step: int, epoch: float | None) -> None:
        self._last = step
        self._recorder.record(self._part(model), step=step, epoch=epoch)

    def _part(self, model: nn.Module) -> nn.Module:
        if self._module is None:
            return model
        try:
            return model.get_submodule(self._module)
        except AttributeError:
            names = ", ".join(name for name, _ in model.named_children()) or "none"
            raise SpecError(
                f"the {type(model).__name__} has no module '{self._module}'; its parts are {names}."
            ) from None


def _share_of_epoch(trainer: Any) -> float:
    """How much of the running epoch Lightning has done: a training may end within one (``max_steps``, ``max_time``)."""
    total = trainer.num_training_batches
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return min(done / total, 1.0) if isinstance(total, int) and total > 0 else 1.0


def _lightning_parents() -> tuple[type, ...]:
    """The callback classes of the libraries that are in use: of both where both are loaded, since a trainer asks for its own."""
    loaded = [name for name in _LIGHTNINGS if name in sys.modules]
    there = [
        name for name in _LIGHTNINGS if importlib.util.find_spec(name.partition(".")[0]) is not None
    ]
    chosen = loaded or there[:1]
    if not chosen:
        raise SpecError(
            "the Lightning callback needs lightning or pytorch_lightning: pip install lightning"
        )
    return tuple(importlib.import_module(name).Callback for name in chosen)


def _made(name: str, parents: tuple[type, ...], hooks: tuple[Any, ...]) -> Any:
    return type(name, parents, {hook.__name__: hook for hook in hooks})()


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise SpecError(f"{name} is {value!r}; expected an integer of at least 1.")
