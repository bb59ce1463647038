"""A worker whose jobs are stand-ins, as a process of its own: ``python tests/jobs/work.py WORKSPACE DEVICES PAUSE GRACE``."""

from __future__ import annotations

import sys
from pathlib import Path

RUNNER = (sys.executable, str(Path(__file__).with_name("stand_in.py")))

if __name__ == "__main__":
    from mmaudit.jobs.worker import Worker, work

    workspace, devices, pause, grace = sys.argv[1:]
    worker = Worker(
        workspace,
        runner=RUNNER,
        devices=devices.split(","),
        pause=float(pause),
        grace=float(grace),
        poll=0.05,
    )
    work(worker, idle=None)
