"""The checkpoints of one training, in order: which they are, and the clean losses of all heads at each of them.

Every file is loaded as an audit loads one, strictly and safely. Data, masks and drawn samples are the same for all of them.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.model import left_as_it_came, unwrapped
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.collecting import Progress, described
from mmaudit.evidence.cost import Cost
from mmaudit.evidence.data import Source, open_source
from mmaudit.evidence.head_losses import HeadCollector, HeadEvaluator, HeadSums, with_full_passes
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.masks import Masks, gather_masks
from mmaudit.evidence.parts import fixed_part
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.evidence.table import shard_infos
from mmaudit.evidence.workspace import TABLE
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import AuditSpec
from mmaudit.report.store import write_json_atomic
from mmaudit.typing import EmptyRule, FloatArray

__all__ = ["CheckpointSeries", "Evaluated", "Place", "SeriesSettings", "find_checkpoints"]

_EPOCH = re.compile(r"(?:^|[^a-z])(?:epochs?|ep)[=_\-. ]?(\d+)", re.IGNORECASE)
_STEP = re.compile(r"(?:^|[^a-z])(?:global_?step|steps?|iter(?:ation)?s?|it)[=_\-. ]?(\d+)", re.IGNORECASE)  # fmt: skip
_NUMBER = re.compile(r"\d+")
_STATE = "trainer_state.json"
_LARGEST_STATE = 2**26


class Place(NamedTuple):
    """A checkpoint, and where in the training it was taken."""

    path: Path
    label: str
    """How it is called among the others."""
    epoch: float | None
    step: int | None


def find_checkpoints(
    patterns: str | Path | Sequence[str | Path],
) -> tuple[tuple[Place, ...], str]:
    """The checkpoints that some patterns name, in the order of the training.

    Args:
        patterns: Files, folders of one checkpoint each, or patterns such as ``run/epoch*.ckpt`` (``**`` goes into folders).

    Returns:
        The checkpoints by epoch, else by step, else by the last number in their names, else in natural order; and where the order
        comes from, in words. A Hugging Face folder says it itself (``trainer_state.json``).

    Raises:
        SpecError: If a pattern finds nothing, some names say an epoch and others do not, or two say the same.
    """
    given = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    paths: dict[Path, None] = {}
    for pattern in given:
        found = sorted(glob.glob(os.path.expanduser(str(pattern)), recursive=True))  # noqa: PTH111, PTH207 - an absolute pattern is no Path.glob
        if not found:
            raise SpecError(
                f"no checkpoint matches '{pattern}': expected files, or a pattern in quotes such as 'run/epoch*.ckpt'."
            )
        paths |= dict.fromkeys(Path(name) for name in found)
    labels = _labels(list(paths))
    said = {path: _said(path, label) for path, label in labels.items()}
    for at, kind in enumerate(("epoch", "step")):
        having = [path for path in paths if said[path][at] is not None]
        if not having or (len(having) < len(paths) and at == 0 and _all_have(said, 1)):
            continue
        if len(having) < len(paths):
            lacks = next(path for path in paths if said[path][at] is None)
            raise SpecError(
                f"'{labels[lacks]}' says no {kind} in its name where '{labels[having[0]]}' does: leave it out of the checkpoints."
            )
        places = [Place(path, labels[path], *said[path]) for path in paths]
        return _ordered(places, kind), f"{kind}s in the names"
    numbers = {path: _NUMBER.findall(labels[path]) for path in paths}
    if all(numbers.values()):
        places = [Place(p, labels[p], float(found[-1]), None) for p, found in numbers.items()]
        if len({place.epoch for place in places}) == len(places):
            return _ordered(places, "epoch"), "the last numbers in the names, taken for epochs"
    ordered = sorted(paths, key=lambda path: _natural(labels[path]))
    places = [Place(path, labels[path], float(at), None) for at, path in enumerate(ordered)]
    return tuple(places), "the order of the names, counted from 0"


def _labels(paths: list[Path]) -> dict[Path, str]:
    """Names from where the paths begin to differ."""
    if len(paths) == 1:
        return {paths[0]: paths[0].name}
    shared = os.path.commonpath([path.absolute() for path in paths])
    return {path: str(path.absolute().relative_to(shared)) for path in paths}


def _said(path: Path, label: str) -> tuple[float | None, int | None]:
    """Epoch and step of a checkpoint, as far as it says them."""
    state = path / _STATE
    if state.is_file() and state.stat().st_size <= _LARGEST_STATE:
        try:
            held = json.loads(state.read_text(encoding="utf-8"))
            epoch, step = held.get("epoch"), held.get("global_step")
        except (ValueError, AttributeError, RecursionError):
            epoch = step = None
        if isinstance(epoch, (int, float)) and isinstance(step, int):
            return float(epoch), step
    epochs, steps = _EPOCH.findall(label), _STEP.findall(label)
    return float(epochs[-1]) if epochs else None, int(steps[-1]) if steps else None


def _all_have(said: Mapping[Path, tuple[float | None, int | None]], at: int) -> bool:
    return all(found[at] is not None for found in said.values())


def _ordered(places: list[Place], kind: str) -> tuple[Place, ...]:
    def key(place: Place) -> tuple[float, float]:
        first = place.step if place.step is not None else -1
        return (float(first), place.epoch or 0) if kind == "step" else (place.epoch or 0, first)

    ordered = sorted(places, key=key)
    for one, other in itertools.pairwise(ordered):
        if key(one) == key(other):
            raise SpecError(
                f"'{one.label}' and '{other.label}' say the same {kind}: name one checkpoint for each."
            )
    return tuple(ordered)


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``b2`` before ``b10``."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@dataclass(frozen=True)
class SeriesSettings:
    """What holds for all checkpoints of a series.

    Attributes:
        own: Modality -> path of its own head in what the model returns.
        empty: What the empty coalition counts in a response.
        seed: Of drawn samples, random masks and spot checks.
        precision: Autocast dtype, ``None`` for the model's own.
        batch_size: Instead of the data's own.
        train_samples: At most so many training samples.
        validation_samples: At most so many held-out samples.
        timeout: Seconds a DataLoader worker may take for a batch.
        trust: Load checkpoints that run code when they are loaded.
    """

    own: Mapping[str, str] = field(default_factory=dict)
    empty: EmptyRule = "exact"
    seed: int = 0
    precision: torch.dtype | None = None
    batch_size: int | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    timeout: float = 120
    trust: bool = False


class Evaluated(NamedTuple):
    """What was found at one checkpoint."""

    losses: dict[str, HeadSums]
    """Split -> losses of all heads, over all processes."""
    passes: dict[str, float]
    """Split -> plain passes that it took."""
    method: str
    """How coalitions were evaluated."""
    surroundings: Surroundings
    """For further evidence; the coalition table of the held-out split is in its work folder."""
    files: tuple[dict[str, Any], ...]
    """That were loaded: path, SHA-256, bytes, role."""
    notes: tuple[str, ...]


class CheckpointSeries:
    """Evaluates one checkpoint after the other on the same samples.

    Args:
        spec: Of the audit file; its own checkpoint does not matter.
        directory: Where imports and data paths begin.
        responses: Shapley weights ``(M, 2**M)``.
        processes: Who takes part.
        settings: What holds for all checkpoints.
        progress: Told how far it is.

    Attributes:
        held_out: Name of the held-out split: ``validation``, or ``test`` where the audit file names no validation data.
        notes: What a reader must know of the data.

    Raises:
        SpecError: If the audit file names no training data.
        DataError: If a split cannot be read.
    """

    def __init__(
        self,
        spec: AuditSpec,
        directory: Path,
        *,
        responses: FloatArray,
        processes: Processes,
        settings: SeriesSettings,
        progress: Progress | None = None,
    ) -> None:
        if spec.data.train is None:
            raise SpecError(
                "the audit file names no training data, without which there is no train loss: add data.train."
            )
        self.spec, self.directory = spec, directory
        self._responses, self._processes = responses, processes
        self._settings, self._progress = settings, progress
        self.held_out = "validation" if spec.data.validation is not None else "test"
        held_out = spec.data.validation or spec.data.test
        self.sources = {
            "train": self._opened(spec.data.train, settings.train_samples),
            self.held_out: self._opened(held_out, settings.validation_samples),
        }
        self._subject = Subject(
            None, spec, held_out, spec.data.train, directory=directory, title=spec.label
        )
        self.masks: Masks = gather_masks(
            self._subject, self.sources[self.held_out], seed=settings.seed, timeout=settings.timeout
        )
        notes = [note.text for note in self.masks.notes]
        if self.held_out == "test":
            notes.append(
                "The audit file names no validation data: the test split stands in for it, so that what is chosen by these losses is"
                " chosen on test data."
            )
        self.notes = tuple(notes)

    def _opened(self, data: Any, most: int | None) -> Source:
        settings = self._settings
        whole = open_source(
            data,
            self.spec,
            directory=self.directory,
            batch_size=settings.batch_size,
            timeout=settings.timeout,
        )
        return whole if most is None else fixed_part(whole, self.spec, most, seed=settings.seed)

    @contextmanager
    def evaluated(self, place: Place, work: Path) -> Iterator[Evaluated]:
        """Load a checkpoint and evaluate all heads on both splits; the model is there within the block.

        Args:
            place: The checkpoint.
            work: An empty folder; all processes see it.

        Raises:
            CheckpointError: If it is refused or does not fit the model.
            ModelError: If the model cannot be called as the spec says.
            DataError: If a split cannot be read.
        """
        spec, settings = self.spec, self._settings
        loaded = load_checkpoint(
            place.path.absolute(),
            None if spec.model is None else spec.model.factory,
            args=None if spec.model is None else spec.model.args,
            directory=self.directory,
            strip_prefix=spec.strip_prefix,
            trust=settings.trust,
            weights=spec.weights,
        )
        model = unwrapped(loaded.model)
        if isinstance(model, nn.Module):
            model.to(self._processes.device)
        subject = Subject(
            model, spec, self._subject.data, self._subject.train, directory=self.directory,
            title=spec.label, name=place.label, files=loaded.files,
        )  # fmt: skip
        with left_as_it_came(model), kept_heap(), torch.no_grad():
            first = self._collector(model, None, None, self.held_out, place)
            batch = first.source.first()
            with described(batch):
                prepared = first.prepare(batch)
                structure = find_structure(model, first.evaluator.caller, prepared)
            losses, passes, collected = {}, {}, first
            for split in self.sources:
                collected, passes[split] = self._collected(model, structure, split, place, work)
                losses[split] = self._merged(collected.sums, split, work)
            surroundings = Surroundings(
                subject,
                collected,
                structure,
                self.sources["train"],
                work,
                {"seed": settings.seed, "replicates": 0},
            )
            yield Evaluated(
                losses,
                passes,
                collected.evaluator.method,
                surroundings,
                tuple(file.model_dump(mode="json") for file in loaded.files),
                (*loaded.notes, *collected.evaluator.notes),
            )

    def _collected(
        self, model: Any, structure: Structure, split: str, place: Place, work: Path
    ) -> tuple[HeadCollector, float]:
        """Losses of one split, of the held-out one the coalition table, too; and the plain passes that it took."""
        table = work / TABLE if split == self.held_out else None

        def collect(collector: HeadCollector) -> bool:
            return collector.measure() if table is None else collector.collect(table)

        def make(reason: str | None) -> HeadCollector:
            if reason is not None and table is not None:
                self._drop(table)
            return self._collector(model, structure, reason, split, place)

        collector = with_full_passes(make, collect)
        cost = collector.evaluator.take_cost()
        if table is not None:
            self._processes.wait()
            infos = [i for i in shard_infos(table) if i.rank == self._processes.rank]
            cost = Cost.total([cost, *(Cost(**info.cost) for info in infos)])
        elif not collector.coalitions:
            cost.full_rows = collector.sums.samples
        return collector, cost.passes(collector.sums.samples)

    def _drop(self, table: Path) -> None:
        self._processes.wait()
        if self._processes.main:
            for shard in table.glob("*.parquet"):
                shard.unlink()
        self._processes.wait()

    def _merged(self, mine: HeadSums, split: str, work: Path) -> HeadSums:
        """Sums of all processes."""
        ranks = self._processes
        if ranks.number == 1:
            return mine
        value = {"totals": mine.totals, "samples": mine.samples, "nonfinite": mine.nonfinite}
        write_json_atomic(work / f"sums-{split}-{ranks.rank}.json", value)
        ranks.wait()
        whole = HeadSums(mine.heads)
        for rank in range(ranks.number):
            held = json.loads((work / f"sums-{split}-{rank}.json").read_text())
            totals = {head: (total, rows) for head, (total, rows) in held["totals"].items()}
            whole.merge(HeadSums(mine.heads, totals, held["samples"], held["nonfinite"]))
        return whole

    def _collector(
        self, model: Any, structure: Structure | None, reason: str | None, split: str, place: Place
    ) -> HeadCollector:
        settings = self._settings
        evaluator = HeadEvaluator(
            model,
            self.spec,
            structure,
            own=settings.own,
            optimize=reason is None,
            reason=reason or "",
            precision=settings.precision,
            seed=settings.seed,
        )
        return HeadCollector(
            source=self.sources[split],
            evaluator=evaluator,
            masks=self.masks,
            value=value_function(self.spec),
            responses=self._responses,
            processes=self._processes,
            progress=self._progress,
            stage=f"{place.label} ({split})",
            empty=settings.empty,
            coalitions=split == self.held_out or set(settings.own) != set(self.spec.names),
        )
