"""Only registered files, and only as they were registered."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from mmaudit.exceptions import SpecError
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.registry import identifier, register, registered, unregister
from tests.jobs.place import AUDIT_FILE

_HELPED = "from helpers import nets\nimport json\nimport torch\n"


@pytest.fixture
def project(tmp_path):
    """An audit file whose factory imports a package beside it."""
    folder = tmp_path / "project"
    (folder / "helpers").mkdir(parents=True)
    (folder / "audit.yaml").write_text(AUDIT_FILE)
    (folder / "train.py").write_text(_HELPED + 'raise RuntimeError("nobody may import this")\n')
    (folder / "helpers" / "__init__.py").write_text("")
    (folder / "helpers" / "nets.py").write_text("from .layers import Layer\n")
    (folder / "helpers" / "layers.py").write_text("class Layer: pass\n")
    (folder / "unused.py").write_text("")
    return folder


@pytest.fixture
def file(tmp_path, project):
    return register(tmp_path / "workspace", project / "audit.yaml")


def test_it_knows_the_files_behind(tmp_path, project, file):
    behind = {os.path.relpath(path, project) for path in file.files}
    assert behind == {
        "audit.yaml", "train.py", "helpers/__init__.py", "helpers/nets.py", "helpers/layers.py",
    }  # fmt: skip
    assert (file.title, file.splits) == ("A small model", ("test", "train"))
    assert registered(tmp_path / "workspace") == [file]
    assert file.unchanged() is None
    assert oct((tmp_path / "workspace" / "registered.json").stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize("name", ["audit.yaml", "train.py", "helpers/layers.py"])
def test_a_changed_file_is_noticed(project, file, name):
    path = project / name
    path.write_text(path.read_text() + "# changed\n")
    assert name in file.unchanged()
    assert "changed since" in file.unchanged()


def test_what_does_not_matter_does_not(project, file):
    (project / "unused.py").write_text("x = 1\n")
    os.utime(project / "train.py", (0, 0))
    assert file.unchanged() is None


def test_a_file_that_takes_the_place_of_another_is_noticed(project, file):
    (project / "json.py").write_text("")  # the audit file's own modules come first
    assert "leads to" in file.unchanged()
    assert "json.py" in file.unchanged()


def test_missing_files_are_noticed(project, file):
    (project / "helpers" / "layers.py").unlink()
    assert "no longer leads to" in file.unchanged()
    (project / "train.py").unlink()
    assert "no module 'train'" in file.unchanged()
    (project / "audit.yaml").unlink()
    assert "no such file" in file.unchanged()


def test_registering_again_allows_the_change(tmp_path, project, file):
    (project / "train.py").write_text("")
    again = register(tmp_path / "workspace", project / "audit.yaml")
    assert (again.id, registered(tmp_path / "workspace")) == (file.id, [again])
    assert again.sha256 != file.sha256
    unregister(tmp_path / "workspace", file.id)
    assert registered(tmp_path / "workspace") == []
    with pytest.raises(JobError, match="no registered file"):
        unregister(tmp_path / "workspace", file.id)


def test_modules_of_the_current_folder_come_last(tmp_path, project, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (project / "train.py").rename(elsewhere / "train.py")
    with pytest.raises(SpecError, match="no module 'train'"):
        register(tmp_path / "workspace", project / "audit.yaml")
    monkeypatch.chdir(elsewhere)
    file = register(tmp_path / "workspace", project / "audit.yaml")
    assert str(elsewhere / "train.py") in file.files
    monkeypatch.chdir(tmp_path)
    assert file.unchanged() is None
    (project / "train.py").write_text("")
    assert file.unchanged() is not None


def test_the_folder_that_an_audit_file_names(tmp_path, project):
    moved = tmp_path / "elsewhere" / "audit.yaml"
    moved.parent.mkdir()
    moved.write_text(AUDIT_FILE + "directory: ../project\n")
    assert str(project / "helpers" / "layers.py") in register(tmp_path / "w", moved).files


def test_installed_packages_are_not_looked_into(tmp_path, project):
    (project / "audit.yaml").write_text(AUDIT_FILE.replace("train:build", "yaml.nodes:Node"))
    files = register(tmp_path / "workspace", project / "audit.yaml").files
    assert sum("yaml/" in path for path in files) == 2  # yaml/__init__.py and yaml/nodes.py


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modalities: {}", "is required"),
        ("- 1", "expected a mapping"),
        ("{", "not readable as YAML"),
        (AUDIT_FILE.replace(', train: "train:train_data"', ""), "names no data.train"),
        (AUDIT_FILE.replace("train:build", "nowhere.at.all:build"), "no module 'nowhere.at.all'"),
    ],
)
def test_what_is_no_audit_file_is_refused(tmp_path, project, text, said):
    (project / "audit.yaml").write_text(text)
    with pytest.raises(SpecError, match=said):
        register(tmp_path / "workspace", project / "audit.yaml")
    assert registered(tmp_path / "workspace") == []


def test_other_names_and_missing_files(tmp_path, project):
    with pytest.raises(SpecError, match=r"ends in .yaml"):
        register(tmp_path / "workspace", project / "train.py")
    with pytest.raises(SpecError, match="no such file"):
        register(tmp_path / "workspace", project / "other.yaml")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1, "files": [{"id": "x"}]}', "\xff"])
def test_a_damaged_registry_is_said_and_not_replaced(tmp_path, project, file, text):
    path = tmp_path / "workspace" / "registered.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(JobError, match="is damaged; remove"):
        registered(tmp_path / "workspace")
    with pytest.raises(JobError, match="is damaged"):
        register(tmp_path / "workspace", project / "audit.yaml")
    assert path.read_text(encoding="latin-1") == text


def test_identifiers_are_fit_for_names_of_folders():
    assert len({identifier(str(i)) for i in range(100)}) == 100
    assert all(identifier(str(i)).isalnum() for i in range(100))


def test_nothing_here_loads_torch():
    names = "queue registry offers states worker run guard bell devices"
    code = f"import sys\nfor n in '{names}'.split(): __import__('mmaudit.jobs.' + n)\n"
    code += "import mmaudit.command_line.jobs\nsys.exit('torch' in sys.modules or 'dash' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_factory_inside_one_of_ours_counts(tmp_path, project):
    text = (project / "audit.yaml").read_text()
    spec = yaml.safe_load(text)
    own = spec["model"] if isinstance(spec["model"], str) else spec["model"]["factory"]
    spec["model"] = {"factory": "mmaudit.unimodal:build", "args": {"factory": own}}
    (project / "audit.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    file = register(tmp_path / "workspace", project / "audit.yaml")
    assert str(project / "train.py") in file.files
