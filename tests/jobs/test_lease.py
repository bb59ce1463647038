"""Locks end with their holder, go to children, and readers do not disturb."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from mmaudit.jobs import lease as module
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.lease import Lease, held, locked


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "lock"
    assert not held(path)
    with Lease.take(path):
        assert held(path)
        assert Lease.take(path) is None
    assert not held(path)
    again = Lease.take(path)
    assert again is not None
    again.release()
    again.release()


def test_a_child_inherits_it_and_its_death_frees_it(tmp_path):
    path = tmp_path / "lock"
    lease = Lease.take(path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lease.fileno()]
    )
    lease.release()
    try:
        assert held(path)
        assert Lease.take(path) is None
    finally:
        child.kill()
        child.wait()
    assert not held(path)


def test_readers_do_not_take_each_other_for_the_holder(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    wrong = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            if held(path):
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    # A reader that is just looking delays a taker, and does not turn it away.
    for _ in range(20):
        stop.wait(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_taking_waits_out_a_reader(tmp_path):
    import fcntl

    path = tmp_path / "lock"
    path.touch()
    reader = os.open(path, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    threading.Timer(0.02, lambda: os.close(reader)).start()
    lease = Lease.take(path)
    assert lease is not None
    lease.release()


def test_a_lock_that_is_not_let_go_of_is_an_error(tmp_path):
    path = tmp_path / "lock"
    with (
        Lease.take(path),
        pytest.raises(JobError, match="another process"),
        locked(path, seconds=0.05),
    ):
        pass
    with locked(path):
        assert held(path)
    assert not held(path)


def test_a_pipe_in_its_place_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "lock")
    assert not held(tmp_path / "lock")


def test_what_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(JobError, match="cannot open"):
        Lease.take(tmp_path / "nowhere" / "lock")


def test_other_systems_get_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    with pytest.raises(JobError, match="need Linux.*mmaudit retrain"):
        held(tmp_path / "lock")
