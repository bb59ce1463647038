"""The jobs as the pages show them."""

import hashlib
import json

import pytest

from dashboard.data import Library
from dashboard.work import Desk, without_folders
from mmaudit.exceptions import MMAuditError
from mmaudit.jobs.lease import Lease
from mmaudit.jobs.states import JobProgress, change, now, write_progress
from mmaudit.report import AuditReport
from mmaudit.report.schema import FileRecord
from tests.dashboard.conftest import add_audit_file

SUBMIT = "0123456789abcdef"


@pytest.fixture
def desk(workspace):
    desk = Desk(workspace)
    desk.start_worker = lambda: None
    desk.file_id = add_audit_file(workspace)
    return desk


def _running(desk, job, **progress):
    """As if a process worked on the job: its lock is held, its progress written."""
    folder = desk.workspace / "jobs" / job.id
    change(
        folder, lambda status: status.to("running", "runs", started=now(), attempts=1, token="t")
    )
    if progress:
        write_progress(folder, JobProgress(at=now(), **progress))
    return Lease.take(folder / "alive.lock")


def test_what_is_registered_is_offered_with_its_name_alone(desk):
    (file,) = desk.files()
    assert file.title == "Audio-visual digits, late fusion"
    assert file.name == "audit.yaml"
    assert file.problem is None


def test_a_changed_file_says_what_changed_without_where_it_lies(desk, workspace):
    (workspace.parent / "project" / "audit.yaml").write_text("title: other\n")
    (file,) = desk.files()
    assert file.problem
    assert str(workspace.parent) not in file.problem


def test_a_damaged_registry_offers_nothing(desk, workspace):
    (workspace / "registered.json").write_text("{")
    assert desk.files() == ()


def test_a_job_is_shown_as_it_is_stored(desk):
    job = desk.submit(desk.file_id, "agm", {"epochs": 3, "lr": 0.01}, SUBMIT)
    assert (job.state, job.active, job.remedy) == ("queued", True, "AGM")
    assert dict(job.settings)["Epochs"] == "3"
    assert dict(job.settings)["Learning rate"] == "0.01"
    assert dict(job.settings)["Also train a control"] == "no"
    assert Desk(desk.workspace).jobs() == desk.jobs() == (job,)
    assert desk.job(job.id) == job
    assert desk.active() == 1


def test_a_running_job_says_how_far_it_is_and_how_long_it_takes(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    with _running(desk, job, stage="Training", done=1500, total=6000, eta_seconds=75.0):
        found = desk.job(job.id)
    assert found.share == 0.25
    assert found.stage == "Training: 1,500 of 6,000, about 1 min 15 s left"
    assert found.can_cancel


def test_a_stage_of_unknown_length_has_no_share(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    with _running(desk, job, stage="Loading", done=0, total=None):
        found = desk.job(job.id)
    assert (found.share, found.stage) == (None, "Loading")


def test_a_job_whose_process_is_gone_is_still_watched(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    _running(desk, job).release()
    found = desk.job(job.id)
    assert (found.state, found.active, found.can_resume) == ("crashed", True, True)


def test_cancel_and_resume(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    assert desk.cancel(job.id) is None
    assert desk.job(job.id).state == "cancelled"
    assert not desk.job(job.id).active
    assert desk.resume(job.id) is None
    assert desk.job(job.id).state == "queued"


@pytest.mark.parametrize("job_id", ["", "x", "../../etc", "a" * 26])
def test_an_unknown_job_is_none_and_nothing_can_be_done_to_it(desk, job_id):
    assert desk.job(job_id) is None
    assert desk.out(job_id) is None
    assert desk.log(job_id) == ""
    assert desk.curves(job_id) == ()
    assert desk.history_stamp(job_id) == ""
    assert "no job" in desk.cancel(job_id)
    assert "no job" in desk.resume(job_id)


def test_busy_is_what_waits_or_runs_for_this_file_and_remedy(desk):
    assert desk.busy(desk.file_id, "agm") is None
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    assert desk.busy(desk.file_id, "agm") == job
    assert desk.busy(desk.file_id, "mla") is None
    assert desk.busy("other", "agm") is None


def test_a_second_submission_with_other_settings_is_refused(desk):
    desk.submit(desk.file_id, "agm", {"epochs": 3}, SUBMIT)
    with pytest.raises(MMAuditError, match="submit id"):
        desk.submit(desk.file_id, "agm", {"epochs": 4}, SUBMIT)
    assert len(desk.jobs()) == 1


def test_the_record_of_a_training_is_found_and_that_of_its_control_beside_it(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    row = {"step": 0, "epoch": 0, "split": "train", "name": "loss", "value": 1.0}
    stamps = {desk.history_stamp(job.id)}
    for place in ("training", "control/training"):
        folder = desk.out(job.id) / place
        folder.mkdir(parents=True)
        (folder / "history.jsonl").write_text(json.dumps(row) + "\n")
        stamps.add(desk.history_stamp(job.id))
    assert [curve.split for curve in desk.curves(job.id)] == ["train", "control train"]
    with (desk.out(job.id) / "control" / "training" / "history.jsonl").open("a") as file:
        file.write("\n")
    stamps.add(desk.history_stamp(job.id))
    assert len(stamps) == 4, "every change is noticed"


def test_a_report_leads_to_the_file_whose_model_it_is_about(desk, workspace):
    report = Library(workspace).report("a" * 26)
    assert desk.file_of(report) is None
    code = workspace.parent / "project" / "net_of_the_app.py"
    file = FileRecord(
        path=str(code), sha256=hashlib.sha256(code.read_bytes()).hexdigest(), bytes=1, role="code"
    )
    title = "Audio-visual digits, late fusion"
    subject = report.subject.model_copy(update={"files": (file,), "title": title})
    report = AuditReport(report.record.model_copy(update={"subject": subject}))
    assert desk.file_of(report) == desk.file_id
    code.write_text("changed = 1\n")
    assert desk.file_of(report) == desk.file_id, "that it has changed is said where it is trained"
    (workspace / "registered.json").write_text("{")
    assert desk.file_of(report) is None


def test_the_log_is_shown_from_its_end(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    (desk.workspace / "jobs" / job.id / "log.txt").write_text("\n".join(map(str, range(1000))))
    lines = desk.log(job.id).splitlines()
    assert lines[-1] == "999"
    assert len(lines) == 200


def test_a_damaged_job_is_shown_and_harms_no_other(desk):
    job = desk.submit(desk.file_id, "agm", {}, SUBMIT)
    other = desk.submit(desk.file_id, "mla", {}, SUBMIT + "2")
    (desk.workspace / "jobs" / job.id / "spec.json").write_text("{")
    shown = {found.id: found for found in desk.jobs()}
    assert shown[job.id].state == "failed"
    assert not shown[job.id].can_resume
    assert shown[other.id] == desk.job(other.id)


@pytest.mark.parametrize(
    ("sentence", "left"),
    [
        ("cannot read /a/b c/d.json: denied", "cannot read b c/d.json: denied"),
        ("nothing here", "nothing here"),
        ("'/home/x/y.yaml' and /z/w.py, too", "'y.yaml' and w.py, too"),
        ("1/2 and a/b", "1/2 and a/b"),
    ],
)
def test_folders_are_left_out_of_sentences(sentence, left):
    assert without_folders(sentence) == left


def test_a_worker_is_started_when_somebody_asks_for_work(workspace, monkeypatch):
    desk = Desk(workspace)
    started = []
    monkeypatch.setattr(type(desk._queue), "start_worker", lambda self: not started.append(1))
    job = desk.submit(add_audit_file(workspace), "agm", {}, SUBMIT)
    desk.cancel(job.id)
    desk.resume(job.id)
    assert len(started) == 2
    assert "background" in desk.start_worker()


def test_the_workspace_is_the_same_by_any_path(workspace, tmp_path):
    (tmp_path / "link").symlink_to(workspace)
    assert Desk(tmp_path / "link").workspace == Desk(workspace).workspace
