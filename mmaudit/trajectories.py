"""From the logs of a training to a record of its overfitting: read, align, measure, state. Nothing here loads torch.

``read_losses`` brings foreign logs to comparable losses and says how; ``ogr`` measures them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mmaudit
from mmaudit.evidence.loss_file import map_path
from mmaudit.evidence.loss_map import LossMap, read_map
from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.losses import Losses, align
from mmaudit.evidence.readers import Columns, Run, read_runs
from mmaudit.evidence.readers.base import RECORDED, counted, listed, said, valid_text
from mmaudit.evidence.recorded_norms import Norms, norm_notes, recorded_norms
from mmaudit.exceptions import LogError
from mmaudit.findings.overfitting import find_overfitting
from mmaudit.measures.loss_measures import Options, measure_losses
from mmaudit.measures.ogr import BlendPolicy
from mmaudit.report.loss_record import LossFlag, LossRecord, RunLosses
from mmaudit.report.loss_report import LossReport
from mmaudit.report.schema import FileRecord
from mmaudit.report.store import write_text_atomic

__all__ = ["LossLog", "ogr", "read_losses"]

_POLICIES = ("clip", "signed", "abs")
_MOST_FILES = 100
_MOST_FLAGS = 200

Paths = Path | str | Iterable[Path | str]


@dataclass(frozen=True)
class LossLog:
    """Losses of one or several runs of a training at common checkpoints.

    Attributes:
        runs: One for each run, all with the same heads and the same axis.
        map: Which series are whose.
        guessed: How they were matched, one sentence each; empty where a map was given.
        notes: What was left out.
        norms: Run -> squared norms of gradients and weights, for those where they were recorded.

    Example:
        >>> log = mmaudit.read_losses("lightning_logs")                               # doctest: +SKIP
        >>> log.runs[0].train.shape, log.heads                                        # doctest: +SKIP
        ((3, 50), ('audio', 'image', 'joint'))
        >>> log.save_map("heads.yaml")                                                # doctest: +SKIP
    """

    runs: tuple[Losses, ...]
    map: LossMap
    guessed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    norms: Mapping[str, Norms] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads."""
        return self.runs[0].heads

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(run.run for run in self.runs)

    def select(self, *titles: str) -> LossLog:
        """The same with some of the runs.

        Raises:
            LogError: If there is no such run.
        """
        unknown = [title for title in titles if title not in self.titles]
        if unknown or not titles:
            raise LogError(
                f"there is no run '{said(str(unknown[0] if unknown else ''))}'; there are {listed(self.titles)}."
            )
        return replace(self, runs=tuple(run for run in self.runs if run.run in titles))

    def save_map(self, path: Path | str) -> Path:
        """Write the map as YAML, to be read again or corrected by hand.

        Raises:
            RecordError: If it cannot be written.
        """
        target = Path(path)
        write_text_atomic(target, self.map.text())
        return target


def read_losses(
    paths: Paths,
    *,
    map: LossMap | Mapping[str, Any] | Path | str | None = None,
    form: str | None = None,
    columns: Columns | Mapping[str, Any] | None = None,
) -> LossLog:
    """Read the train and validation losses of every head from logs.

    Args:
        paths: Files and folders; each may hold several runs, which are taken for repeats of one training; one that begins where another
            ended is part of it.
        map: Which series are whose, or a YAML file that says so; left out, that of the recorder beside a log that was recorded here, else
            it is guessed by their names and told in ``guessed``.
        form: Format of the logs: ``csv``, ``jsonl``, ``json``, ``lightning``, ``tensorboard``, ``huggingface``, ``mlflow``, ``wandb``;
            left out, it is found by what they hold.
        columns: Which column of a table is what: a mapping with any of ``step``, ``epoch``, ``run``, ``name``, ``value``, ``split``, as in
            ``{"epoch": "ep", "split": "phase"}``; left out, what the map says of them, else found by names and content, and told in ``notes``.

    Returns:
        Losses at common checkpoints with what makes them doubtful.

    Raises:
        LogError: If a log cannot be read, or has no head with both losses.
    """
    known = read_map(map) if map is not None else None
    layout = _columns(columns) if columns is not None else known.columns if known else Columns()
    runs = read_runs(paths, form=form, columns=layout)
    guessed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if known is None:
        known = _map_beside(runs)
        if known is not None:
            notes = ("The heads are those of the map that was recorded beside the log.",)
    if known is None:
        guess = guess_map(runs, columns=layout)
        known, guessed = guess.map, guess.sentences
    log = _aligned(runs, known, guessed)
    return replace(log, notes=(*notes, *log.notes))


def ogr(
    losses_or_paths: LossLog | Paths,
    *,
    lag: int = 1,
    smoothing: float = 0.0,
    policy: BlendPolicy = "clip",
    super_epoch: int | None = None,
    map: LossMap | Mapping[str, Any] | Path | str | None = None,
    form: str | None = None,
    columns: Columns | Mapping[str, Any] | None = None,
    title: str | None = None,
) -> LossReport:
    """Measure overfitting against generalization along a training (Wang et al. 2020), from its losses.

    Where norms of gradients were recorded beside them, conditional learning speeds too (Wu et al. 2022).

    Args:
        losses_or_paths: What :func:`read_losses` gave, or logs to read.
        lag: Checkpoints between the two that OGR compares; the comparison with the first one is always there too.
        smoothing: Weight of an exponential moving average of the losses, in [0, 1); 0 for none.
        policy: What a head counts in the blend whose validation loss rose: nothing (``clip``), negatively (``signed``), or as if it
            had fallen (``abs``, as public code has it).
        super_epoch: Checkpoints for which one set of blend weights holds; left out: a fifth of the training.
        map: See :func:`read_losses`; for logs only.
        form: As ``map``.
        columns: As ``map``.
        title: Of the record.

    Returns:
        The report, with measures and findings; :meth:`mmaudit.report.loss_report.LossReport.save` keeps it.

    Raises:
        LogError: If a log cannot be read.
        UndefinedMeasureError: If the lag, the smoothing or the super-epoch is out of range.

    Example:
        >>> report = mmaudit.ogr(["seed0.csv", "seed1.csv", "seed2.csv"])             # doctest: +SKIP
        >>> print(report.findings[0].text)                                            # doctest: +SKIP
        audio overfits first, from epoch 12 [11.0, 13.0]: ...
    """
    if policy not in _POLICIES:
        raise LogError(
            f"the policy is '{said(str(policy))}'; expected one of {', '.join(_POLICIES)}."
        )
    if isinstance(losses_or_paths, LossLog):
        if map is not None or form is not None or columns is not None:
            raise LogError(
                "map, form and columns are for logs; these losses have been read already."
            )
        log = losses_or_paths
    else:
        log = read_losses(losses_or_paths, map=map, form=form, columns=columns)
    options = Options(lag, smoothing, policy, super_epoch)
    norms = [log.norms.get(run.run) for run in log.runs]
    measures = measure_losses(log.runs, options, norms)
    first = log.runs[0]
    record = LossRecord(
        mmaudit_version=mmaudit.__version__,
        created=datetime.now(UTC),
        title=said(title, 200) if title else _title(log),
        heads=first.heads,
        joint=first.joint,
        axis=first.axis,
        series={
            name: {"train": head.train, "validation": head.validation}
            for name, head in log.map.heads.items()
        },
        guessed=log.guessed,
        evaluation_sets=first.evaluation_sets,
        runs=_run_records(log.runs),
        settings=options._asdict(),
        flags=_flags(log.runs),
        measures=measures,
        notes=(*log.notes, *norm_notes(norms)),
    )
    return LossReport(record.model_copy(update={"findings": find_overfitting(record)}))


def _map_beside(runs: Sequence[Run]) -> LossMap | None:
    """The map that a recorder wrote beside each of its logs, where all are logs of recorders and their maps agree."""
    found: list[LossMap] = []
    for run in runs:
        beside = map_path(run.files[0])
        if run.format != RECORDED or not beside.is_file():
            return None
        found.append(read_map(beside))
    return found[0] if found and all(one == found[0] for one in found) else None


def _columns(columns: Columns | Mapping[str, Any]) -> Columns:
    if isinstance(columns, Columns):
        return columns
    unknown = [name for name in columns if name not in Columns.model_fields]
    wrong = [value for value in columns.values() if not isinstance(value, str | None)]
    if unknown or wrong:
        raise LogError(
            f"columns: {said(repr((unknown or wrong)[0]))} is none; expected names of columns for {', '.join(Columns.model_fields)}, "
            "as in columns: {epoch: ep, split: phase}."
        )
    return Columns.model_validate(dict(columns))


class _Left(NamedTuple):
    """A run that was left out."""

    title: str
    reason: str


def _aligned(runs: Sequence[Run], known: LossMap, guessed: tuple[str, ...]) -> LossLog:
    """Losses of the runs that have them, all counted in the same."""
    found: list[Losses] = []
    left: list[_Left] = []
    for run in runs:
        missing = sorted(known.series - run.series.keys())
        if missing and len(runs) > 1:
            left.append(_Left(run.title, f"no series '{said(missing[0], 60)}'"))
            continue
        try:
            found.append(align(run, known))
        except LogError as error:
            if len(runs) == 1:
                raise
            left.append(_Left(run.title, str(error)))
    if not found:
        raise LogError(f"none of the {len(runs)} runs can be used; the first: {left[0].reason}")
    axes = [run.axis for run in found]
    axis = max(dict.fromkeys(axes), key=axes.count)
    left += [
        _Left(run.run, f"counted in {run.axis}s, the others in {axis}s")
        for run in found
        if run.axis != axis
    ]
    found = [run for run in found if run.axis == axis]
    notes = [note for run in found for note in run.notes]
    if left:
        shown = "; ".join(f"'{said(one.title, 60)}' ({said(one.reason, 120)})" for one in left[:3])
        more = f"; and {len(left) - 3} more" if len(left) > 3 else ""
        notes.insert(0, f"{counted(len(left), 'run')} of {len(runs)} left out: {shown}{more}.")
    if len(found) > 1:
        notes.insert(0, f"{len(found)} runs, taken for repeats of one training.")
        lengths = sorted({len(run.at) for run in found})
        if len(lengths) > 1:
            notes.insert(1, f"The runs have {lengths[0]:,} to {lengths[-1]:,} checkpoints.")
    titles = {run.run for run in found}
    norms = {
        run.title: recorded
        for run in runs
        if run.title in titles and (recorded := recorded_norms(run)) is not None
    }
    return LossLog(tuple(found), known, guessed, tuple(dict.fromkeys(notes)), norms)


def _title(log: LossLog) -> str:
    if len(log.runs) == 1:
        return said(log.runs[0].run, 200) or "training"
    return f"{said(log.runs[0].run, 100)} and {len(log.runs) - 1} more"


def _run_records(runs: Sequence[Losses]) -> tuple[RunLosses, ...]:
    paths = dict.fromkeys(path for run in runs for path in run.files[:_MOST_FILES])
    # Many runs may be in one file.
    files = {path: _file_record(Path(path)) for path in paths}
    return tuple(_run_record(run, files) for run in runs)


def _run_record(run: Losses, files: Mapping[str, FileRecord]) -> RunLosses:
    columns = {
        name: {
            head: tuple(None if math.isnan(loss) else loss for loss in row)
            for head, row in zip(run.heads, values.tolist(), strict=True)
        }
        for name, values in (("train", run.train), ("validation", run.validation))
    }
    return RunLosses(
        title=run.run,
        format=run.format,
        files=tuple(files[path] for path in run.files[:_MOST_FILES]),
        points=run.points,
        at=tuple(run.at.tolist()),
        train=columns["train"],
        validation=columns["validation"],
        window=run.window,
        notes=run.notes,
    )


def _file_record(path: Path) -> FileRecord:
    """A log with its hash; one that went away meanwhile has none."""
    name = valid_text(str(path))
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileRecord(path=name, sha256=digest, bytes=file.tell(), role="log")
    except OSError:
        return FileRecord(path=name, sha256="", bytes=0, role="log")


def _flags(runs: Sequence[Losses]) -> tuple[LossFlag, ...]:
    """Flags of all runs; one kind of one head is told once, with the number of runs."""
    found: dict[tuple[str, str | None, bool], list[str]] = {}
    for run in runs:
        for flag in run.flags:
            found.setdefault((flag.kind, flag.head, flag.unusable), []).append(flag.text)
    told = []
    for (kind, head, unusable), texts in found.items():
        if len(runs) == 1:
            told += [
                LossFlag(kind=kind, head=head, text=text, unusable=unusable)
                for text in dict.fromkeys(texts)
            ]
            continue
        number = sum(any(f.kind == kind and f.head == head for f in run.flags) for run in runs)
        text = texts[0]
        if number < len(runs):
            text = f"{text.removesuffix('.')} (in {number} of {len(runs)} runs)."
        # One run of many that looks odd does not take the head away.
        wrong = unusable and 2 * number >= len(runs)
        told.append(LossFlag(kind=kind, head=head, text=text, unusable=wrong, runs=number))
    return tuple(told[:_MOST_FLAGS])
