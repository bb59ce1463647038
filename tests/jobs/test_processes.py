"""Telling a job's processes from strangers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mmaudit.jobs.processes import TOKEN, boot_id, identify, is_running, members, send, sweep

_SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def child():
    with subprocess.Popen(_SLEEP) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_its_start(child):
    known = identify(child.pid)
    assert (known.pid, known.boot) == (child.pid, boot_id())
    assert is_running(known)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None  # a zombie has ended
    child.wait()
    assert identify(child.pid) is None
    assert not is_running(known)
    assert not send(known, signal.SIGTERM)


@pytest.mark.parametrize("other", [{"start": 1}, {"boot": "another start of the machine"}])
def test_a_stranger_with_the_number_of_a_job_is_left_alone(child, other):
    stranger = identify(child.pid).model_copy(update=other)
    assert not is_running(stranger)
    assert not send(stranger, signal.SIGKILL)
    time.sleep(0.05)
    assert child.poll() is None
    assert send(identify(child.pid), signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_a_sweep_takes_what_has_the_token_and_nothing_else(child):
    token = "token-of-this-test"
    environment = {**os.environ, TOKEN: token}
    both = "import os, time; os.fork() or os.setsid(); time.sleep(60)"
    ours = [
        subprocess.Popen([sys.executable, "-c", both], env=environment, start_new_session=own)
        for own in (True, False)
    ]
    longer = subprocess.Popen(_SLEEP, env={**os.environ, TOKEN: token + "-longer"})
    try:
        deadline = time.monotonic() + 10
        while len(members(token)) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(members(token)) == 4
        assert sweep(token) >= 4
        assert members(token) == []
        assert child.poll() is None
        assert longer.poll() is None
    finally:
        for process in [*ours, longer]:
            process.kill()
            process.wait()


def test_nobody_has_no_token(child):
    assert sweep("") == 0
    assert child.poll() is None


def test_a_session_is_swept_where_its_number_is_safe():
    hidden = {key: value for key, value in os.environ.items() if key != TOKEN}
    code = "import os, time; os.fork(); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=hidden, start_new_session=True
    ) as leader:
        deadline = time.monotonic() + 10
        while len(members("none", leader.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sweep("none", leader.pid) == 2
        assert leader.wait() == -signal.SIGKILL
