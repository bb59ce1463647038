"""``mmaudit convert``, and ``--trust-checkpoint`` where a command opens a checkpoint: refused without it, named with it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mmaudit.checkpoint.importing import importable
from mmaudit.cli import app
from tests.projects import make_project

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
_ENVIRONMENT.pop("MMAUDIT_DEBUG", None)


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in the project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "mmaudit", *arguments],
        cwd=folder,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def mmaudit(monkeypatch):
    """The same in this process, where the log is pytest's: ``(folder, *arguments) -> result``."""

    def run(folder: Path, *arguments: str):
        monkeypatch.chdir(folder)
        return CliRunner().invoke(app, list(arguments))

    yield run
    for name in ("own_net", "factory"):
        sys.modules.pop(name, None)


@pytest.fixture
def pickled(tmp_path):
    """A project whose checkpoint is a pickled module; the audit file names no factory."""
    make_project(tmp_path)
    with importable(tmp_path):
        net = importlib.import_module("own_net").build()
        net.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        torch.save(net, tmp_path / "net.pt")
    sys.modules.pop("own_net")
    spec = yaml.safe_load((tmp_path / "audit.yaml").read_text())
    del spec["model"]
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump({**spec, "checkpoint": "net.pt"}))
    return tmp_path


def test_from_a_pickle_to_an_audit_without_trust(pickled, mmaudit):
    refused = in_a_process(pickled, "convert", "net.pt", "--out", "safe")
    assert refused.returncode == 2 and refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: ") and "own_net.Net" in line and "--trust-checkpoint" in line
    assert not (pickled / "safe").exists()

    done = in_a_process(pickled, "convert", "net.pt", "--out", "safe", "--trust-checkpoint")
    assert done.returncode == 0, done.stderr
    assert "Trusted as you said" in done.stderr and "own_net.Net" in done.stderr
    assert "pickled module, trusted" in done.stdout
    assert "factory.py: build() returns Net()" in done.stdout
    (hint,) = [line.strip() for line in done.stdout.splitlines() if "mmaudit init" in line]

    again = mmaudit(pickled, "convert", "net.pt", "--out", "safe", "--trust-checkpoint")
    assert again.exit_code == 2 and "--force" in again.stderr

    words = hint.removeprefix("mmaudit ").replace("MODULE:FUNCTION", "test.npz").split()
    drafted = mmaudit(pickled, *words, "--yes")
    assert drafted.exit_code == 0, drafted.stderr
    spec = yaml.safe_load((pickled / "safe" / "audit.yaml").read_text())
    assert spec["model"] == {"factory": "factory:build"}
    assert spec["checkpoint"] == "model.safetensors"


def test_every_command_that_opens_a_checkpoint_asks_for_trust(pickled, mmaudit, caplog):
    for arguments in (
        ["inspect", "audit.yaml"],
        ["preview", "audit.yaml"],
        [
            "audit",
            "audit.yaml",
            "--out",
            "run",
            "--replicates",
            "100",
            "--quiet",
            "--device",
            "cpu",
        ],
        ["init", "net.pt", "--data", "test.npz", "--out", "draft.yaml", "--yes"],
    ):
        refused = mmaudit(pickled, *arguments)
        assert refused.exit_code == 2, arguments
        assert "--trust-checkpoint" in refused.stderr.splitlines()[-1] and not caplog.records
        done = mmaudit(pickled, *arguments, "--trust-checkpoint")
        assert done.exit_code == 0, done.stderr
        assert "own_net.Net" in caplog.records[0].getMessage()
        caplog.clear()
    assert "own_net.Net" in (pickled / "run" / "report.json").read_text()
    assert "# model: {factory: ...}" in (pickled / "draft.yaml").read_text()


def test_a_training_needs_a_factory(pickled):
    for command in ("retrain", "unimodal"):
        result = CliRunner().invoke(app, [command, str(pickled / "audit.yaml"), "--out", "x"])
        assert result.exit_code == 2
        assert "names no factory under 'model'" in result.stderr


def test_a_training_from_a_trusted_checkpoint(pickled, mmaudit):
    spec = yaml.safe_load((pickled / "audit.yaml").read_text())
    (pickled / "audit.yaml").write_text(yaml.safe_dump({**spec, "model": "own_net:build"}))
    for command, more in (("unimodal", []), ("retrain", ["--remedy", "joint"])):
        arguments = [command, "audit.yaml", "--out", command, "--epochs", "1", "--quiet", *more]
        arguments += ["--device", "cpu"]
        refused = mmaudit(pickled, *arguments)
        assert refused.exit_code == 2 and "--trust-checkpoint" in refused.stderr
        # Refused again where it was begun; what a retraining claimed is gone on with.
        resume = ["--resume"] if command == "retrain" else []
        done = mmaudit(pickled, *arguments, *resume, "--trust-checkpoint")
        assert done.exit_code == 0, done.stderr
    audited = yaml.safe_load((pickled / "retrain" / "audit.yaml").read_text())
    assert audited["checkpoint"] == "model.safetensors" and "trust" not in audited


def test_convert_with_a_factory_and_an_average(tmp_path, mmaudit):
    make_project(tmp_path)
    state = load_file(tmp_path / "weights.safetensors")
    average = {name: value + 1 for name, value in state.items()}
    torch.save({"model": state, "ema": average}, tmp_path / "best.pt")
    done = mmaudit(
        tmp_path, "convert", "best.pt", "--out", "safe", "--weights", "ema",
        "--factory", "own_net:build", "--factory-args", "{width: 8}",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "build() calls own_net:build" in done.stdout and "averaged weights" in done.stderr
    found = load_file(tmp_path / "safe" / "model.safetensors")
    assert all(torch.equal(found[name], average[name]) for name in state)


def test_weights_alone_say_what_to_fill_in(tmp_path):
    save_file({"a.w": torch.ones(2)}, tmp_path / "w.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CliRunner().invoke(
            app, ["convert", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "out")]
        )
    assert result.exit_code == 0, result.output
    assert "build() has to be filled in: build the model with the parts a" in result.stdout
    assert "Fill in build(), then: mmaudit init" in result.stdout


def test_arguments_without_a_factory_are_refused(tmp_path):
    np.save(tmp_path / "w.npy", np.ones(2))
    result = CliRunner().invoke(
        app, ["convert", str(tmp_path / "w.npy"), "--out", "x", "--factory-args", "{a: 1}"]
    )
    assert result.exit_code == 2 and "leave" in result.stderr
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "w.npy"), "--out", str(tmp_path)])
    assert result.exit_code == 2 and "NumPy array" in result.stderr
