"""Random kills of jobs and workers: nothing is lost, done twice or left behind."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from mmaudit.jobs.states import ENDED
from tests.jobs.place import until


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _kill_them(place, jobs, kills, *, devices, seed):
    """Kill the worker, the process of a job, its guard or both, at random moments, with a new worker soon after."""
    random_ = random.Random(seed)
    worker = place.start_worker(devices=devices)
    done = {"worker": 0, "job": 0, "guard": 0, "everything": 0}
    try:
        while sum(done.values()) < kills:
            time.sleep(random_.uniform(0.05, 0.5))
            running = [s for s in map(place.status, jobs) if s.state == "running" and s.process]
            victim = random_.choice(["worker", "job", "job", "guard", "everything"])
            if victim in ("worker", "everything"):
                worker.kill()
                worker.wait()
            if victim != "worker" and not running:
                if victim == "everything":
                    worker = place.start_worker(devices=devices)
                if all(place.status(job).state == "finished" for job in jobs):
                    pytest.fail("all jobs had finished before they could be killed")
                continue
            pids = []
            if running and victim != "worker":
                process = random_.choice(running).process
                family = [pid for pid in place.living() if _session(pid) == process.pid]
                pids = {
                    "job": [process.pid],
                    "guard": [pid for pid in family if pid != process.pid][:1],
                    "everything": place.living(),
                }[victim]
            hit = [_kill(pid) for pid in pids]
            done[victim] += victim == "worker" or any(hit)
            if victim in ("worker", "everything"):
                time.sleep(random_.uniform(0.0, 0.5))
                worker = place.start_worker(devices=devices)
                begun = time.monotonic()
                # Whatever happened, the list says how things are.
                assert len(place.queue.jobs()) == len(jobs)
                assert time.monotonic() - begun < 5
            for job in jobs:
                # A person who resumes what has crashed three times.
                if place.status(job).state == "crashed":
                    place.queue.resume(job)

        def over():
            for job in jobs:
                if place.status(job).state == "crashed":
                    place.queue.resume(job)
            return all(place.status(job).state in ENDED for job in jobs)

        until(over, seconds=300)
        until(lambda: not place.living(), seconds=20)  # no orphans
    finally:
        worker.terminate()
        worker.wait()
    return done


def _check(place, jobs, steps):
    for job in jobs:
        found = place.status(job)
        states = [event.state for event in found.events]
        assert found.state == "finished", "lost"
        assert states.count("finished") == 1, "published twice"
        # No step is missing and none was done by two attempts: nobody worked on it beside the owner.
        assert place.steps(job) == [str(step) for step in range(steps)]
        tokens = [event.token for event in found.events if event.state == "running"]
        assert len(set(tokens)) == len(tokens) == found.begun
    assert not (place.workspace / "two-at-once").exists()


def test_a_few_jobs_and_kills(place):
    jobs = [place.submit("parent", steps=200, ms=20) for _ in range(2)]
    done = _kill_them(place, jobs, 4, devices="a,b", seed=5)
    assert sum(done.values()) >= 4
    _check(place, jobs, 200)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_jobs_forty_kills(place, seed):
    jobs = [place.submit("parent" if n % 4 == 0 else "good", steps=150, ms=25) for n in range(20)]
    done = _kill_them(place, jobs, 40, devices="a,b,c", seed=seed)
    print(done)
    _check(place, jobs, 150)
    assert done["worker"] + done["everything"] >= 5
    assert done["job"] >= 5
