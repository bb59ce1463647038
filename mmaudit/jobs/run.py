"""One attempt at one job, in its own process and session: ``python -m mmaudit.jobs.run``, started by the worker.

The process inherits two locks: the job's own, which says that it lives, and that of its device. It ends the job itself, by writing
its last state while it still holds both, and only if the attempt it was started for is still the current one. SIGTERM and SIGINT
become ``KeyboardInterrupt``, so that training leaves a state to go on from: the job is then cancelled if that was wanted, and
else, as when the machine is shut down, waits to be run on.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mmaudit.exceptions import MMAuditError
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.guard import start_guard
from mmaudit.jobs.offers import Settings, check_settings
from mmaudit.jobs.processes import identify
from mmaudit.jobs.registry import registered
from mmaudit.jobs.reporting import Progress, Reporter
from mmaudit.jobs.states import (
    CANCEL,
    JobSpec,
    JobState,
    JobStatus,
    change,
    now,
    read_spec,
)

__all__ = ["Task", "Work", "main", "retrain"]

PAUSE = 5.0
"""Seconds before an interrupted job is run on: a machine that shuts down ends the worker meanwhile."""

_LAST_WORDS = 10
"""Seconds that Python may take to shut down once the job has ended; helpers that hang must not keep the device."""

_WRITE_ATTEMPTS = 20


@dataclass(frozen=True)
class Task:
    """What an attempt has to do.

    Attributes:
        spec: What was asked for.
        settings: Checked once more.
        out: Folder that the job writes; what an earlier attempt left there is gone on with.
        device: The device whose lease the attempt holds.
        progress: To be called with a stage, how much is done and, where known, of how much.
    """

    spec: JobSpec
    settings: Settings
    out: Path
    device: str
    progress: Progress


Work: TypeAlias = Callable[[Task], str]
"""Does a task, going on with what an earlier attempt left, and returns a sentence on how it ended."""


def retrain(task: Task) -> str:
    """Retrain the model of the registered audit file."""
    registered_as_submitted(task.spec, task.out.parents[1])
    os.chdir(task.spec.file.folder)
    sys.path.append(str(task.spec.file.folder))
    task.progress("Loading", 0, None)
    # torch takes seconds to import: a changed audit file is refused before.
    import mmaudit

    settings = task.settings
    resume = (task.out / "retrain.json").exists()
    if (
        not resume
    ):  # the folder is the job's alone: what a killed attempt had not begun yet is worth nothing
        shutil.rmtree(task.out, ignore_errors=True)
    mmaudit.retrain(
        task.spec.file.path,
        task.spec.remedy,
        out=task.out,
        options=settings.options,
        recipe=settings.recipe,
        start=settings.start,
        control=settings.control,
        resume=resume,
        # It sees the GPU that it has the lease of, and no other.
        device=task.device.partition(":")[0],
        progress=task.progress,
    )
    return "trained, audited again and compared"


def registered_as_submitted(spec: JobSpec, workspace: Path) -> None:
    """Refuse an audit file that is no longer what its owner allowed and the job was submitted for.

    Raises:
        JobError: With the sentence that says what has changed.
    """
    for file in registered(workspace):
        if file.id == spec.file.id:
            if file.sha256 != spec.file.sha256 or file.path != spec.file.path:
                raise JobError(
                    f"{file.path.name} was registered anew since this job was submitted: submit a new job"
                )
            changed = file.unchanged()
            if changed is not None:
                raise JobError(changed)
            return
    raise JobError(f"{spec.file.path.name} is registered no longer: register it (mmaudit register)")


def main(arguments: Sequence[str] | None = None, *, work: Work = retrain) -> int:
    """Run an attempt.

    Args:
        arguments: Job folder, token of the attempt, device, and the descriptors of the job's and the device's lock; left out,
            those of the command line.
        work: What to do; tests give something quicker than a training.

    Returns:
        Exit status: 0 once the end of the attempt is written, 2 where it was not this process's to write, 4 if it could not be.
    """
    stop = _Stop()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 5:
        print("jobs are started by the worker: mmaudit jobs WORKSPACE run", file=sys.stderr)
        return 2
    folder, token, device = Path(words[0]), words[1], words[2]
    for handle in map(int, words[3:]):
        # What the job forks keeps the locks, since it may use the device; what it starts anew need not.
        os.set_inheritable(handle, False)
    attempt = _Attempt(folder, token, stop)
    if not attempt.check_in():
        print("this attempt is no longer the current one", file=sys.stderr)
        return 2
    start_guard()
    state, sentence = attempt.run(device, work)
    print(f"-- {state}: {sentence}", file=sys.stderr, flush=True)
    written = attempt.end(state, sentence)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_LAST_WORDS)
    return 0 if written else 4


class _Stop:
    """SIGTERM and SIGINT as one ``KeyboardInterrupt``, raised only where it may be."""

    def __init__(self) -> None:
        self.asked = False
        self._allowed = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._come)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        self._allowed = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False

    def now(self) -> None:
        """Stop as if a signal had come."""
        # A second interrupt would hit the saving of the state that the first one has caused.
        first, self.asked = not self.asked, True
        if first and self._allowed:
            raise KeyboardInterrupt

    def _come(self, number: int, frame: Any) -> None:
        self.now()


class _Attempt:
    """What the process may still say about its job: nothing, once another attempt is the current one."""

    def __init__(self, folder: Path, token: str, stop: _Stop) -> None:
        self._folder, self._token, self._stop = folder, token, stop

    def check_in(self) -> bool:
        """Say which process this is."""
        process = identify(os.getpid())
        return self._changed(lambda status: status.model_copy(update={"process": process}))

    def run(self, device: str, work: Work) -> tuple[JobState, str]:
        """Do the work; the state it ended in, and why."""
        reporter = Reporter(self._folder, stop=self._stop.now)
        try:
            spec = read_spec(self._folder)
            task = Task(
                spec=spec,
                settings=check_settings(spec.remedy, spec.settings),
                out=self._folder.parents[1] / "retrainings" / spec.id,
                device=device,
                progress=reporter,
            )
            print(f"-- {now():%Y-%m-%d %H:%M:%S} UTC: {spec.remedy} on {device}", file=sys.stderr)
            if (self._folder / CANCEL).exists():
                return self._interrupted()
            with self._stop.allowed():
                return "finished", work(task)
        except KeyboardInterrupt:
            return self._interrupted()
        except MMAuditError as error:
            return self._interrupted() if self._stop.asked else ("failed", str(error))
        except BaseException as error:
            traceback.print_exc()
            # Loaders that the same shutdown has ended may be noticed before our own signal is.
            time.sleep(0.2)
            return self._interrupted() if self._stop.asked else ("failed", _said(error))
        finally:
            reporter.flush()

    def end(self, state: JobState, sentence: str) -> bool:
        """Write the end of the attempt; a full disk gets time to be emptied."""
        for last in range(_WRITE_ATTEMPTS):
            try:
                self._changed(
                    lambda status: (
                        status.again(sentence, pause=PAUSE)
                        if state == "queued"
                        else status.to(state, sentence)
                    )
                )
                return True
            except MMAuditError as error:
                print(f"the end of the job cannot be written: {error}", file=sys.stderr, flush=True)
                if last < _WRITE_ATTEMPTS - 1:
                    time.sleep(1)
        return False

    def _changed(self, decide: Callable[[JobStatus], JobStatus]) -> bool:
        """Change the status if this attempt is the current one; whether it was."""
        mine = False

        def fenced(status: JobStatus) -> JobStatus | None:
            nonlocal mine
            mine = status.state == "running" and status.token == self._token
            return decide(status) if mine else None

        change(self._folder, fenced)
        return mine

    def _interrupted(self) -> tuple[JobState, str]:
        if (self._folder / CANCEL).exists():
            return "cancelled", "cancelled; resuming goes on from its last checkpoint"
        return "queued", "interrupted from outside, as by a shutdown"


def _said(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: a smaller batch size needs less"
    text = " ".join(str(error).split())
    return (
        f"stopped by {type(error).__name__}{f': {text}' if text else ''}; its log has the traceback"
    )


if __name__ == "__main__":
    sys.exit(main())
