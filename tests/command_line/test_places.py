"""Folders of records."""

from __future__ import annotations

import pytest

from mmaudit.command_line.places import (
    demo_folder,
    find_demo,
    new_folder,
    new_retraining_folder,
)
from mmaudit.exceptions import RecordError

_SPEC = "{title}model: 'a:b'\ndata: 'a:c'\nmodalities: {x: x}\n"


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("title: 'Late fusion, 2 modalities / run #7'\n", "late-fusion-2-modalities-run-7-2"),
        ("title: '../../etc'\n", "etc-2"),
        ("title: 'Größe'\n", "größe-2"),
        ("title: '!!!'\n", "audit-2"),
        (f"title: {'word ' * 30}\n", "word-word-word-word-word-word-word-word-2"),
        ("", "project-2"),
    ],
)
def test_names_come_from_the_title(tmp_path, monkeypatch, title, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    path = tmp_path / "project" / "audit.yaml"
    path.write_text(_SPEC.replace("{title}", title))
    folder = new_folder(path)
    assert folder.parts[0] == "runs" and len(folder.parts) == 2 and folder.name.startswith(expected)


def test_the_interrupted_audit_of_the_same_title_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "audit.yaml"
    path.write_text(_SPEC.replace("{title}", "title: a\n"))
    for name in ("a-2026-01-01", "a-2026-01-01-2", "a-b-2026-01-01"):
        (tmp_path / "runs" / name / ".running").mkdir(parents=True)
    (tmp_path / "runs" / "a-b-2026-01-01" / ".running" / "audit-state.json").touch()
    with pytest.raises(RecordError, match="no interrupted audit"):
        new_folder(path, resume=True)
    (tmp_path / "runs" / "a-2026-01-01" / ".running" / "audit-state.json").touch()
    assert new_folder(path, resume=True).name == "a-2026-01-01"


def test_retrainings_have_folders_of_their_own_and_the_unfinished_one_is_found(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "audit.yaml"
    path.write_text(_SPEC.replace("{title}", "title: a\n"))
    first = new_retraining_folder(path, "agm")
    assert first.parent.name == "runs" and first.name.startswith("a-agm-2")
    assert "/" not in new_retraining_folder(path, "../../x").name
    with pytest.raises(RecordError, match="no interrupted retraining"):
        new_retraining_folder(path, "agm", resume=True)
    first.mkdir(parents=True)
    second = new_retraining_folder(path, "agm")
    assert second.name == f"{first.name}-2"
    (first / "retrain.json").touch()
    assert new_retraining_folder(path, "agm", resume=True) == first
    (first / "comparison.json").touch()
    with pytest.raises(RecordError, match="no interrupted retraining"):
        new_retraining_folder(path, "agm", resume=True)


def test_demo_folder_is_never_somebody_elses(tmp_path):
    subject = find_demo()
    demo_folder(tmp_path / "new", subject)
    demo_folder(tmp_path, subject)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RecordError, match=r"notes\.txt, which is not of this demo"):
        demo_folder(tmp_path, subject)
    for name in ("audit", "retrained"):
        mine = tmp_path / f"of {name}" / name
        mine.mkdir(parents=True)
        (mine / "thesis.tex").touch()
        with pytest.raises(RecordError, match="not of this demo"):
            demo_folder(mine.parent, subject)
        assert (mine / "thesis.tex").exists()


def test_the_demo_is_installed():
    subject = find_demo()
    assert subject.audit_file.is_file() and subject.planted
