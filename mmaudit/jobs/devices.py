"""What jobs may run on, one at a time each.

A lease on a GPU holds for all workspaces of a user on a machine, since two jobs on one GPU run out of its memory; the lease on
the CPU holds within a workspace, since two jobs on one CPU are only slower.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from mmaudit.jobs.errors import JobError

__all__ = ["environment", "find_devices", "lease_path"]

_SECONDS = 120
_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def find_devices() -> tuple[str, ...]:
    """``("cuda:0", ...)`` where torch can use a GPU, else ``("cpu",)``; torch is asked in a process of its own."""
    nodes = [
        *Path("/dev").glob("nvidia[0-9]*"),
        *Path("/dev").glob("kfd"),
        *Path("/dev").glob("dxg"),
    ]
    if not nodes:
        return ("cpu",)
    try:
        found = subprocess.run(
            [sys.executable, "-c", _COUNT], capture_output=True, text=True, timeout=_SECONDS
        )
        number = int(found.stdout.split()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        number = 0
    return tuple(f"cuda:{index}" for index in range(number)) or ("cpu",)


def lease_path(device: str, jobs: Path) -> Path:
    """The file whose lock is the right to use a device.

    Args:
        device: ``cpu``, ``cuda:0``, ...
        jobs: Folder of the workspace's jobs.

    Raises:
        JobError: If the folder of the machine's leases belongs to somebody else.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        folder, name = jobs / "leases", device
    else:
        folder, name = _machine_folder(), f"cuda-{_physical(int(index or 0))}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{re.sub('[^A-Za-z0-9]+', '-', name)}.lock"


def environment(device: str) -> dict[str, str]:
    """Environment variables under which a process sees no other GPU than this one, which it then calls ``cuda``."""
    kind, _, index = device.partition(":")
    return {_visible()[0]: _physical(int(index or 0))} if kind == "cuda" else {}


def _physical(index: int) -> str:
    """What a GPU is called outside this process, which may have been shown only some of them."""
    names = _visible()[1]
    return names[index] if index < len(names) else str(index)


def _visible() -> tuple[str, list[str]]:
    """The variable that says which GPUs a process sees, and what it says."""
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        names = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
        if names:
            return variable, names
    return "CUDA_VISIBLE_DEVICES", []


def _machine_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"mmaudit-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise JobError(
            f"{folder} belongs to somebody else: remove it, or set TMPDIR to a folder of yours"
        )
    return folder
