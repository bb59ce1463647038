"""Clean losses of every head, recorded while somebody's own training loop runs.

What a training logs by itself is seldom what overfitting is read from: the train loss of a running epoch, measured in training
mode, of the joint output alone. A recorder measures the joint output and what each modality says by itself, on fixed samples of
both splits, in evaluation mode, at the same weights; the training does not notice.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn
from torch.utils.data import DataLoader

from mmaudit.checkpoint.model import left_as_it_came, model_device, preserved_rng, unwrapped
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.collecting import described
from mmaudit.evidence.cost import Cost
from mmaudit.evidence.data import Source, open_source
from mmaudit.evidence.head_losses import (
    DIFFERED,
    HeadCollector,
    HeadEvaluator,
    known_heads,
    with_full_passes,
)
from mmaudit.evidence.loss_file import (
    ABOUT,
    NONFINITE,
    LossFile,
    described_heads,
    row_lines,
    series_names,
)
from mmaudit.evidence.masks import Masks, gather_masks
from mmaudit.evidence.parts import fixed_part
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.reference import needs_reference
from mmaudit.masking.spec import AuditSpec, MaskingSpec, read_spec
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.training.norms import ParameterGroups, group_norms, parameter_groups
from mmaudit.training.opening import home_of
from mmaudit.typing import EmptyRule

__all__ = ["LossRecorder", "RecordingCost"]

_SPLITS = ("train", "validation")


class RecordingCost(NamedTuple):
    """What recording has cost so far."""

    records: int
    """How often losses were measured."""
    passes: float
    """Plain passes over the recorded samples of both splits that one measurement takes, on average."""
    seconds: float
    """Spent in all."""
    share: float
    """Of the time since the recorder was made, in [0, 1]."""


class LossRecorder:
    """Records clean losses of the joint output and of every modality, in JSON lines that ``mmaudit ogr`` reads.

    A modality's loss is that of the model's own unimodal head where ``heads`` names one, else of its mono-modal Shapley response,
    for which every coalition of modalities is evaluated (about ``1 + (2**M - 2) f`` passes over the recorded samples, f being the
    share of a pass after the encoders). The first line of the log says which it is, and on which samples.

    The model, its gradients and all random states are left as they were. The data is read by position in this process, so that
    a dataset that draws from a generator of its own has to be given as a copy; give it without augmentation, too. With several
    processes the first one alone measures and writes, and the others go on to their next step, where they wait for it. Losses are
    measured in the model's own precision, also where the training runs under autocast, unless ``precision`` says otherwise.

    Args:
        path: The ``.jsonl`` file. Beside it the map of its series is written.
        spec: A :class:`~mmaudit.MaskingSpec`, a mapping, or an audit file (YAML): modalities, target, how the model is called.
        train: Training data, as :func:`mmaudit.audit` takes data: a DataLoader, arrays, a file, an iterable of batches.
        validation: Held-out data that the training does not learn from; not the test data.
        heads: Modality -> path of its own head's scores in what the model returns.
        every: Only multiples of so many epochs (steps, where no epoch is given) are recorded.
        train_samples: How many training samples: ``matched`` is as many as are validated on, ``all`` all of them. They are drawn once.
        validation_samples: At most so many; left out: all.
        empty: What the empty coalition counts in a response, see :class:`~mmaudit.typing.EmptyRule`.
        precision: ``bfloat16`` and ``float16`` measure under autocast.
        seed: Of the draw of samples and of random masks.
        directory: What relative paths and imports of the spec begin at.
        resume: Go on with a log that is there. What it holds from the first step that is then recorded on is cut off: an
            interrupted run had written it beyond the checkpoint that the training goes on from. The same where the training goes
            back to an earlier step later; otherwise that is refused, since a log is of one training.

    Raises:
        SpecError: If the spec or a head is wrong.
        DataError: If a split cannot be read.
        RecordError: If there is a log already and ``resume`` is false, or it was begun with other heads or samples.

    Example:
        >>> recorder = LossRecorder("losses.jsonl", spec, train=train, validation=val)      # doctest: +SKIP
        >>> for epoch in range(1, epochs + 1):                                              # doctest: +SKIP
        ...     step = train_epoch(model)
        ...     recorder.record(model, step=step, epoch=epoch)
    """

    def __init__(
        self,
        path: Path | str,
        spec: MaskingSpec | Mapping[str, Any] | Path | str,
        *,
        train: Any,
        validation: Any,
        heads: Mapping[str, str] | None = None,
        every: int = 1,
        train_samples: int | Literal["matched", "all"] = "matched",
        validation_samples: int | None = None,
        empty: EmptyRule = "exact",
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        seed: int = 0,
        directory: Path | None = None,
        resume: bool = False,
    ) -> None:
        in_file = isinstance(spec, (str, Path))
        whole = in_file or (
            isinstance(spec, Mapping) and bool({"model", "checkpoint", "data"} & set(spec))
        )
        self.spec = read_spec(spec, AuditSpec if whole else MaskingSpec)
        if directory is None and isinstance(spec, (str, Path)):
            assert isinstance(self.spec, AuditSpec)
            directory = home_of(Path(spec), self.spec)
        self.own = known_heads(heads, self.spec)
        _check_settings(self.spec, every, train_samples, validation_samples, precision, empty, seed)
        self.path, self.every, self.empty = Path(path), every, empty
        self._dtype = None if precision == "float32" else getattr(torch, precision)
        self._seed, self._directory = seed, directory
        self._began, self._seconds, self._records = time.perf_counter(), 0.0, 0
        self._cost, self._measured = Cost(), 0
        self._known: tuple[weakref.ref[nn.Module], Structure] | None = None
        self._masks: Masks | None = None
        self._groups: ParameterGroups | None = None
        if not _first_process():
            return
        with preserved_rng():
            # What can be read only once is kept: it is read at every record.
            train, validation = (
                list(data) if isinstance(data, Iterator) else data for data in (train, validation)
            )
            self._train_data = train
            self._sources = self._opened(train, validation, train_samples, validation_samples)
        self._file = LossFile(self.path, self._about(), self.spec.names, resume=resume)

    @property
    def cost(self) -> RecordingCost:
        """What recording has cost so far."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        return RecordingCost(
            self._records,
            self._cost.passes(self._measured) if self._measured else 0.0,
            self._seconds,
            min(self._seconds / elapsed, 1.0),
        )

    def record(
        self, model: nn.Module, *, step: int, epoch: float | None = None
    ) -> dict[str, float] | None:
        """Measure the losses of all heads and append them to the log.

        Args:
            model: The one that is trained, in whatever mode; ``torch.compile`` and data-parallel wrappers are looked through.
            step: Optimiser steps taken so far.
            epoch: Epochs finished, 0 for the model before training; a fraction within an epoch.

        Returns:
            Series -> loss, ``{"train/audio_loss": 0.31, ...}``; NaN where no sample has finite outputs. ``None`` where nothing was
            measured: the epoch is not one of those recorded, or this is not the first process.

        Raises:
            SpecError: If the step or the epoch is no number of that kind.
            ModelError: If the model cannot be called as the spec says, or its parameters lie on several processes.
            DataError: If a split cannot be read.
            RecordError: If the step lies before one that was recorded, without ``resume``; or the log cannot be written.
        """
        step, epoch = _place(step, epoch)
        count = (step if epoch is None else epoch) / self.every
        # Sums of fractions of epochs are whole numbers but for rounding.
        if not _first_process() or (self.every > 1 and abs(count - round(count)) > 1e-6):
            return None
        began = time.perf_counter()
        inner = unwrapped(model)
        _check_whole(inner)
        told: dict[str, float] = {}
        lines = ""
        with _measured(inner):
            for split in _SPLITS:
                collector = self._losses(inner, self._sources[split])
                means = collector.sums.means()
                values = {name: means[head] for head, name in series_names(means).items()}
                told |= {f"{split}/{name}": value for name, value in values.items()}
                lines += row_lines(step=step, epoch=epoch, split=split, values=values)
                if collector.sums.nonfinite:
                    left_out = {NONFINITE: float(collector.sums.nonfinite)}
                    lines += row_lines(step=step, epoch=epoch, split=split, values=left_out)
        self._records += 1
        self._seconds += time.perf_counter() - began
        spent = self.cost
        values = {"passes": spent.passes, "seconds": spent.seconds, "share": spent.share}
        lines += row_lines(step=step, epoch=epoch, split="cost", values=values)
        self._file.append(lines, step=step, kind="losses")
        return told

    def norms(self, model: nn.Module, *, step: int, epoch: float | None = None) -> None:
        """Append the squared norms of gradients and weights of every group of parameters, for conditional learning speeds.

        Call it after ``backward`` and before the optimiser's step, on gradients that are not scaled (by a loss scaler) any more;
        :func:`mmaudit.learning_speeds` reads what it writes. Groups: where the spec names ``branches``, what belongs to each
        branch and, apart, what carries the others into it; else what belongs to each modality and what is shared, from which no
        conditional speed follows. A group without any gradient is left out.

        Args:
            model: The one that is trained.
            step: Number of the optimiser step, from 1.
            epoch: The same in epochs, where it is known.

        Raises:
            SpecError: If the branches of the spec are not the model's.
            ModelError: If the model cannot be called as the spec says, or its parameters lie on several processes.
            RecordError: As :meth:`record`.
        """
        step, epoch = _place(step, epoch)
        if not _first_process():
            return
        began = time.perf_counter()
        inner = unwrapped(model)
        _check_whole(inner)
        if self._groups is None:
            with _measured(inner), torch.enable_grad():
                collector = self._collector(inner, self._sources["train"], None, None)
                source = self._sources["train"].first()
                with described(source):
                    prepared = collector.prepare(source)
                    self._groups = parameter_groups(inner, self.spec, prepared)
        values = group_norms(inner, self._groups)
        self._seconds += time.perf_counter() - began
        lines = row_lines(step=step, epoch=epoch, split="norms", values=values)
        self._file.append(lines, step=step, kind="norms")

    # Measuring.

    def _opened(
        self, train: Any, validation: Any, train_samples: Any, validation_samples: int | None
    ) -> dict[str, Source]:
        held_out = fixed_part(
            open_source(validation, self.spec, directory=self._directory),
            self.spec,
            validation_samples,
            seed=self._seed,
        )
        most = train_samples if isinstance(train_samples, int) else None
        if train_samples == "matched":
            most = held_out.samples
        whole = open_source(train, self.spec, directory=self._directory)
        part = fixed_part(whole, self.spec, most, seed=self._seed)
        by_sample = whole.by_sample()
        if by_sample is not None and whole.samples and whole.length:
            # For masks that are learnt from the training data, which must not start the loader's workers either.
            size = -(-whole.samples // whole.length)
            self._train_data = DataLoader(by_sample[0], size, collate_fn=by_sample[1])
        return {"train": part, "validation": held_out}

    def _losses(self, model: nn.Module, source: Source) -> HeadCollector:
        """Losses of one split."""
        structure = self._structure(model)
        collector = with_full_passes(
            lambda reason: self._collector(model, source, structure, reason), HeadCollector.measure
        )
        evaluator = collector.evaluator
        if evaluator.notes or evaluator.reason == DIFFERED:
            # The structure was found at other weights (a gate that was still closed, say): look again next time.
            self._known = None
        spent = evaluator.take_cost()
        if not collector.coalitions:
            spent.full_rows = collector.sums.samples
        self._cost = Cost.total([self._cost, spent])
        self._measured += collector.sums.samples
        return collector

    def _structure(self, model: nn.Module) -> Structure | None:
        """What is inside the model; ``None`` where no coalition is asked for."""
        if not self._needs_coalitions:
            return None
        if self._known is None or self._known[0]() is not model:
            collector = self._collector(model, self._sources["validation"], None, None)
            batch = collector.source.first()
            with described(batch):
                prepared = collector.prepare(batch)
                found = find_structure(model, collector.evaluator.caller, prepared)
            self._known = (weakref.ref(model), found)
        return self._known[1]

    @property
    def _needs_coalitions(self) -> bool:
        return set(self.own) != set(self.spec.names)

    def _collector(
        self, model: nn.Module, source: Source, structure: Structure | None, reason: str | None
    ) -> HeadCollector:
        if self._masks is None:
            subject = Subject(model, self.spec, None, directory=self._directory)
            if needs_reference(self.spec):
                subject.train = self._train_data
            self._masks = gather_masks(subject, self._sources["validation"], seed=self._seed)
        evaluator = HeadEvaluator(
            model,
            self.spec,
            structure,
            own=self.own,
            optimize=reason is None,
            reason=reason or "",
            precision=self._dtype,
            seed=self._seed,
        )
        return HeadCollector(
            source=source,
            evaluator=evaluator,
            masks=self._masks,
            value=value_function(self.spec),
            responses=shapley_matrix(len(self.spec.names)),
            processes=_Alone(model_device(model)),
            empty=self.empty,
            coalitions=self._needs_coalitions,
        )

    def _about(self) -> dict[str, str]:
        """The first line."""
        passes = "1 pass" if not self._needs_coalitions else "about 1 + (2^M - 2) f passes"
        loss = "mean squared error" if self.spec.task == "regression" else "nats"
        return {
            ABOUT: "clean losses of all heads, in evaluation mode, at the same weights",
            "loss": f"{loss}, mean over rows",
            "heads": described_heads(self.spec, self.own, self.empty),
            "train": self._sources["train"].description,
            "validation": self._sources["validation"].description,
            "cost": f"{passes} over these samples for every record; f is the share of a pass after the encoders",
            "seed": str(self._seed),
        }


class _Alone(Processes):
    """One process that measures alone, however many of them train."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.number, self._state, self.device = 0, 1, None, device


@contextmanager
def _measured(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and the model's own precision, whatever the training around it runs in."""
    with ExitStack() as stack:
        stack.enter_context(left_as_it_came(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(model_device(model).type, enabled=False))
        own = model.__dict__
        if "_original_forward" in own and "forward" in own:
            # accelerate, and with it the Hugging Face trainer, wraps autocast around the instance's forward.
            stack.callback(own.__setitem__, "forward", own["forward"])
            own["forward"] = own["_original_forward"]
        yield


def _first_process() -> bool:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") in ("", "0")


def _place(step: Any, epoch: Any) -> tuple[int, float | None]:
    """Step and epoch as numbers that JSON has: those of numpy and torch are none.

    Raises:
        SpecError: If they are no such numbers.
    """
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if number < 0 or isinstance(step, bool):
        raise SpecError(
            f"step is {step!r}; expected the number of optimiser steps taken, an integer of at least 0."
        )
    if epoch is None:
        return number, None
    try:
        value = float("nan") if isinstance(epoch, (str, bool)) else float(epoch)
    except (TypeError, ValueError):
        value = float("nan")
    if not (math.isfinite(value) and value >= 0):
        raise SpecError(
            f"epoch is {epoch!r}; expected the number of epochs finished, at least 0, or nothing."
        )
    return number, int(value) if value.is_integer() else value


def _check_settings(
    spec: MaskingSpec,
    every: int,
    train_samples: Any,
    validation_samples: Any,
    precision: str,
    empty: str,
    seed: Any,
) -> None:
    """Refuse what cannot be meant.

    Raises:
        SpecError: With what was expected.
    """
    if spec.target is None:
        raise SpecError("a loss needs labels: name their path under 'target'.")
    if not isinstance(every, int) or every < 1:
        raise SpecError(f"every is {every!r}; expected an integer of at least 1.")
    if train_samples not in ("matched", "all") and not _is_count(train_samples):
        raise SpecError(
            f"train_samples is {train_samples!r}; expected a number of samples, 'matched' or 'all'."
        )
    if validation_samples is not None and not _is_count(validation_samples):
        raise SpecError(
            f"validation_samples is {validation_samples!r}; expected a number of samples, or nothing for all."
        )
    if precision not in ("float32", "bfloat16", "float16"):
        raise SpecError(f"precision '{precision}' is none; there are float32, bfloat16, float16.")
    if empty not in get_args(EmptyRule):
        raise SpecError(f"empty is {empty!r}; expected one of {', '.join(get_args(EmptyRule))}.")
    if not isinstance(seed, int) or seed < 0:
        raise SpecError(f"seed is {seed!r}; expected an integer of at least 0.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_whole(model: Any) -> None:
    """Refuse a model of which this process holds a part only: its forward would wait for the other processes for ever.

    Raises:
        ModelError: If parameters are sharded.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"a {type(model).__name__} is no torch module: losses are recorded of the module that is trained."
        )
    known = sys.modules.get("torch.distributed.tensor")
    sharded = any(
        (known is not None and isinstance(p, known.DTensor)) or hasattr(p, "ds_id")
        for p in model.parameters()
    )
    if sharded or any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        raise ModelError(
            "the model's parameters are sharded over processes (FSDP, ZeRO-3), and recording runs on the first process alone:"
            " save checkpoints and evaluate them afterwards with 'mmaudit trajectory'."
        )
