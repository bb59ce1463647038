from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from mmaudit.training import read_history
from tests.training.subject import PLAIN, build, run

ROOT = Path(__file__).parents[2]


def test_two_processes_take_the_steps_of_one(tmp_path):
    one = run(tmp_path / "one", PLAIN, build(random_layers=False))
    assert one.steps >= 20
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", "tests.training.distributed_subject", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    expected, came = load_file(one.weights), load_file(tmp_path / "two" / "best.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(came[key], value, rtol=1e-5, atol=1e-5)
    first, second = read_history(tmp_path / "one"), read_history(tmp_path / "two")
    assert first["step"].tolist() == second["step"].tolist()
    assert (first["value"] - second["value"]).abs().max() < 1e-5
