"""What becomes of jobs, whatever happens to them, to the worker and to the machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmaudit.jobs.devices import environment, find_devices, lease_path
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.lease import Lease
from mmaudit.jobs.processes import identify, is_running
from mmaudit.jobs.queue import BELL, WORKER_LOCK
from mmaudit.jobs.registry import register, unregister
from mmaudit.jobs.states import ALIVE, CANCEL, change
from mmaudit.jobs.worker import Worker
from tests.jobs.place import has_begun, has_ended, until


def _states(place, job_id):
    """The states a job went through."""
    return [event.state for event in place.status(job_id).events]


def _all_gone(place, *more):
    """Whether no process of any job is left, nor any of the numbered ones."""
    return lambda: not place.living() and all(identify(pid) is None for pid in more)


def _children(place, job_id):
    path = place.workspace / "retrainings" / job_id / "children"
    return [int(pid) for pid in path.read_text().split()]


def test_ends_in_order(place):
    good, fails, breaks = (place.submit(habit) for habit in ("good", "fails", "breaks"))
    with place.worker() as worker:
        until(has_ended(place, good, fails, breaks), worker)
    assert [place.queue.job(each).state for each in (good, fails, breaks)] == [
        "finished",
        "failed",
        "failed",
    ]
    assert _states(place, good) == ["queued", "running", "finished"]
    assert place.steps(good) == ["0", "1", "2"]
    found = place.queue.job(good)
    assert (found.attempts, found.device) == (1, "cpu")
    assert found.created <= found.started <= found.ended
    assert (found.progress.done, found.progress.total) == (2, 3)
    assert "step 2" in place.queue.log(good)
    # A retraining that says why it cannot work is not tried again.
    assert _states(place, fails) == ["queued", "running", "failed"]
    assert (
        place.queue.job(fails).sentence
        == "the model has no encoder for 'audio': name it in the spec."
    )
    assert place.queue.job(breaks).sentence.startswith(
        "stopped by IndexError: list index out of range"
    )
    assert "Traceback" in place.queue.log(breaks)
    assert not (place.workspace / "two-at-once").exists()
    until(_all_gone(place))


def test_a_crashing_job_goes_on_from_where_it_was_and_is_given_up_after_three_attempts(place):
    job = place.submit("killed", steps=20)
    with place.worker() as worker:
        until(has_ended(place, job), worker)
        found = place.queue.job(job)
        assert (found.state, found.attempts) == ("crashed", 3)
        assert found.sentence.startswith("attempt 3 of 3: killed, probably out of memory")
        attempt = ["running", "crashed"]
        assert _states(place, job) == ["queued", *attempt, "queued", *attempt, "queued", *attempt]
        assert place.steps(job) == [str(step) for step in range(6)]  # two more each time
        for _ in range(5):
            worker.step()
        assert place.queue.job(job).state == "crashed"
        # Somebody who resumes it gives it three attempts more.
        assert place.queue.resume(job).attempts == 0
        until(has_ended(place, job), worker)
    assert place.queue.job(job).attempts == 3
    assert place.steps(job) == [str(step) for step in range(12)]


def test_a_process_that_leaves_without_a_word(place):
    job = place.submit("exits")
    with place.worker() as worker:
        until(has_ended(place, job), worker)
    assert "its process ended with status 7" in place.queue.job(job).sentence


def test_a_runner_that_cannot_be_started(place):
    job = place.submit()
    with place.worker(runner=["/no/such/program"]) as worker:
        until(has_ended(place, job), worker)
    found = place.queue.job(job)
    assert (found.state, found.attempts) == ("crashed", 3)
    assert "could not be started: No such file" in found.sentence


def test_one_job_at_a_time_on_a_device_the_oldest_first(place):
    jobs = [place.submit(ms=60) for _ in range(3)]
    with place.worker() as worker:
        most = 0

        def watched():
            nonlocal most
            running = [job for job in jobs if place.queue.job(job).state == "running"]
            most = max(most, len(running))
            return has_ended(place, *jobs)()

        until(watched, worker)
    assert most == 1
    begun = [place.status(job).started for job in jobs]
    assert begun == sorted(begun)
    assert not (place.workspace / "two-at-once").exists()


def test_two_devices_two_jobs(place):
    jobs = [place.submit(steps=20, ms=20) for _ in range(3)]
    with place.worker(devices=["a", "b"]) as worker:
        until(lambda: all(has_begun(place, job)() for job in jobs[:2]), worker)
        assert place.queue.job(jobs[2]).state == "queued"
        assert {place.queue.job(job).device for job in jobs[:2]} == {"a", "b"}
        until(has_ended(place, *jobs), worker)
    assert not (place.workspace / "two-at-once").exists()


def test_cancelling_lets_the_job_save_its_state(place):
    job = place.submit("tidy", steps=200, ms=20)
    with place.worker() as worker:
        until(has_begun(place, job), worker)
        place.queue.cancel(job)
        until(has_ended(place, job), worker)
        assert place.queue.job(job).state == "cancelled"
        assert (place.workspace / "retrainings" / job / "saved").exists()
        done = len(place.steps(job))
        place.queue.resume(job)
        until(lambda: len(place.steps(job)) > done + 2, worker)
        assert place.steps(job) == [str(step) for step in range(len(place.steps(job)))]
        assert not (place.queue.folder / job / CANCEL).exists()
        place.queue.cancel(job)
        until(has_ended(place, job), worker)
    assert _states(place, job) == [
        "queued",
        "running",
        "cancelled",
        "queued",
        "running",
        "cancelled",
    ]
    until(_all_gone(place))


def test_cancelling_by_force(place):
    job = place.submit("deaf", steps=200, ms=20)
    with place.worker(grace=0.3) as worker:
        until(has_begun(place, job), worker)
        begun = time.monotonic()
        place.queue.cancel(job)
        until(has_ended(place, job), worker)
    assert time.monotonic() - begun > 0.3
    found = place.queue.job(job)
    assert found.state == "cancelled"
    assert "did not stop within 0.3 s and was killed" in found.sentence
    until(_all_gone(place))


def test_cancelling_before_the_process_is_up(place):
    job = place.submit(steps=200)
    with place.worker() as worker:
        until(lambda: place.status(job).state == "running", worker)
        place.queue.cancel(job)
        until(has_ended(place, job), worker)
    assert place.queue.job(job).state == "cancelled"
    assert place.steps(job) == []


def test_a_shutdown_of_the_machine_lets_jobs_go_on_later(place):
    """SIGTERM to everything, without anybody having cancelled."""
    job = place.submit("tidy", steps=30, ms=20)
    with place.worker() as worker:
        until(has_begun(place, job), worker)
        os.kill(place.status(job).process.pid, signal.SIGTERM)
        until(lambda: place.status(job).state != "running")
        found = place.queue.job(job)
        assert found.state == "queued"
        assert (
            "attempt 1 of 3: interrupted from outside, as by a shutdown; goes on" in found.sentence
        )
        assert (place.workspace / "retrainings" / job / "saved").exists()
        # Not at once: on a machine that shuts down, the worker is about to end too.
        assert place.status(job).not_before > place.status(job).events[-1].at
        worker.step()
        assert place.queue.job(job).state == "queued"
        change(place.queue.folder / job, lambda s: s.model_copy(update={"not_before": None}))
        until(has_ended(place, job), worker)
    assert place.queue.job(job).state == "finished"
    assert place.steps(job) == [str(step) for step in range(30)]


def test_a_job_outlives_its_worker_and_the_next_one_takes_it_over(place):
    job, waiting = place.submit(steps=40, ms=20), place.submit(steps=1)
    first = place.start_worker()
    until(has_begun(place, job))
    first.kill()
    first.wait()
    process, done = place.status(job).process, len(place.steps(job))
    until(lambda: len(place.steps(job)) > done + 3)
    assert is_running(process)
    assert place.queue.job(job).state == "running"
    with place.worker() as worker:
        worker.step()
        assert place.queue.job(waiting).state == "queued"  # its device is still in use
        until(has_ended(place, job, waiting), worker)
    assert _states(place, job) == ["queued", "running", "finished"]
    assert place.status(job).process == process
    assert place.steps(job) == [str(step) for step in range(40)]
    assert not (place.workspace / "two-at-once").exists()


def test_worker_and_job_killed_together(place):
    job = place.submit(steps=30, ms=20)
    first = place.start_worker()
    until(has_begun(place, job))
    first.kill()
    first.wait()
    os.kill(place.status(job).process.pid, signal.SIGKILL)
    until(lambda: place.queue.job(job).state == "crashed", seconds=5)
    with place.worker() as worker:
        begun = time.monotonic()
        until(lambda: place.status(job).begun == 2, worker)
        assert time.monotonic() - begun < 5
        assert "disappeared: killed, probably out of memory" in place.status(job).events[2].sentence
        until(has_ended(place, job), worker)
    assert place.queue.job(job).state == "finished"
    assert place.steps(job) == [str(step) for step in range(30)]


def test_a_restart_of_the_machine(place):
    """The lock is free and the process number, if it is there at all, is a stranger's."""
    job = place.submit()
    stranger = identify(os.getpid()).model_copy(update={"boot": "the last one"})
    change(
        place.queue.folder / job,
        lambda status: status.to(
            "running", "ran", attempts=1, begun=1, token="t", process=stranger
        ),
    )
    assert place.queue.job(job).state == "crashed"
    place.queue.folder.joinpath(job, ALIVE).touch()
    with place.worker() as worker:
        until(has_ended(place, job), worker)
    assert place.queue.job(job).state == "finished"
    assert place.status(job).events[2].sentence == "attempt 1 of 3: the machine was restarted"


def test_nobody_is_signalled_in_place_of_a_job(place):
    """A job that seems to run, to be cancelled, with a process number that has gone to somebody else."""
    job = place.submit()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    recycled = identify(bystander.pid).model_copy(update={"start": 1})
    change(
        place.queue.folder / job,
        lambda status: status.to("running", "ran", attempts=1, token="nobody's", process=recycled),
    )
    (place.queue.folder / job / CANCEL).touch()
    try:
        with place.worker(grace=0.0) as worker, Lease.take(place.queue.folder / job / ALIVE):
            for _ in range(5):
                worker.step()
                time.sleep(0.02)
        with place.worker(grace=0.0) as worker:
            until(has_ended(place, job), worker)
        assert place.queue.job(job).state == "cancelled"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_children_end_with_their_job(place):
    """Forked ones, started ones, and those with a session of their own; with a worker or without."""
    job = place.submit("parent", steps=200, ms=20)
    first = place.start_worker(pause=60.0)
    until(has_begun(place, job))
    children = _children(place, job)
    assert len(children) == 3
    assert all(identify(pid) is not None for pid in children)
    first.kill()
    first.wait()
    os.kill(place.status(job).process.pid, signal.SIGKILL)
    until(_all_gone(place, *children), seconds=10)
    assert place.queue.job(job).state == "crashed"


def test_children_of_a_job_that_ends_in_order_end_too(place):
    job = place.submit("leaves", steps=1)
    with place.worker() as worker:
        until(has_ended(place, job), worker)
        assert place.queue.job(job).state == "finished"
        until(_all_gone(place, *_children(place, job)), worker, seconds=10)


def test_children_whose_guard_was_killed_are_ended_by_the_worker(place):
    job = place.submit("parent", steps=200, ms=20)
    with place.worker(pause=60.0) as worker:
        until(has_begun(place, job), worker)
        children, process = _children(place, job), place.status(job).process
        guards = [pid for pid in place.living() if pid not in [*children, process.pid]]
        assert len(guards) == 1
        for pid in (*guards, process.pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: place.status(job).state == "queued", worker)
        assert _all_gone(place, *children)()


def test_children_that_nobody_has_seen_to_are_ended_in_the_end(place):
    """The job ended in order, its guard was killed just before."""
    job = place.submit("leaves", steps=30, ms=20)
    with place.worker() as worker:
        until(has_begun(place, job), worker)
        children, process = _children(place, job), place.status(job).process
        (guard,) = [pid for pid in place.living() if pid not in [*children, process.pid]]
        os.kill(guard, signal.SIGKILL)
        until(has_ended(place, job), worker)
        assert place.queue.job(job).state == "finished"
        assert all(identify(pid) is not None for pid in children)
        until(_all_gone(place, *children), worker, seconds=15)


def test_a_file_that_changes_while_its_job_waits(place):
    changed, gone, anew = (place.submit("remembers") for _ in range(3))
    (place.project / "train.py").write_text("")
    with place.worker() as worker:
        until(has_ended(place, changed), worker)
        assert place.queue.job(changed).state == "failed"
        assert "train.py has changed" in place.queue.job(changed).sentence
        register(place.workspace, place.audit_file)
        until(has_ended(place, gone, anew), worker)
        for job in (gone, anew):
            assert place.queue.job(job).state == "failed"
        assert "was registered anew since" in place.queue.job(anew).sentence
        unregister(place.workspace, place.file.id)
        place.queue.resume(gone)
        until(has_ended(place, gone), worker)
        assert "is registered no longer" in place.queue.job(gone).sentence


def test_only_the_current_attempt_may_end_a_job(place):
    """A process that comes back from the dead, after its job was given to another, has nothing to say."""
    job = place.submit(steps=30, ms=20)
    with place.worker() as worker:
        until(has_begun(place, job), worker)
        process = place.status(job).process
        change(place.queue.folder / job, lambda s: s.model_copy(update={"token": "another"}))
        until(lambda: not is_running(process))
        assert place.status(job).state == "running"
        assert "finished" not in _states(place, job)
        assert len(place.steps(job)) == 30
        until(has_ended(place, job), worker)
    assert _states(place, job).count("finished") == 1


def test_a_full_disk_delays_and_loses_nothing(place, monkeypatch, capsys):
    from mmaudit.report import store

    job = place.submit()
    real = os.fsync

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with place.worker() as worker:
        monkeypatch.setattr(store.os, "fsync", full)
        for _ in range(3):
            worker.step()
        assert place.queue.job(job).state == "queued"
        said = capsys.readouterr().err
        assert said.count("No space left") == 1  # said once, not again and again
        monkeypatch.setattr(store.os, "fsync", real)
        until(has_ended(place, job), worker)
    assert place.queue.job(job).state == "finished"
    assert place.queue.job(job).attempts == 1


def test_a_damaged_job_does_not_keep_others_from_running(place):
    damaged, good = place.submit(), place.submit()
    (place.queue.folder / damaged / "state.json").write_text("{")
    (place.queue.folder / BELL).write_bytes(b"no database" * 1000)
    with place.worker() as worker:
        until(lambda: place.queue.job(good).state == "finished", worker)
        place.queue.resume(damaged)
        until(lambda: place.queue.job(damaged).state == "finished", worker)


def test_one_worker_at_a_time(place):
    place.queue.folder.mkdir(exist_ok=True)
    with place.worker() as worker, Lease.take(place.queue.folder / WORKER_LOCK):
        assert place.queue.worker_is_running()
        assert not place.queue.start_worker()
        assert not worker.run(idle=0.0)
    with place.worker() as worker:
        assert worker.run(idle=0.0)
    assert not place.queue.worker_is_running()


def test_the_bell_is_quicker_than_the_next_look(place, monkeypatch):
    """Submitted while the worker waits for its next look, which would come long after the test."""
    monkeypatch.setattr("mmaudit.jobs.worker._SCAN", 600.0)
    with place.worker() as worker:
        thread = threading.Thread(target=worker.run)
        thread.start()
        until(place.queue.worker_is_running)
        time.sleep(0.3)
        try:
            until(has_ended(place, place.submit()))
        finally:
            worker.stop()
            thread.join(10)
    assert not thread.is_alive()


def test_the_worker_that_the_app_starts(place):
    """Detached, found by its lock; the real runner refuses a project whose code cannot be imported."""
    job = place.submit()
    assert place.queue.start_worker()
    until(place.queue.worker_is_running)
    assert not place.queue.start_worker()
    until(has_ended(place, job), seconds=60)
    assert place.queue.job(job).state == "failed"
    assert "nobody may import this" in place.queue.job(job).sentence
    from mmaudit.jobs import queue

    (process,) = [started for started in queue._started if started.poll() is None]
    assert os.getsid(process.pid) == process.pid
    process.terminate()
    assert process.wait(10) == 0
    assert (place.queue.folder / "worker.log").read_text() == ""


def test_a_message_is_not_needed(place):
    job = place.submit()
    (place.queue.folder / BELL).unlink()
    with place.worker() as worker:
        until(has_ended(place, job), worker)
    assert place.queue.job(job).state == "finished"


def test_other_systems_get_one_sentence(place, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    for act in (lambda: Worker(place.workspace), place.queue.start_worker):
        with pytest.raises(JobError, match="need Linux.*mmaudit retrain"):
            act()


def test_leases_of_gpus_hold_for_all_workspaces(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one, two = tmp_path / "one", tmp_path / "two"
    assert lease_path("cpu", one) != lease_path("cpu", two)
    assert lease_path("cuda:1", one) == lease_path("cuda:1", two)
    assert lease_path("cuda:0", one) != lease_path("cuda:1", one)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert lease_path("cuda:0", one).name == "cuda-1.lock"


def test_a_job_sees_its_own_gpu_only(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    assert environment("cpu") == {}
    assert environment("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3,2")
    assert environment("cuda:1") == {"HIP_VISIBLE_DEVICES": "2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert environment("cuda:1") == {"CUDA_VISIBLE_DEVICES": "GPU-b"}


def test_devices_are_named_as_torch_names_them():
    assert find_devices()
    assert all(device == "cpu" or device.startswith("cuda:") for device in find_devices())
