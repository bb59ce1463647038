import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmaudit.exceptions import RecordError
from mmaudit.report.store import (
    copy_folder_atomic,
    sweep_leftovers,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)


def test_files_are_written_whole_and_replaced(tmp_path):
    path = tmp_path / "deep" / "er" / "a.json"
    write_json_atomic(path, {"b": [1, 2.5, None], "ä": "\ud800"})
    assert json.loads(path.read_text("ascii")) == {"b": [1, 2.5, None], "ä": "\ud800"}
    write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    write_text_atomic(path, "grün \ud800")
    assert path.read_text("utf-8") == "grün ?"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes_atomic(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, {"a": object()}, {1: {2, 3}}])
def test_what_is_no_json_is_refused_and_leaves_the_old_file(value, tmp_path):
    path = tmp_path / "a.json"
    write_json_atomic(path, "old")
    with pytest.raises(RecordError, match="no JSON"):
        write_json_atomic(path, value)
    assert json.loads(path.read_text()) == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_order_is_write_flush_rename_flush(tmp_path, monkeypatch):
    seen = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (
            seen.append(f"fsync {Path(f'/proc/self/fd/{handle}').is_dir()}"),
            real_fsync(handle),
        ),
    )
    monkeypatch.setattr(
        type(tmp_path),
        "replace",
        lambda self, to: (seen.append("rename"), real_replace(self, to))[1],
    )
    write_bytes_atomic(tmp_path / "a", b"x")
    assert seen == ["fsync False", "rename", "fsync True"]


def test_copies_of_folders_are_whole(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "part-0").write_bytes(b"0" * 10_000)
    (source / "part-1").write_bytes(b"1")
    copy_folder_atomic(source, tmp_path / "target")
    assert {p.name: p.read_bytes() for p in (tmp_path / "target").iterdir()} == {
        "part-0": b"0" * 10_000,
        "part-1": b"1",
    }
    with pytest.raises(RecordError, match="exists already"):
        copy_folder_atomic(source, tmp_path / "target")
    (source / "folder").mkdir()
    with pytest.raises(RecordError, match="cannot copy"):
        copy_folder_atomic(source, tmp_path / "another")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target"]


def test_leftovers_of_killed_writers_are_swept_once_they_are_old(tmp_path):
    old, young = tmp_path / ".a.json.00.partial", tmp_path / ".b.json.00.partial"
    folder = tmp_path / ".table.00.partial"
    folder.mkdir()
    (folder / "part-0").write_bytes(b"")
    for path in (old, young, tmp_path / "kept.json"):
        path.write_bytes(b"")
    for path in (old, folder):
        os.utime(path, (time.time() - 7200,) * 2)
    assert set(sweep_leftovers(tmp_path)) == {old, folder}
    assert sorted(p.name for p in tmp_path.iterdir()) == [young.name, "kept.json"]


WRITER = """
import sys
from pathlib import Path
from mmaudit.report.store import write_json_atomic
path = Path(sys.argv[1])
print("ready", flush=True)
n = 0
while True:
    n += 1
    if sys.argv[2] == "atomic":
        write_json_atomic(path, [n] * 20_000)
    else:
        path.write_text(str([n] * 20_000))
"""


def _corrupt_after_kills(path, how, kills):
    corrupt = 0
    rng = random.Random(0)
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, str(path), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.02 + 0.05 * rng.random())
            process.send_signal(signal.SIGKILL)
        if path.exists():
            try:
                value = json.loads(path.read_text())
                corrupt += len(value) != 20_000 or len(set(value)) != 1
            except ValueError:
                corrupt += 1
    return corrupt


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    assert _corrupt_after_kills(tmp_path / "a.json", "atomic", 12) == 0
    assert json.loads((tmp_path / "a.json").read_text())[0] >= 1


@pytest.mark.slow
def test_a_hundred_kills(tmp_path):
    assert _corrupt_after_kills(tmp_path / "a.json", "atomic", 100) == 0
    assert _corrupt_after_kills(tmp_path / "b.json", "plain", 40) > 0, (
        "the test must be able to fail"
    )
