"""A training that takes seconds and trains nothing: writes what a retraining writes, a step at a time, and goes on where it stopped.

``python -m tests.dashboard.stand_in WORKSPACE [SECONDS_PER_EPOCH]`` is a worker whose jobs are such trainings.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from mmaudit.jobs.run import Task, main
from mmaudit.jobs.worker import Worker
from mmaudit.report import AuditReport
from tests.dashboard.comparisons import make_comparison
from tests.report.fixtures import make_report

PACE = "MMAUDIT_TEST_PACE"


def pretend(task: Task) -> str:
    """Write a record, a loss record that grows epoch by epoch, and another record."""
    pace = float(os.environ.get(PACE, "0.1"))
    out, epochs = task.out, task.settings.epochs
    task.progress("Audit before", 0, 600)
    if not (out / "before" / "report.json").exists():
        _save(out / "before", "audio-visual digits", seed=0)
    history = out / "training" / "history.jsonl"
    history.parent.mkdir(parents=True, exist_ok=True)
    done = _epochs_done(history)
    for epoch in range(done, epochs + 1):
        task.progress("Training", epoch, epochs)
        with history.open("a", encoding="utf-8") as file:
            for split, name, value in _values(epoch):
                row = {
                    "step": 10 * epoch,
                    "epoch": epoch,
                    "split": split,
                    "name": name,
                    "value": value,
                }
                file.write(json.dumps(row) + "\n")
        print(f"epoch {epoch} of {epochs}", flush=True)
        time.sleep(pace)
    task.progress("Audit after", 0, 600)
    if not (out / "after" / "report.json").exists():
        _save(out / "after", "audio-visual digits, retrained", seed=1)
    _compare(out)
    return "finished"


def _values(epoch: int) -> list[tuple[str, str, float]]:
    return [
        ("train", "loss", 2.2 * math.exp(-0.3 * epoch)),
        ("validation", "loss", 0.3 + 1.9 * math.exp(-0.25 * epoch)),
        ("train", "accuracy", 1 - 0.9 * math.exp(-0.4 * epoch)),
        ("validation", "accuracy", 0.95 - 0.85 * math.exp(-0.3 * epoch)),
        ("remedy", "kappa audio", 1 + 0.6 * math.exp(-0.1 * epoch)),
        ("remedy", "kappa image", 1 - 0.5 * math.exp(-0.1 * epoch)),
    ]


def _epochs_done(history: Path) -> int:
    if not history.exists():
        return 0
    return 1 + max(
        (json.loads(line)["epoch"] for line in history.read_text().splitlines()), default=-1
    )


def _save(folder: Path, title: str, *, seed: int) -> None:
    report = make_report(folder=folder, title=title, seed=seed)
    name = f"{folder.parent.name[:20]}{seed}"
    report.record = report.record.model_copy(update={"report_id": name})
    report.save(folder, overwrite=True)


def _compare(out: Path) -> None:
    before, after = (AuditReport.load(out / name) for name in ("before", "after"))
    make_comparison(before, after).save(out)


def work() -> None:
    """A worker in the foreground, until SIGTERM."""
    workspace = sys.argv[1]
    if len(sys.argv) > 2:
        os.environ[PACE] = sys.argv[2]
    worker = Worker(
        workspace,
        runner=[sys.executable, "-m", "tests.dashboard.stand_in", "--job"],
        devices=("cpu",),
        pause=0.1,
    )
    signal.signal(signal.SIGTERM, lambda number, frame: worker.stop())
    try:
        worker.run()
    finally:
        worker.close()


if __name__ == "__main__":
    if sys.argv[1] == "--job":
        sys.exit(main(sys.argv[2:], work=pretend))
    work()
