"""What happens to an audit on the way: killed, shared between processes, short of memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import mmaudit
from tests.integration import models
from tests.integration.brute_force import differing_rows, outputs_of_all_coalitions

TABLES = ("responses", "contributions", "interactions", "utilization", "coalitions", "samples")
RUN = """
import sys
import mmaudit.evidence.table
mmaudit.evidence.table._SAMPLES = 20  # a shard for every batch
path, out, resume = sys.argv[1:]
mmaudit.audit(path, out=out, resume=resume == "resume", optimize=False, replicates=100, device="cpu")
"""


def written(folder, *, samples=203, size=32, name="audit.yaml", **settings):
    torch.save(models.two_inputs().state_dict(), folder / "weights.pt")
    path = folder / name
    spec = {
        "model": {"factory": "tests.integration.models:two_inputs", "args": settings},
        "checkpoint": "weights.pt",
        "data": {
            "factory": "tests.integration.models:two_input_batches",
            "args": {"samples": samples, "size": size},
        },
        "target": "label",
        "modalities": {"a": "a", "b": "b"},
    }
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


ROOT = Path(__file__).resolve().parents[2]


def started(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *arguments], env=environment)


def assert_same_numbers(first, second):
    assert first.data == second.data
    for table in TABLES:
        pd.testing.assert_frame_equal(first.to_frame(table), second.to_frame(table))


def test_killed_and_resumed(tmp_path):
    path = written(tmp_path, samples=200, size=20, seconds=0.01)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    shards = tmp_path / "killed" / ".running" / "coalitions"
    process = started(script, path, tmp_path / "killed", "start")
    began = time.monotonic()
    while len(list(shards.glob("part-*.parquet"))) < 2:
        assert process.poll() is None, "the audit ended before it could be killed"
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "report.json").exists()
    assert started(script, path, tmp_path / "killed", "resume").wait() == 0
    whole = mmaudit.audit(path, optimize=False, replicates=100, device="cpu")
    assert_same_numbers(mmaudit.AuditReport.load(tmp_path / "killed"), whole)


@pytest.mark.parametrize(("samples", "size"), [(150, 32), (20, 32)])
def test_two_processes_give_the_numbers_of_one(tmp_path, samples, size):
    path = written(tmp_path, samples=samples, size=size)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert started(*torchrun, script, path, tmp_path / "two", "start").wait() == 0
    one = mmaudit.audit(path, optimize=False, replicates=100, device="cpu")
    assert_same_numbers(mmaudit.AuditReport.load(tmp_path / "two"), one)


@pytest.mark.parametrize("wordless", [False, True])
def test_out_of_memory_is_halved_and_recorded(tmp_path, wordless):
    short = written(tmp_path, size=64, most_rows=20, wordless=wordless)
    report = mmaudit.audit(short, replicates=100)
    enough = mmaudit.audit(written(tmp_path, size=64, name="enough.yaml"), replicates=100)
    assert_same_numbers(report, enough)
    noted = [note.text for note in report.notes if "out of memory" in note.text]
    assert any("halves" in text for text in noted)
    assert not [note for note in enough.notes if "out of memory" in note.text]

    def call(model, batch, present):
        return model(*[batch[n] if n in present else torch.zeros_like(batch[n]) for n in "ab"])

    batches = models.two_input_batches()
    outputs = outputs_of_all_coalitions(models.two_inputs().eval(), batches, ("a", "b"), call)
    targets = torch.cat([batch["label"] for batch in batches])
    assert not differing_rows(report, outputs, targets, ("a", "b"))[0]
