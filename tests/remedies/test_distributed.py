"""Two processes take the steps of one, with every remedy, on models without batch statistics and dropout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmaudit.remedies import REMEDIES
from mmaudit.training import read_history
from tests.remedies.distributed_subject import VARIANTS, train_all

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("distributed")
    train_all(folder / "one")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", "tests.remedies.distributed_subject", str(folder / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=115)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "one", folder / "two"


def test_every_remedy_is_tried() -> None:
    assert {key for key, _, _ in VARIANTS.values()} == set(REMEDIES)


@pytest.mark.parametrize("name", [n for n, (key, _, _) in VARIANTS.items() if key in REMEDIES])
def test_two_processes_take_the_steps_of_one(name: str, trained: tuple[Path, Path]) -> None:
    one, two = (folder / name.replace(" ", "-") for folder in trained)
    expected, came = load_file(one / "last.safetensors"), load_file(two / "last.safetensors")
    moved = False
    for key, value in expected.items():
        torch.testing.assert_close(came[key], value, rtol=1e-5, atol=1e-5)
        moved = moved or key.startswith("optimizer/")
    assert moved
    first, second = read_history(one), read_history(two)
    assert first["step"].max() == 20
    assert first["name"].tolist() == second["name"].tolist()
    assert (first["value"] - second["value"]).abs().max() < 1e-4
