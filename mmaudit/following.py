"""A training followed through its checkpoints: clean losses of every head, and what each modality contributed, at each of them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import torch

import mmaudit
from mmaudit.evidence.checkpoint_order import Place, find_checkpoints
from mmaudit.evidence.checkpoint_series import CheckpointSeries, Evaluated, SeriesSettings
from mmaudit.evidence.collecting import Progress
from mmaudit.evidence.head_losses import known_heads
from mmaudit.evidence.latents import COMPETITION, collect_competition
from mmaudit.evidence.loss_file import (
    ABOUT,
    NONFINITE,
    described_heads,
    map_path,
    recorded_map,
    row_lines,
    series_names,
    written,
)
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.series_folder import claimed_series, read_row, row_path, stamp_of
from mmaudit.evidence.table import shard_infos
from mmaudit.evidence.workspace import TABLE
from mmaudit.exceptions import CheckpointError, MMAuditError, SpecError
from mmaudit.masking.spec import AuditSpec, read_spec
from mmaudit.measures import check_request, compute_measures
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.report.frames import measure_frame
from mmaudit.report.schema import MeasureResult
from mmaudit.report.store import write_bytes_atomic, write_json_atomic, write_text_atomic
from mmaudit.training.opening import home_of
from mmaudit.typing import EmptyRule

__all__ = ["CheckpointTrajectory", "trajectory"]

LOSSES, MEASURES = "losses.jsonl", "measures.parquet"
_WORK = ".running"

_MEASURES = ("responses", "contributions", "utilization", "competition")


@dataclass(frozen=True)
class CheckpointTrajectory:
    """A training as its checkpoints tell it.

    Attributes:
        folder: Holds everything.
        log: Clean losses in JSON lines, for :func:`mmaudit.ogr`.
        map: Which series of the log is which head's loss.
        losses: ``checkpoint``, ``epoch``, ``step``, ``split``, ``head``, ``loss`` and ``n`` (rows behind it), a row for each.
        measures: Of the held-out split at each checkpoint: ``checkpoint``, ``epoch``, ``step``, ``measure``, the measure's labels,
            ``value``, ``low``, ``high``, ``n``, ``method``, ``undefined``, ``warning``, ``unit``.
        notes: What a reader must know.
    """

    folder: Path
    log: Path
    map: Path
    losses: pd.DataFrame
    measures: pd.DataFrame
    notes: tuple[str, ...]


def trajectory(
    audit_file: Path | str,
    checkpoints: str | Path | Sequence[str | Path],
    *,
    out: Path | str,
    heads: Mapping[str, str] | None = None,
    measures: Sequence[str] = _MEASURES,
    train_samples: int | None = None,
    validation_samples: int | None = None,
    empty: EmptyRule = "exact",
    resume: bool = False,
    device: str | None = None,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    batch_size: int | None = None,
    replicates: int = 1000,
    seed: int | None = None,
    timeout: float = 120,
    trust: bool = False,
    progress: Progress | None = None,
) -> CheckpointTrajectory:
    """Evaluate a series of checkpoints: clean train and held-out losses of every head, and measures along the training.

    A head is the model's own unimodal head where ``heads`` names one, else the mono-modal Shapley response of the modality. Each
    checkpoint and split takes about one pass (``1 + (2**M - 2) f``, f being the share after the encoders); what it took is
    written down.

    Args:
        audit_file: Of the model: factory, modalities, ``data.train`` and ``data.validation``. Without validation data the test split
            stands in for it, and that is said. The checkpoint that it names does not matter.
        checkpoints: Files or folders, or patterns such as ``run/epoch*.ckpt``. They are ordered by epoch or step; see
            :func:`~mmaudit.evidence.checkpoint_order.find_checkpoints`.
        out: Folder for ``losses.jsonl``, ``measures.parquet`` and a file for every checkpoint.
        heads: Modality -> path of its own head's scores in what the model returns.
        measures: Measures at every checkpoint, on the held-out split; ``competition`` where there are concepts to compare with.
        train_samples: At most so many training samples, drawn once; left out: all.
        validation_samples: The same for held-out samples.
        empty: What the empty coalition counts in a response.
        resume: Go on with what was begun in ``out``. Checkpoints that are new, or have changed, are evaluated; the others are not.
            One that cannot be loaded ends the series with a sentence after the others have been evaluated.
        device: Where to run; left out, a GPU if there is one.
        precision: ``bfloat16`` and ``float16`` run under autocast.
        batch_size: Instead of the data's own.
        replicates: Bootstrap replicates behind the intervals.
        seed: Of everything drawn; left out, the audit file's.
        timeout: Seconds a DataLoader worker may take for a batch.
        trust: Load checkpoints that run code when they are loaded.
        progress: Told how far it is: stage, done, total.

    Returns:
        Losses and measures. Under ``torchrun`` the main process writes them and all processes return them.

    Raises:
        CheckpointError: If checkpoints cannot be loaded, or are none of this model. What the others say is in ``out``.
        MMAuditError: One of its other children, with a sentence that says what was expected, what came and what to do.

    Example:
        >>> found = mmaudit.trajectory("audit.yaml", "run/epoch*.ckpt", out="runs/trajectory")     # doctest: +SKIP
        >>> found.losses.pivot(index="epoch", columns=["head", "split"], values="loss")            # doctest: +SKIP
    """
    source, out = Path(audit_file).resolve(), Path(out)
    spec = read_spec(source, AuditSpec)
    assert isinstance(spec, AuditSpec)
    check_request(measures, replicates)
    own = known_heads(heads, spec)
    _check_numbers(train_samples=train_samples, validation_samples=validation_samples, batch_size=batch_size)  # fmt: skip
    if precision not in ("float32", "bfloat16", "float16"):
        raise SpecError(f"precision '{precision}' is none; there are float32, bfloat16, float16.")
    if empty not in get_args(EmptyRule):
        raise SpecError(f"empty is {empty!r}; expected one of {', '.join(get_args(EmptyRule))}.")
    seed = spec.seed if seed is None else seed
    places, order = find_checkpoints(checkpoints)
    processes = Processes(device)
    request = {
        "audit_file": hashlib.sha256(source.read_bytes()).hexdigest(), "heads": own, "measures": list(measures),
        "train_samples": train_samples, "validation_samples": validation_samples, "empty": empty, "precision": precision,
        "batch_size": batch_size, "replicates": replicates, "seed": seed, "version": mmaudit.__version__,
    }  # fmt: skip
    settings = SeriesSettings(
        own=own,
        empty=empty,
        seed=seed,
        precision=None if precision == "float32" else getattr(torch, precision),
        batch_size=batch_size,
        train_samples=train_samples,
        validation_samples=validation_samples,
        timeout=timeout,
        trust=trust,
    )
    series = CheckpointSeries(
        spec,
        home_of(source, spec),
        responses=shapley_matrix(len(spec.names)),
        processes=processes,
        settings=settings,
        progress=progress,
    )
    with claimed_series(out, request, processes, resume=resume):
        following = _Following(series, out, processes, measures, replicates, own, empty)
        notes = (f"Checkpoints are ordered by {order}.", *series.notes)
        failed: dict[Place, CheckpointError] = {}
        for number, place in enumerate(places, 1):
            if read_row(out, place) is None:
                try:
                    following.evaluate(place, f"{number} of {len(places)}")
                except CheckpointError as error:
                    failed[place] = error
                    continue
                following.assemble(places, notes)
        processes.wait()
        if failed:
            raise _incomplete(list(failed.values()), len(places), out)
        following.assemble(places, notes)
        processes.wait()
        return following.result(places, notes)


class _Following:
    """One series in its folder."""

    def __init__(
        self,
        series: CheckpointSeries,
        out: Path,
        processes: Processes,
        measures: Sequence[str],
        replicates: int,
        own: Mapping[str, str],
        empty: EmptyRule,
    ) -> None:
        self.series, self.out, self.processes = series, out, processes
        self.measures, self.replicates = measures, replicates
        self.own, self.empty = own, empty
        self._found: dict[Place, tuple[dict[str, Any], pd.DataFrame]] = {}

    def evaluate(self, place: Place, nth: str) -> None:
        """Evaluate a checkpoint and write its file."""
        work, stamp = self.out / _WORK, stamp_of(place.path)
        # What a killed run has left is done again, from the beginning of its checkpoint.
        self.processes.wait()
        if self.processes.main:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        self.processes.wait()
        try:
            with self.series.evaluated(place, work, nth=nth) as found:
                if self.processes.main:
                    value = {"stamp": stamp, **_described(place, found)}
                    value |= self._measured(found)
                    write_json_atomic(row_path(self.out, place), value)
            self.processes.wait()
        finally:
            if self.processes.main:
                shutil.rmtree(work, ignore_errors=True)

    def _measured(self, found: Evaluated) -> dict[str, Any]:
        """Measures of the held-out split, and what could not be had."""
        surroundings, spec = found.surroundings, self.series.spec
        table = surroundings.work / TABLE
        infos, keys, failures = shard_infos(table), list(self.measures), []
        notes = [*found.notes, *_left_out(found)]
        if COMPETITION in keys and _has_concepts(spec):
            try:
                notes += [note.text for note in collect_competition(surroundings)]
            except MMAuditError:
                raise
            except Exception as error:  # the losses are worth keeping without it
                failures.append(f"competition: {type(error).__name__}: {error}")
        results: dict[str, MeasureResult] = {}
        if any(info.rows for info in infos):
            classes = spec.classes or tuple(str(k) for k in range(infos[0].classes))
            results, failed = compute_measures(
                table,
                modalities=spec.names,
                classes=classes,
                grouped=any(info.grouped for info in infos),
                seed=surroundings.settings["seed"],
                replicates=self.replicates,
                only=keys,
                task=spec.task,
            )
            failures += [f"{failure.measure}: {failure.error}" for failure in failed]
        else:
            failures.append("no held-out sample has finite outputs in every coalition")
        return {
            "measures": {key: result.model_dump(mode="json") for key, result in results.items()},
            "failures": failures,
            "notes": list(dict.fromkeys(notes)),
        }

    def rows(self, places: Sequence[Place]) -> list[dict[str, Any]]:
        """What was found so far, in order, without the measures."""
        return [row for row, _ in self._held(places)]

    def _held(self, places: Sequence[Place]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
        for place in places:
            if place not in self._found and (row := read_row(self.out, place)) is not None:
                self._found[place] = row, _measure_frame(row)
                del row["measures"]
        return [self._found[place] for place in places if place in self._found]

    def assemble(self, places: Sequence[Place], notes: Sequence[str]) -> None:
        """Write the log and the table of everything that is there so far."""
        if not self.processes.main:
            return
        held = self._held(places)
        rows = [row for row, _ in held]
        lines = json.dumps(self._about(rows, notes)) + "\n"
        for row in rows:
            for split, losses in row["losses"].items():
                names = series_names(losses)
                values = {names[head]: float(found["loss"]) for head, found in losses.items()}
                if row["nonfinite"][split]:
                    values[NONFINITE] = float(row["nonfinite"][split])
                lines += row_lines(step=row["step"], epoch=row["epoch"], split=split, values=values)
        write_text_atomic(self.out / LOSSES, lines)
        heads = recorded_map(self.series.spec.names, self.series.held_out)
        write_text_atomic(map_path(self.out / LOSSES), heads.text())
        table = io.BytesIO()
        frames = [frame for _, frame in held if len(frame)]
        whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"checkpoint": []})
        whole.to_parquet(table, index=False)
        write_bytes_atomic(self.out / MEASURES, table.getvalue())

    def result(self, places: Sequence[Place], notes: Sequence[str]) -> CheckpointTrajectory:
        """What is in the folder."""
        rows, log = self.rows(places), self.out / LOSSES
        losses = [
            {
                **{key: row[key] for key in ("checkpoint", "epoch", "step")},
                "split": split,
                "head": head,
                "loss": float(found["loss"]),
                "n": found["n"],
            }
            for row in rows
            for split, heads in row["losses"].items()
            for head, found in heads.items()
        ]
        return CheckpointTrajectory(
            self.out,
            log,
            map_path(log),
            pd.DataFrame(losses),
            pd.read_parquet(self.out / MEASURES),
            (*notes, *_row_notes(rows)),
        )

    def _about(self, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> dict[str, str]:
        """The first line of the log."""
        series, spec = self.series, self.series.spec
        passes = {
            split: sum(row["passes"][split] for row in rows) / max(len(rows), 1)
            for split in series.sources
        }
        took = ", ".join(f"{value:.2f} passes over {split}" for split, value in passes.items())
        return {
            ABOUT: f"clean losses of all heads in evaluation mode; checkpoints: {len(rows)}",
            "loss": f"{'mean squared error' if spec.task == 'regression' else 'nats'}, mean over rows",
            "heads": described_heads(spec, self.own, self.empty),
            **{split: source.description for split, source in series.sources.items()},
            "cost": f"{took} for each checkpoint",
            "notes": " ".join([*notes, *_row_notes(rows)]),
        }


def _described(place: Place, found: Evaluated) -> dict[str, Any]:
    losses = {}
    for split, sums in found.losses.items():
        means = sums.means()
        losses[split] = {
            head: {"loss": written(value), "n": sums.totals.get(head, (0.0, 0))[1]}
            for head, value in means.items()
        }
    return {
        "checkpoint": place.label,
        "epoch": place.epoch,
        "step": place.step,
        "losses": losses,
        "samples": {split: sums.samples for split, sums in found.losses.items()},
        "nonfinite": {split: sums.nonfinite for split, sums in found.losses.items()},
        "passes": found.passes,
        "method": found.method,
        "files": list(found.files),
    }


def _measure_frame(row: Mapping[str, Any]) -> pd.DataFrame:
    """The measures of a checkpoint, as a table with columns that say which it is."""
    frames = []
    for key, held in row["measures"].items():
        frame = measure_frame(MeasureResult.model_validate(held))
        frame.insert(0, "measure", key)
        for name, kind in (("step", "float64"), ("epoch", "float64")):
            frame.insert(0, name, pd.Series([row[name]] * len(frame), dtype=kind))
        frame.insert(0, "checkpoint", row["checkpoint"])
        if len(frame):
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _left_out(found: Evaluated) -> list[str]:
    return [
        f"{found.surroundings.subject.name}: {sums.nonfinite:,} of {sums.samples:,} samples of the {split} split are left out, since an"
        " output of theirs is not finite."
        for split, sums in found.losses.items()
        if sums.nonfinite
    ]


def _row_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes and failures of all checkpoints; what is the same of many but for the checkpoint's name is said once."""
    told: dict[str, list[str]] = {}
    for row in rows:
        names = sorted({row["checkpoint"], Path(row["checkpoint"]).name}, key=len, reverse=True)
        for note in (*row["notes"], *row["failures"]):
            plain = note
            for name in names:
                plain = plain.replace(name, "\0")
            told.setdefault(plain, []).append(note)
    return [
        notes[0]
        if len(set(notes)) == 1
        else f"{notes[0].removesuffix('.')} (the same for {len(notes) - 1} other checkpoints)."
        for notes in told.values()
    ]


def _incomplete(errors: Sequence[CheckpointError], number: int, out: Path) -> CheckpointError:
    """Why the series cannot be finished."""
    first = str(errors[0])
    if number == 1:
        return errors[0]
    if len(errors) == number:
        return CheckpointError(f"none of the {number} checkpoints can be used; the first: {first}")
    first = first.removesuffix(".")
    return CheckpointError(
        f"{len(errors)} of {number} checkpoints cannot be used; the first: {first}. The others are in {out / LOSSES}: replace it, or leave"
        " it out, and go on with --resume."
    )


def _has_concepts(spec: AuditSpec) -> bool:
    references = spec.references
    return bool(references.alone or references.folder or spec.probe.concepts)


def _check_numbers(**numbers: Any) -> None:
    for name, value in numbers.items():
        counts = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not counts:
            raise SpecError(f"{name} is {value!r}; expected an integer of at least 1.")
