"""A workspace with one registered audit file, and what tests do with workers in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mmaudit.jobs.processes import members
from mmaudit.jobs.queue import Queue
from mmaudit.jobs.registry import RegisteredFile, register
from mmaudit.jobs.states import ENDED, JobStatus, read_status
from mmaudit.jobs.worker import Worker
from tests.jobs.stand_in import HABITS
from tests.jobs.work import RUNNER

AUDIT_FILE = """\
title: A small model
model: "train:build"
data: {test: "train:test_data", train: "train:train_data"}
modalities: {audio: audio, image: image}
target: label
"""


class Place:
    """A workspace, its queue and a project beside it."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "train.py").write_text('raise RuntimeError("nobody may import this")\n')
        self.audit_file = self.project / "audit.yaml"
        self.audit_file.write_text(AUDIT_FILE)
        self.workspace = folder / "workspace"
        self.file: RegisteredFile = register(self.workspace, self.audit_file)
        self.queue = Queue(self.workspace)
        self._number = 0

    def submit(self, habit: str = "good", *, steps: int = 3, ms: int = 10) -> str:
        """Submit a stand-in; its id."""
        self._number += 1
        settings = {"epochs": steps, "batch_size": ms, "seed": HABITS[habit]}
        return self.queue.submit(
            "retrain", self.file.id, "agm", settings, f"test-job-{self._number}"
        ).id

    def status(self, job_id: str) -> JobStatus:
        return read_status(self.queue.folder / job_id)

    def steps(self, job_id: str) -> list[str]:
        """The steps that were done, in the order in which they were."""
        path = self.workspace / "retrainings" / job_id / "steps"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def living(self) -> list[int]:
        """Every process of any attempt at any job of this workspace."""
        tokens = {
            event.token
            for folder in self.queue.folders()
            for event in read_status(folder).events
            if event.token
        }
        return [process.pid for token in tokens for process in members(token)]

    def end(self) -> None:
        """Kill whatever is left."""
        with contextlib.suppress(Exception):
            for pid in self.living():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def worker(self, **options: object) -> Iterator[Worker]:
        """A worker in this process, which works while :func:`until` waits."""
        defaults = {"runner": RUNNER, "devices": ["cpu"], "pause": 0.0, "grace": 5.0}
        worker = Worker(self.workspace, **{**defaults, **options})
        try:
            yield worker
        finally:
            worker.close()

    def start_worker(self, *, devices: str = "cpu", pause: float = 0.0, grace: float = 5.0):
        """A worker as a process of its own."""
        self.queue.folder.mkdir(exist_ok=True)
        with (self.queue.folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("work.py")),
                    str(self.workspace),
                    devices,
                    str(pause),
                    str(grace),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def until(condition, worker: Worker | None = None, seconds: float = 30.0) -> None:
    """Wait for something, and let a worker work meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        if worker is not None:
            worker.step()
        time.sleep(0.02)


def has_begun(place: Place, job_id: str, steps: int = 1):
    """Whether a job has reported and done some steps."""
    return lambda: place.status(job_id).process is not None and len(place.steps(job_id)) >= steps


def has_ended(place: Place, *job_ids: str):
    """Whether jobs have ended for good: a crashed one waits to be run on."""

    def ended() -> bool:
        return all(place.status(job_id).state in ENDED for job_id in job_ids)

    return ended
