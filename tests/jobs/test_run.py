"""An attempt as seen from inside: what it reports and what it is allowed to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmaudit.jobs import reporting
from mmaudit.jobs.reporting import Reporter
from mmaudit.jobs.states import CANCEL, read_progress


class _Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self):
        self.at = 100.0

    def monotonic(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds


@pytest.fixture
def clock(monkeypatch):
    found = _Clock()
    monkeypatch.setattr(reporting, "time", found)
    return found


@pytest.fixture
def writes(monkeypatch, clock):
    """The moments at which progress was written."""
    found = []
    real = reporting.write_progress

    def written(folder, progress):
        found.append(clock.at)
        real(folder, progress)

    monkeypatch.setattr(reporting, "write_progress", written)
    return found


def _never():
    raise AssertionError("nobody wants it to stop")


def test_at_most_four_writes_a_second_and_the_last_word_is_written(tmp_path, clock, writes):
    report = Reporter(tmp_path, stop=_never)
    for step in range(1000):
        report("Training", step, 1000)
        clock.at += 0.003
    report.flush()
    report.flush()
    gaps = [after - before for before, after in zip(writes, writes[1:], strict=False)]
    assert min(gaps) >= 0.25 - 1e-9
    assert len(writes) >= 10
    assert (read_progress(tmp_path).done, read_progress(tmp_path).total) == (999, 1000)


def test_a_new_stage_is_named_at_once_and_still_not_too_soon(tmp_path, clock, writes):
    report = Reporter(tmp_path, stop=_never)
    for stage in ("Audit before", "Training", "Audit after", "Comparing"):
        report(stage, 0, None)
        assert read_progress(tmp_path).stage == stage
    gaps = [after - before for before, after in zip(writes, writes[1:], strict=False)]
    assert gaps == pytest.approx([0.25] * 3)


def test_the_time_left_counts_from_where_this_attempt_began(tmp_path, clock):
    report = Reporter(tmp_path, stop=_never)
    report("Training", 50, 100)  # resumed
    assert read_progress(tmp_path).eta_seconds is None
    clock.at += 10.0
    report("Training", 60, 100)
    assert read_progress(tmp_path).eta_seconds == pytest.approx(40.0)
    clock.at += 1.0
    report("Measures", 3, None)
    assert read_progress(tmp_path).eta_seconds is None


def test_a_wish_to_stop_is_heard_without_a_signal(tmp_path, clock):
    asked = []
    report = Reporter(tmp_path, stop=lambda: asked.append(True))
    report("Training", 0, 10)
    assert not asked
    (tmp_path / CANCEL).touch()
    clock.at += 1.0
    report("Training", 1, 10)
    assert asked


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, clock):
    report = Reporter(tmp_path / "gone", stop=_never)
    report("Training", 0, 10)
    report.flush()


def test_jobs_are_started_by_the_worker():
    found = subprocess.run(
        [sys.executable, "-m", "mmaudit.jobs.run"], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "jobs are started by the worker: mmaudit jobs WORKSPACE run\n"
