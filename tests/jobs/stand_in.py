"""In place of a retraining: numbered steps, gone on with where they stopped. Started by a worker as its runner.

The settings say what to do: ``epochs`` is the number of steps, ``batch_size`` the milliseconds each takes, and ``seed`` how the job
behaves (see :data:`HABITS`).
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HABITS = {
    "good": 0,
    "fails": 1,  # as a retraining does that cannot work
    "breaks": 2,  # as a bug does
    "deaf": 3,  # goes on whatever comes
    "parent": 4,  # starts children: one forked, one started anew, one in a session of its own
    "killed": 5,  # kills itself after every second step
    "tidy": 6,  # takes a moment to save its state
    "exits": 7,  # leaves without a word
    "remembers": 8,  # as the real one: refuses an audit file that has changed
    "leaves": 9,  # like "parent", and ends in order at once
}
"""What a job does -> the seed that says so."""

_NAMES = {seed: name for name, seed in HABITS.items()}


def steps(task):
    """Do the steps that are left."""
    from mmaudit.jobs.run import registered_as_submitted

    habit = _NAMES[task.settings.seed]
    _alone_on(task.out.parents[1], task.device)
    if habit == "remembers":
        registered_as_submitted(task.spec, task.out.parents[1])
    task.out.mkdir(parents=True, exist_ok=True)
    path = task.out / "steps"
    _cut(path)
    if habit in ("parent", "leaves"):
        _children(task.out)
    if habit == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = len(path.read_text().splitlines()) if path.exists() else 0
    try:
        for step in range(first, task.settings.epochs):
            _one(task, habit, step, path)
    except KeyboardInterrupt:
        if habit == "tidy":
            time.sleep(0.3)
            (task.out / "saved").write_text("")
        raise
    return "finished"


def _one(task, habit, step, path):
    from mmaudit.exceptions import ModelError

    until = time.monotonic() + task.settings.batch_size / 1000
    while time.monotonic() < until:
        if habit != "deaf":
            task.progress("Training", step, task.settings.epochs)
        time.sleep(0.01)
    with path.open("a") as file:
        file.write(f"{step} {os.getpid()}\n")
        file.flush()
        os.fsync(file.fileno())
    print(f"step {step}", flush=True)
    if habit == "fails":
        raise ModelError("the model has no encoder for\n  'audio': name it in the spec.")
    if habit == "breaks":
        raise IndexError("list index out of range")
    if habit == "killed" and step % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if habit == "exits":
        os._exit(7)


def _alone_on(workspace, device):
    """A second opinion on leases: a lock of another kind, which only this very process has."""
    global _witness
    _witness = (workspace / f"witness-{device}").open("a+")
    try:
        fcntl.lockf(_witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (workspace / "two-at-once").write_text(device)


def _cut(path):
    """Drop a last line that was torn."""
    if path.exists():
        text = path.read_text()
        path.write_text(text[: text.rfind("\n") + 1])


def _children(out: Path):
    forked = os.fork()
    if forked == 0:
        time.sleep(600)
        os._exit(0)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = [subprocess.Popen(command), subprocess.Popen(command, start_new_session=True)]
    (out / "children").write_text(" ".join(map(str, [forked, *(p.pid for p in started)])))
    for process in started:
        process.returncode = 0


if __name__ == "__main__":
    from mmaudit.jobs.run import main

    sys.exit(main(work=steps))
