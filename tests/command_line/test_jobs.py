"""``mmaudit register`` and ``mmaudit jobs``: what is printed where, and one sentence for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from mmaudit.command_line.ending import Commands
from mmaudit.command_line.jobs import jobs, register
from mmaudit.jobs.lease import Lease
from mmaudit.jobs.queue import WORKER_LOCK
from mmaudit.jobs.states import ALIVE, LOG, JobProgress, change, now, write_progress
from tests.jobs.place import Place, until

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.command()(register)
app.add_typer(jobs, name="jobs")


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    yield found
    found.end()


def _run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mmaudit")


def _jobs(place, *arguments):
    return _run("jobs", place.workspace, *arguments)


def test_registering_says_what_may_run(place, tmp_path):
    result = _run("register", tmp_path / "other", place.audit_file)
    assert result.exit_code == 0
    assert "registered A small model" in result.stdout
    assert str(place.project / "train.py") in result.stdout
    assert "mmaudit serve" in result.stderr
    result = _run("register", tmp_path / "other", place.project / "train.py")
    assert result.exit_code == 2
    assert "ends in .yaml" in result.stderr


def test_the_list(place):
    assert _jobs(place).stdout == "no jobs\n"
    job = place.submit()
    for arguments in ([], ["list"]):
        result = _jobs(place, *arguments)
        assert result.exit_code == 0
        assert "Last word" in result.stdout.splitlines()[0]
        assert job[:8] in result.stdout
        assert "queued" in result.stdout
        assert "waits for its turn" in result.stdout
    (found,) = json.loads(_jobs(place, "list", "--json").stdout)
    assert (found["id"], found["state"], found["settings"]["epochs"]) == (job, "queued", 3)


def test_a_damaged_job_is_in_the_list(place):
    job = place.submit()
    (place.queue.folder / job / "spec.json").write_text("\x1b[31m")
    result = _jobs(place)
    assert result.exit_code == 0
    assert "spec.json is damaged" in result.stdout
    assert "\x1b" not in result.stdout


def test_one_job(place):
    job = place.submit()
    folder = place.queue.folder / job
    change(folder, lambda status: status.to("running", "runs on cpu", attempts=2, device="cpu"))
    write_progress(
        folder, JobProgress(stage="Training", done=20, total=80, eta_seconds=90.0, at=now())
    )
    (folder / LOG).write_text("one\ntwo\nthree\n")
    with Lease.take(folder / ALIVE):
        text = _jobs(place, "show", job[:5]).stdout
        assert "Training 20 of 80, about 1 min 30 s left" in _jobs(place).stdout
    assert "attempt 2 of 3" in text
    assert "Training 20 of 80, about 1 min 30 s left" in text
    assert "alpha 1.0" in text
    assert json.loads(_jobs(place, "show", job, "--json").stdout)["progress"]["done"] == 20
    assert _jobs(place, "log", job, "--lines", "2").stdout == "two\nthree\n"


def test_cancelling_and_resuming(place):
    job = place.submit()
    assert _jobs(place, "cancel", job).stdout == f"{job[:8]} is cancelled\n"
    assert place.queue.job(job).state == "cancelled"
    with Lease.take(place.queue.folder / WORKER_LOCK):  # so that none is started here
        result = _jobs(place, "resume", job)
        assert (result.stdout, result.stderr) == (f"{job[:8]} waits to go on\n", "")
        change(place.queue.folder / job, lambda status: status.to("running", ""))
        with Lease.take(place.queue.folder / job / ALIVE):
            assert _jobs(place, "cancel", job).stdout == f"{job[:8]} is being cancelled\n"


def test_what_is_not_there(place, tmp_path):
    one, two = place.submit(), place.submit()
    for arguments, said in (
        (["show", "zzz"], "no job's id starts with 'zzz'"),
        (["show", ""], "2 jobs' ids start with ''"),
        (["cancel", "../x"], "no job's id starts"),
        (["resume", place.queue.cancel(one).id, "--force"], "no such option"),
        (["fly", one], "no such command"),
    ):
        result = _jobs(place, *arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert said in result.stderr.lower()
        assert len(result.stderr.strip().splitlines()) == 1
    change(place.queue.folder / two, lambda status: status.to("finished", "finished"))
    result = _jobs(place, "resume", two)
    assert (result.exit_code, "is finished" in result.stderr) == (2, True)
    result = _run("jobs", tmp_path / "nowhere")
    assert (result.exit_code, "there is no workspace" in result.stderr) == (2, True)


def test_running_here_and_now(place):
    assert "no jobs" in _jobs(place, "run").stdout
    with Lease.take(place.queue.folder / WORKER_LOCK):
        result = _jobs(place, "run")
    assert result.exit_code == 2
    assert "a worker is at work in this workspace already" in result.stderr


def test_leaving_a_worker_that_stays(place):
    code = "from tests.command_line.test_jobs import app; app(prog_name='mmaudit')"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "jobs", str(place.workspace), "run", "--stay"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(place.queue.worker_is_running)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert out == "no jobs\n"
    assert "Ctrl-C leaves, and what runs goes on." in err
