"""Submitting, looking, cancelling and resuming, without any worker."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmaudit.exceptions import MMAuditError, RecordError
from mmaudit.jobs import states
from mmaudit.jobs.bell import Bell
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.lease import Lease
from mmaudit.jobs.queue import BELL, MOST_QUEUED, Queue
from mmaudit.jobs.registry import register
from mmaudit.jobs.states import ALIVE, CANCEL, ENDED, LOG, change
from mmaudit.report import store

_FILES = ["spec.json", "state.json", "progress.json", "log.txt", "cancel", "alive.lock"]


def _ask(place, submit_id="submit-1", **settings):
    return place.queue.submit("retrain", place.file.id, "agm", settings, submit_id)


def _set(place, job_id, state, **fields):
    change(place.queue.folder / job_id, lambda status: status.to(state, state, **fields))


def test_a_submitted_job_is_there_for_everybody(place):
    job = _ask(place, epochs=3)
    assert (job.state, job.attempts, job.title, job.remedy) == ("queued", 0, "A small model", "agm")
    assert job.settings["epochs"] == 3
    assert job.settings["batch_size"] == 64  # what was left out is written down too
    assert job.out == place.workspace / "retrainings" / job.id
    assert Queue(place.workspace).jobs() == [job]
    assert Queue(place.workspace).job(job.id) == job


def test_asking_again_gives_the_same_job(place):
    first = _ask(place, epochs=3)
    assert _ask(place, epochs=3) == first
    with pytest.raises(JobError, match="stands for a job that was asked for otherwise"):
        _ask(place, epochs=4)
    assert _ask(place, "submit-2", epochs=3).id != first.id
    assert len(place.queue.jobs()) == 2


def test_asking_at_the_same_time_gives_one_job(place):
    found, barrier = [], threading.Barrier(8)

    def ask():
        barrier.wait()
        found.append(_ask(place, epochs=3).id)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(place.queue.jobs()) == 1
    assert not list(place.queue.folder.glob("*.partial"))


def test_at_most_twenty_wait(place):
    for number in range(MOST_QUEUED):
        job = _ask(place, f"submit-{number}")
    with pytest.raises(JobError, match="20 jobs wait already"):
        _ask(place, "submit-20")
    assert _ask(place, "submit-0").state == "queued"  # asked for before
    _set(place, job.id, "running")
    _ask(place, "submit-20")
    with pytest.raises(JobError, match="20 jobs wait already"):
        place.queue.resume(job.id)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("kind", "shell"),
        ("kind", None),
        ("file_id", "nobody"),
        ("file_id", "../../etc/passwd"),
        ("file_id", None),
        ("file_id", ["x"]),
        ("remedy", "os:system"),
        ("remedy", {}),
        ("settings", {"out": "/root"}),
        ("settings", "epochs=3"),
        ("settings", None),
        ("submit_id", "short"),
        ("submit_id", "../../../../etc"),
        ("submit_id", "submit-1\n"),
        ("submit_id", 12345678),
        ("submit_id", "x" * 65),
    ],
)
def test_what_is_refused_leaves_nothing(place, argument, value):
    asked = {
        "kind": "retrain", "file_id": place.file.id, "remedy": "agm", "settings": {}, "submit_id": "submit-1",
    }  # fmt: skip
    with pytest.raises(JobError) as caught:
        place.queue.submit(**{**asked, argument: value})
    assert "\n" not in str(caught.value)
    assert place.queue.jobs() == []


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(*[st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text(), max_size=2))] * 5)
def test_no_nonsense_makes_a_job(place, kind, file_id, remedy, asked, submit_id):
    with pytest.raises(JobError):
        place.queue.submit(kind, file_id, remedy, asked, submit_id)
    assert place.queue.jobs() == []


def test_a_changed_file_is_refused(place):
    (place.project / "train.py").write_text("")
    with pytest.raises(JobError, match=r"train.py has changed"):
        _ask(place)
    assert place.queue.jobs() == []
    register(place.workspace, place.audit_file)
    assert _ask(place).state == "queued"


def test_a_full_disk_refuses_the_job_and_leaves_nothing(place, monkeypatch):
    calls = 0
    real = os.fsync

    def full(handle):
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    monkeypatch.setattr(store.os, "fsync", full)
    for failing in range(1, 5):
        calls = 0
        with pytest.raises(RecordError, match="No space left"):
            _ask(place)
        assert place.queue.jobs() == []
        assert [p.name for p in place.queue.folder.iterdir() if p.is_dir()] == []
    failing = 0
    assert _ask(place).state == "queued"


def test_a_waiting_job_is_cancelled_at_once_and_can_be_resumed(place):
    job = _ask(place)
    assert job.can_cancel
    assert not job.can_resume
    assert place.queue.cancel(job.id).state == "cancelled"
    assert place.queue.cancel(job.id).state == "cancelled"
    assert place.queue.job(job.id).ended is not None
    resumed = place.queue.resume(job.id)
    assert (resumed.state, resumed.ended, resumed.attempts) == ("queued", None, 0)
    assert place.queue.resume(job.id).state == "queued"


def test_a_running_job_is_asked_to_stop(place):
    job = _ask(place)
    _set(place, job.id, "running")
    with Lease.take(job.folder / ALIVE):
        assert place.queue.job(job.id).state == "running"
        cancelled = place.queue.cancel(job.id)
        assert (cancelled.state, cancelled.sentence) == ("running", "is being cancelled")
        assert (job.folder / CANCEL).exists()
        with pytest.raises(JobError, match="is being cancelled"):
            place.queue.resume(job.id)
    # It stopped, or was killed, and there was no worker to say so.
    assert place.queue.job(job.id).state == "cancelled"
    assert place.queue.resume(job.id).state == "queued"


def test_a_job_whose_process_has_gone_is_crashed_at_once(place):
    """As after a restart of the machine: nobody holds the lock, whatever the file says."""
    job = _ask(place)
    _set(place, job.id, "running", attempts=1)
    found = place.queue.job(job.id)
    assert found.state == "crashed"
    assert "gone without a word" in found.sentence
    assert found.can_resume
    assert place.queue.cancel(job.id).state == "cancelled"
    _set(place, job.id, "running", attempts=1)
    assert place.queue.resume(job.id).state == "queued"


@pytest.mark.parametrize("state", sorted(ENDED))
def test_what_has_ended(place, state):
    job = _ask(place)
    _set(place, job.id, state, attempts=3)
    if state == "finished":
        with pytest.raises(JobError, match="is finished"):
            place.queue.resume(job.id)
    else:
        resumed = place.queue.resume(job.id)
        assert (resumed.state, resumed.attempts) == ("queued", 0)
        _set(place, job.id, state, attempts=3)
    if state != "cancelled":
        with pytest.raises(JobError, match=f"is {state} already"):
            place.queue.cancel(job.id)


def test_a_job_that_ends_while_it_is_looked_at_is_not_taken_for_a_crashed_one(place, monkeypatch):
    job = _ask(place)
    _set(place, job.id, "running")

    def ends(folder):
        _set(place, job.id, "finished")
        return False

    monkeypatch.setattr("mmaudit.jobs.job.is_alive", ends)
    assert place.queue.job(job.id).state == "finished"


@pytest.mark.parametrize(
    "job_id", ["", ".", "..", "../x", "a" * 26, "A" * 26, "a" * 25 + "/", None, 3, "a\0b"]
)
def test_unknown_jobs(place, job_id):
    for act in (place.queue.job, place.queue.cancel, place.queue.resume, place.queue.log):
        with pytest.raises(JobError, match="there is no job"):
            act(job_id)


def test_the_end_of_the_log(place):
    job = _ask(place)
    assert place.queue.log(job.id) == ""
    (job.folder / LOG).write_bytes(b"x" * 10**6 + b"\n" + b"line\n" * 5000 + b"\xff end\n")
    assert place.queue.log(job.id, 2) == "line\n� end"
    assert len(place.queue.log(job.id, 10**6)) < 300_000


_DAMAGE = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
        max_leaves=4,
    ).map(lambda value: json.dumps(value).encode()),
    st.just(b"deep"),
)  # fmt: skip


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(_FILES), _DAMAGE, st.integers(0, 3), st.data())
def test_a_damaged_folder_never_brings_down_the_list(place, name, damage, kind, data):
    good = _ask(place, "good-job-1")
    job = _ask(place, "damaged-job-1")
    path = job.folder / name
    before = path.read_bytes() if path.exists() else b""
    if kind == 0:
        path.write_bytes(b'{"a":' * 50_000 if damage == b"deep" else damage)
    elif kind == 1:
        path.write_bytes(before[: data.draw(st.integers(0, len(before)))])
    elif kind == 2 and before:
        value = json.loads(before)
        value[data.draw(st.sampled_from(sorted(value)))] = json.loads(
            json.dumps(data.draw(st.integers() | st.text()))
        )
        path.write_text(json.dumps(value))
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    try:
        found = {each.id: each for each in place.queue.jobs()}
        assert found[good.id] == good
        assert "\n" not in found[job.id].sentence
        assert len(found[job.id].sentence) < 1000
        for act in (place.queue.cancel, place.queue.resume, place.queue.log):
            try:
                act(job.id)
            except MMAuditError as error:
                assert "\n" not in str(error)
    finally:
        for each in _FILES:
            left = job.folder / each
            left.rmdir() if left.is_dir() else left.unlink(missing_ok=True)
        job.folder.joinpath("state.lock").unlink(missing_ok=True)
        job.folder.rmdir()


def test_what_is_said_about_damage(place):
    job, path = _ask(place), None
    path = job.folder / "state.json"
    path.write_text(path.read_text()[:-20])
    found = place.queue.job(job.id)
    assert found.state == "crashed"
    assert "state.json is damaged" in found.sentence
    with Lease.take(job.folder / ALIVE):
        assert place.queue.job(job.id).state == "running"
    assert place.queue.resume(job.id).state == "queued"
    (job.folder / "spec.json").write_bytes(b"\0" * 2_000_000)
    found = place.queue.job(job.id)
    assert (found.damaged, found.can_cancel, found.can_resume) == (True, False, False)
    assert "larger than 1 MB" in found.sentence
    with pytest.raises(JobError, match="larger than 1 MB"):
        place.queue.resume(job.id)
    (job.folder / "spec.json").unlink()
    os.mkfifo(job.folder / "spec.json")
    assert "is no file" in place.queue.job(job.id).sentence


def test_strangers_in_the_folder_are_no_jobs(place):
    job = _ask(place)
    for name in (".x.partial", "notes", "A" * 26):
        (place.queue.folder / name).mkdir()
    (place.queue.folder / ("a" * 26)).write_text("")
    (place.queue.folder / ("b" * 26)).symlink_to(job.folder)
    assert [each.id for each in place.queue.jobs()] == [job.id]
    assert Queue(place.workspace / "nowhere").jobs() == []


def test_the_bell_brings_ids_and_survives_its_file(place):
    path = place.queue.folder.parent / "bell.db"
    bell = Bell(path)
    assert bell.ring("one")
    assert bell.ring("two")
    assert bell.heard() == ["one", "two"]
    assert bell.heard() == []
    bell.close()
    path.write_bytes(b"no database at all" * 100)
    other = Bell(path)
    assert other.ring("three")
    assert other.heard() == ["three"]
    other._open().storage.enqueue(b"\x80\x04junk")
    other._open().storage.enqueue(b'["id", "os.system", null, 0, 0, 0, ["x"], {}]')
    assert other.heard() == ["", ""]
    other.close()
    # Where it cannot be written at all, jobs are found all the same.
    assert not Bell(place.workspace).ring("four")


def test_a_bell_that_cannot_ring_does_not_refuse_the_job(place):
    place.queue.folder.mkdir(exist_ok=True)
    (place.queue.folder / BELL).mkdir()
    assert _ask(place).state == "queued"


def test_many_jobs_are_listed_quickly(place):
    import shutil
    import time

    from mmaudit.jobs.registry import identifier

    job = _ask(place)
    _set(place, job.id, "finished")
    spec = json.loads((job.folder / "spec.json").read_text())
    for number in range(500):
        name = identifier(str(number))
        shutil.copytree(job.folder, place.queue.folder / name)
        (place.queue.folder / name / "spec.json").write_text(json.dumps({**spec, "id": name}))
    begun = time.process_time()
    assert len(place.queue.jobs()) == 501
    assert time.process_time() - begun < 2.0


def test_events_do_not_grow_without_end(place):
    job = _ask(place)
    for _ in range(51):
        place.queue.cancel(job.id)
        place.queue.resume(job.id)
    assert len(place.status(job.id).events) == states._MOST_EVENTS
