"""A workspace with records and a registered audit file, and the app on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dashboard.app import create_app
from dashboard.data import Library
from dashboard.security import Access
from dashboard.site import Site
from dashboard.work import Desk
from tests.report.fixtures import make_report

TOKEN = "x" * 43
HOST = "127.0.0.1:8050"

AUDIT_FILE = """\
title: Audio-visual digits, late fusion
model: {factory: "net_of_the_app:build"}
checkpoint: late.safetensors
data:
  test: {factory: "net_of_the_app:batches", args: {split: test}}
  train: {factory: "net_of_the_app:batches", args: {split: train}}
modalities: {audio: audio, image: image}
call: {args: [audio, image]}
target: label
"""


def add_record(folder: Path, report_id: str, **options) -> str:
    """Write a record with its samples; returns its id."""
    report = make_report(folder=folder, **options)
    report.record = report.record.model_copy(update={"report_id": report_id})
    report.save(folder, overwrite=True)
    return report_id


def add_audit_file(workspace: Path) -> str:
    """Register an audit file that names training data; returns its id. Nothing of it can be run."""
    from mmaudit.jobs.registry import register

    project = workspace.parent / "project"
    project.mkdir(exist_ok=True)
    (project / "net_of_the_app.py").write_text("def build(): ...\ndef batches(split): ...\n")
    (project / "audit.yaml").write_text(AUDIT_FILE)
    return register(workspace, project / "audit.yaml").id


def make_app(workspace: Path, *, read_only: bool = False, start_worker: bool = False):
    """The app on a workspace, its site, and a client that has the cookie. No worker is started."""
    desk = Desk(workspace)
    if not start_worker:
        desk.start_worker = lambda: None
    site = Site(Library(workspace), desk, read_only=read_only)
    access = Access.of(TOKEN)
    app = create_app(site, access)
    client = app.server.test_client()
    client.set_cookie(access.cookie, access.session, domain="127.0.0.1")
    return SimpleNamespace(
        app=app,
        site=site,
        access=access,
        client=client,
        anonymous=app.server.test_client(use_cookies=False),
        base=f"http://{HOST}",
    )


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "workspace"
    add_record(folder / "first", "a" * 26, samples=60)
    return folder


@pytest.fixture
def served(workspace):
    return make_app(workspace)
