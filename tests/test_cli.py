"""The command line: what it prints where, how it ends, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mmaudit import AuditReport, __version__
from mmaudit.cli import app
from mmaudit.command_line.places import resumable
from tests.command_line.projects import PROJECTS, write_project

_FAST = ["--replicates", "100", "--device", "cpu"]
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
_ENVIRONMENT.pop("MMAUDIT_DEBUG", None)

_SPEC = """\
title: Late fusion
model: "train:build"
checkpoint: best.pt
data: "train:loader"
modalities: {audio: audio, image: image}
target: label
ids: id
"""

_SLOW = (
    PROJECTS["late"]
    + """

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 200

    def __getitem__(self, i):
        import pathlib
        import time

        time.sleep(0.05 if i > 40 and not pathlib.Path("quick").exists() else 0)
        return rows(4)[i % 4] | {"id": str(i)}


def slow_loader():
    return DataLoader(Slow(), batch_size=4)
"""
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder, entered: ``train.py``, ``best.pt`` and ``audit.yaml``."""
    write_project(tmp_path, "late")
    (tmp_path / "audit.yaml").write_text(_SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMAUDIT_DEBUG", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Folder of a finished audit."""
    folder = write_project(tmp_path_factory.mktemp("project"), "late")
    (folder / "audit.yaml").write_text(_SPEC)
    assert _run("audit", folder / "audit.yaml", "--out", folder / "out", *_FAST).exit_code == 0
    return folder / "out"


def _run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mmaudit")


def _process(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "mmaudit", *map(str, arguments)],
        cwd=cwd,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )


# What works.


def test_version():
    assert _run("--version").stdout == f"mmaudit {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments):
    result = _run(*arguments)
    assert result.exit_code == 0
    for name in ("audit", "show", "export", "inspect", "init", "preview", "demo"):
        assert f"  {name} " in result.stdout


def test_help_imports_nothing_heavy(tmp_path):
    heavy = ("torch", "numpy", "pandas", "pyarrow", "pydantic", "rich", "plotly", "yaml")
    code = f"import sys, mmaudit.cli\ntry:\n mmaudit.cli.main()\nexcept SystemExit:\n print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_audit_prints_the_report_and_where_it_is(project):
    result = _run("audit", "audit.yaml", "--out", "out", *_FAST)
    assert result.exit_code == 0, result.output
    assert (
        "Late fusion" in result.stdout
        and "mmaudit export out --html out/report.html" in result.stdout
    )
    assert "Coalitions" in result.stderr and "Coalitions   16 of 40" not in result.stdout
    assert AuditReport.load("out").data.samples == 40


def test_audit_finds_a_folder_of_its_own(project):
    for expected in ("late-fusion-", "late-fusion-"):
        assert _run("audit", "audit.yaml", "--quiet", *_FAST).exit_code == 0, expected
    names = sorted(path.name for path in Path("runs").iterdir())
    assert len(names) == 2 and names[1] == f"{names[0]}-2" and names[0].startswith("late-fusion-20")


def test_json_has_stdout_for_itself(project):
    (project / "train.py").write_text(
        PROJECTS["late"] + "\nprint('imported')\nimport os\nos.write(1, b'native')\n"
    )
    done = _process("audit", "audit.yaml", "--out", "out", "--json", *_FAST, cwd=project)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["subject"]["title"] == "Late fusion"
    assert "imported" in done.stderr and "native" in done.stderr


def test_quiet_has_nothing_on_stderr(project):
    result = _run("audit", "audit.yaml", "--out", "out", "--json", "--quiet", *_FAST)
    assert result.stderr == "" and json.loads(result.stdout)["modalities"] == ["audio", "image"]


def test_options_reach_the_audit(project):
    result = _run(
        "audit", "audit.yaml", "--out", "out", "--seed", 7, "--batch-size", 5, "--precision", "bfloat16", "--measures",
        "coalitions,utilization", "--no-optimize", "--store-logits", "--json", "--quiet", *_FAST,
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert (
        list(found["measures"]) == ["coalitions", "utilization"]
        and found["evidence"]["method"] == "full passes"
    )
    wanted = {
        "seed": 7,
        "batch_size": 5,
        "precision": "bfloat16",
        "store_logits": True,
        "replicates": 100,
        "optimize": False,
    }
    assert wanted.items() <= found["settings"].items()


def test_audit_file_elsewhere_may_use_code_of_the_current_folder(project):
    (project / "specs").mkdir()
    (project / "specs" / "audit.yaml").write_text(_SPEC.replace("best.pt", "../best.pt"))
    path = list(sys.path)
    assert _run("audit", "specs/audit.yaml", "--out", "out", *_FAST).exit_code == 0
    assert sys.path == path


def test_show(record):
    printed = _run("show", record)
    assert printed.exit_code == 0 and "Late fusion" in printed.stdout and printed.stderr == ""
    assert json.loads(_run("show", record, "--json").stdout) == json.loads(
        (record / "report.json").read_text()
    )


def test_show_measure(record):
    printed = _run("show", record, "--measure", "coalitions").stdout
    report = AuditReport.load(record)
    assert f"{report.accuracy.value:.3f}".lstrip("0") in printed and "audio+image" in printed
    rows = json.loads(_run("show", record, "--measure", "coalitions", "--json").stdout)["rows"]
    assert len(rows) == len(report.measures["coalitions"].rows)


def test_export(record, tmp_path):
    result = _run("export", record, "--html", tmp_path / "r.html", "--markdown", tmp_path / "r.md")
    assert result.exit_code == 0 and "wrote" in result.stderr and result.stdout == ""
    assert "<html" in (tmp_path / "r.html").read_text()[:500] and (
        tmp_path / "r.md"
    ).read_text().startswith("# Late fusion")
    assert _run("export", record, "--markdown", "-").stdout == (tmp_path / "r.md").read_text()
    before = (tmp_path / "r.md").read_text()
    (tmp_path / "r.md").write_text("mine")
    assert _run("export", record, "--markdown", tmp_path / "r.md").exit_code == 2
    assert (tmp_path / "r.md").read_text() == "mine"
    assert _run("export", record, "--markdown", tmp_path / "r.md", "--force").exit_code == 0
    assert (tmp_path / "r.md").read_text() == before


def test_inspect(project):
    printed = _run("inspect", "audit.yaml")
    assert printed.exit_code == 0
    assert "  ears (Linear)  <- audio          encoder, 28 parameters" in printed.stdout
    assert json.loads(_run("inspect", "audit.yaml", "--json").stdout)["encoders"] == {
        "audio": ["ears"],
        "image": ["eyes"],
    }


def test_init_then_preview_then_audit(project):
    drafted = _run(
        "init", "best.pt", "--factory", "train:build", "--data", "train:loader", "--out", "new.yaml"
    )
    assert drafted.exit_code == 0, drafted.output
    assert (
        "audio (B, 6) float32" in drafted.stdout
        and "target <- label" in drafted.stdout
        and "audio <- ears" in drafted.stdout
    )
    assert yaml.safe_load(Path("new.yaml").read_text())["target"] == "label"
    assert _run("preview", "new.yaml", "--samples", 1).exit_code == 0
    assert _run("audit", "new.yaml", "--out", "out", *_FAST).exit_code == 0


def test_init_writes_paths_as_seen_from_the_audit_file(project):
    (project / "specs").mkdir()
    arguments = ("--factory", "train:build", "--data", "train:loader", "--out", "specs/new.yaml")
    assert _run("init", "best.pt", *arguments).exit_code == 0
    assert yaml.safe_load(Path("specs/new.yaml").read_text())["checkpoint"] == "../best.pt"
    assert _run("preview", "specs/new.yaml", "--samples", 1).exit_code == 0


def test_init_keeps_a_file_that_exists(project):
    arguments = ("init", "best.pt", "--factory", "train:build", "--data", "train:loader")
    assert _run(*arguments).exit_code == 2 and Path("audit.yaml").read_text() == _SPEC
    assert _run(*arguments, "--force").exit_code == 0 and Path("audit.yaml").read_text() != _SPEC


def test_preview(project):
    result = _run("preview", "audit.yaml", "--samples", 2)
    assert result.exit_code == 0, result.output
    assert (
        result.stdout.count("Sample s") == 2
        and "without both" in result.stdout
        and "masked: zero" in result.stdout
    )


@pytest.mark.slow  # a minute; the README's first command is the same
@pytest.mark.timeout(400)
def test_demo_goes_the_whole_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    result = _run("demo")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - started < 100
    assert "planted fault" in result.stderr and "Report: mmaudit-demo/report.html" in result.stdout
    assert "mmaudit serve mmaudit-demo" in result.stdout
    assert Path("mmaudit-demo/report.html").stat().st_size < 8e6
    for place in ("comparison.json", "model.safetensors", "control/comparison.json"):
        assert (Path("mmaudit-demo/retrained") / place).is_file()
    assert Path("mmaudit-demo/registered.json").is_file()


def test_demo_replaces_its_own_folder_and_no_other(tmp_path, monkeypatch, record):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = _run("demo", "--audit-only")
        assert result.exit_code == 0, result.output
    Path("mine").mkdir()
    Path("mine/precious").write_text("kept")
    assert (
        _run("demo", "--out", "mine").exit_code == 2 and Path("mine/precious").read_text() == "kept"
    )
    before = (record / "report.json").read_bytes()
    assert (
        _run("demo", "--out", record).exit_code == 2
        and (record / "report.json").read_bytes() == before
    )


def test_no_color(project):
    done = _process("inspect", "audit.yaml", cwd=project)
    assert "\x1b" not in done.stdout + done.stderr


# What is interrupted.


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_audit_says_how_to_go_on_and_does(project, number, status):
    (project / "train.py").write_text(_SLOW)
    (project / "audit.yaml").write_text(_SPEC.replace("train:loader", "train:slow_loader"))
    command = [
        sys.executable,
        "-m",
        "mmaudit",
        "audit",
        "audit.yaml",
        "--out",
        "out",
        "--seed",
        "3",
        *_FAST,
    ]
    running = subprocess.Popen(
        command,
        cwd=project,
        env=_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not resumable(project / "out"):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=30)
    assert (running.returncode, stdout) == (status, "")
    said = stderr.strip().splitlines()[-1]
    assert (
        said.startswith("interrupted: go on with  mmaudit audit audit.yaml --out out")
        and "Traceback" not in stderr
    )
    assert "--seed 3" in said and said.endswith("--resume")
    (project / "quick").touch()
    resumed = _run(*said.split()[5:], "--quiet")
    assert resumed.exit_code == 0, resumed.output
    assert AuditReport.load("out").data.samples == 200


@pytest.mark.parametrize(
    "start", [["-m", "mmaudit"], ["-c", "from mmaudit.cli import main; main()"]]
)
def test_interrupt_while_the_commands_are_imported(tmp_path, start):
    # The first library of the commands interrupts, and swallows what Ctrl-C usually is.
    (tmp_path / "typer.py").write_text(
        "import os, signal\ntry:\n os.kill(os.getpid(), signal.SIGINT)\n while True: pass\nexcept BaseException: pass\n"
    )
    path = os.pathsep.join([str(tmp_path), _ENVIRONMENT.get("PYTHONPATH", "")]).strip(os.pathsep)
    done = subprocess.run(
        [sys.executable, *start],
        env={**_ENVIRONMENT, "PYTHONPATH": path},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted.\n")


def test_interrupt_while_the_command_line_is_read(monkeypatch):
    def interrupted(*args, **extra):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.make_context", interrupted)
    result = _run("show")
    assert (result.exit_code, result.stderr) == (130, "interrupted.\n")


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (["retrain", "audit.yaml", "--recipe", "{scheduler: cosine}"], "retraining.retrain"),
        (["unimodal", "audit.yaml", "--modality", "audio"], "referencing.train_references"),
        (["trajectory", "audit.yaml", "--checkpoints", "*.pt"], "following.trajectory"),
    ],
)
def test_interrupted_training_prints_the_command_that_goes_on(
    project, monkeypatch, command, function
):
    def interrupted(*args, out, **options):
        out.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(f"mmaudit.{function}", interrupted)
    extra = ["--seed", "0"] if command[0] == "retrain" else []
    result = _run(*command, *extra, "--out", "a folder")
    said = result.stderr.strip().splitlines()[-1].removeprefix("interrupted: go on with  ")
    words = shlex.split(said)
    assert result.exit_code == 130 and words[0] == "mmaudit" and words[-1] == "--resume"
    assert words[1:3] == command[:2] and command[-1] in words and "a folder" in words
    assert ("--seed 0" in said) == bool(extra)


def test_the_suggested_retraining_says_where_it_goes_and_is_found_again(project, monkeypatch):
    asked = []

    def interrupted(*args, out, resume, **options):
        asked.append((out, resume))
        out.mkdir(parents=True, exist_ok=True)
        (out / "retrain.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("mmaudit.retraining.retrain", interrupted)
    for extra in ([], ["--resume"], []):
        result = _run("retrain", "audit.yaml", "--remedy", "agm", *extra)
        assert result.exit_code == 130 and f"Folder     {asked[-1][0]}\n" in result.stderr
    (first, _), again, (second, _) = asked
    assert again == (first, True) and second == first.with_name(f"{first.name}-2")


def test_interrupt_before_anything_was_written(project, monkeypatch):
    (project / "train.py").write_text("raise KeyboardInterrupt\n")
    result = _run("audit", "audit.yaml", "--out", "out")
    assert result.exit_code == 130 and result.stderr.endswith(
        "interrupted before anything was computed: nothing to resume.\n"
    )


def test_reader_that_goes_away(record):
    command = f"{sys.executable} -m mmaudit show {record} --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], env=_ENVIRONMENT, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_fault_of_ours_asks_for_a_report(record, monkeypatch):
    def broken(path):
        raise ZeroDivisionError("division by zero\nmore")

    monkeypatch.setattr(AuditReport, "load", broken)
    monkeypatch.delenv("MMAUDIT_DEBUG", raising=False)
    result = _run("show", record)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert (
        "ZeroDivisionError: division by zero" in result.stderr
        and "MMAUDIT_DEBUG=1" in result.stderr
    )
    monkeypatch.setenv("MMAUDIT_DEBUG", "1")
    assert "Traceback" in _run("show", record).stderr


# What is wrong: arguments -> words of the sentence. {out} is a finished audit.

_AUDIT = ["audit", "audit.yaml", "--out", "new"]
_INIT = ["init", "best.pt", "--out", "new.yaml"]
_BAD_CALLS = [
    (["adit"], "did you mean 'audit'"),
    (["--wrong"], "no such option"),
    (["audit"], "AUDIT.yaml"),
    (["audit", "nothing.yaml"], "no such file"),
    (["audit", "."], ". is a folder"),
    (["audit", "best.pt"], "mmaudit init best.pt"),
    (["audit", "{out}"], "mmaudit show"),
    (["retrain", "best.pt"], "is no audit file"),
    (["retrain", "audit.yaml", "--resume"], "no interrupted retraining in runs/"),
    (["trajectory", ".", "--checkpoints", "best.pt", "--out", "new"], ". is a folder"),
    (["audit", "audit.yaml", "extra"], "extra"),
    ([*_AUDIT, "--resume"], "no interrupted audit"),
    (["audit", "audit.yaml", "--resume"], "no interrupted audit"),
    ([*_AUDIT, "--resume", "--overwrite"], "one of them"),
    ([*_AUDIT, "--precision", "float8"], "'float32', 'bfloat16', 'float16'"),
    ([*_AUDIT, "--batch-size", "0"], "--batch-size"),
    ([*_AUDIT, "--batch-size", "many"], "--batch-size"),
    ([*_AUDIT, "--replicates", "5"], "greater than or equal to 100"),
    ([*_AUDIT, "--seed", "-1"], "--seed"),
    ([*_AUDIT, "--timeout", "0"], "--timeout"),
    ([*_AUDIT, "--device", "gpu"], "expected cpu, cuda"),
    ([*_AUDIT, "--device", "xpu"], "no xpu"),
    ([*_AUDIT, "--measures", "utilisation"], "there are coalitions"),
    ([*_AUDIT, "--measures", ","], "there are coalitions"),
    (["audit", "audit.yaml", "--out", "{out}"], "finished audit"),
    (["audit", "audit.yaml", "--out", "best.pt"], "best.pt"),
    (["show", "nowhere"], "no report at"),
    (["show", "train.py"], "damaged"),
    (["show", "best.pt"], "best.pt is no record: expected the folder of an audit"),
    (["show", "{out}", "--measure", "capacity_gap"], "it needs 'references' in the audit file"),
    (["show", "{out}", "--measure", "utilisation"], "utilization"),
    (["export", "{out}"], "--html FILE"),
    (["export", "{out}", "--html", "train.py"], "exists already"),
    (["export", "{out}", "--html", "."], "is a folder"),
    (["export", "{out}", "--html", "-"], "only --markdown"),
    (["export", "nowhere", "--html", "new.html"], "no report at"),
    (["preview", "audit.yaml", "--samples", "0"], "--samples"),
    (["inspect", "nothing.yaml"], "no such file"),
    (["demo", "--out", "train.py"], "is a file"),
    (_INIT, "--data"),
    ([*_INIT, "--data", "train:loader"], "name a factory"),
    ([*_INIT, "--factory", "train", "--data", "train:loader"], "package.module:callable"),
    ([*_INIT, "--factory", "train:build", "--data", "train"], "expected module:function"),
    ([*_INIT, "--factory", "train:build", "--data", "train:"], "for example train:test_loader"),
    ([*_INIT, "--factory", "train:bild", "--data", "train:loader"], "did you mean 'build'"),
    ([*_INIT, "--factory", "train:build", "--data", "trian:loader"], "no module 'trian'"),
    ([*_INIT, "--factory", "train:build", "--data", "nothing.npz"], "nothing.npz"),
    (
        [*_INIT, "--factory", "train:build", "--data", "train:loader", "--factory-args", "[1]"],
        "--factory-args",
    ),
    (
        [
            *_INIT,
            "--factory",
            "train:build",
            "--data",
            "train:loader",
            "--factory-args",
            "{depth: 3}",
        ],
        "does not take",
    ),
    (
        [
            "init",
            "nothing.pt",
            "--factory",
            "train:build",
            "--data",
            "train:loader",
            "--out",
            "new.yaml",
        ],
        "nothing.pt",
    ),
    (
        [
            "init",
            "best.pt",
            "--factory",
            "train:build",
            "--data",
            "train:loader",
            "--out",
            "new.txt",
        ],
        ".yaml",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "words"),
    _BAD_CALLS,
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_call(project, record, arguments, words):
    _assert_one_sentence(_run(*(a.replace("{out}", str(record)) for a in arguments)), words)
    assert not (project / "new").exists() and not (project / "new.yaml").exists()


_BAD_SPECS = [
    ("model: [", "not readable as YAML"),
    ("- a\n- b\n", "expected a mapping"),
    (_SPEC.replace("target:", "traget:"), "did you mean 'target'"),
    (_SPEC.replace("train:build", "train.build"), "package.module:callable"),
    (_SPEC.replace("modalities: {audio: audio, image: image}", "modalities: {}"), "0 modalities"),
    (_SPEC.replace("audio: audio", "audio: {inputs: audio, mask: zeros}"), "did you mean zero"),
    (_SPEC.replace("best.pt", "worst.pt"), "worst.pt"),
    (_SPEC.replace("train:build", "absent:build"), "no module 'absent'"),
    (_SPEC.replace("target: label", "target: lable"), "lable"),
    (_SPEC.replace("audio: audio", "audio: audoi"), "audoi"),
    (_SPEC + "expected: {accuracy: 0.99}\n", "expects 0.99"),
    (_SPEC + "outputs: {kind: probabilities}\n", "do not sum to 1"),
    (_SPEC + "outputs: {path: logits}\n", "outputs.path"),
    (_SPEC + "call: {args: [audio]}\n", "TypeError"),
    (_SPEC + "latent: nowhere\n", "nowhere"),
    (_SPEC.replace('data: "train:loader"', "data: missing.npz"), "missing.npz"),
    (_SPEC.replace('data: "train:loader"', "data: broken.npz"), "broken.npz"),
    (_SPEC.replace('data: "train:loader"', 'data: "builtins:int"'), "expected a DataLoader"),
    (_SPEC.replace("best.pt", "pickled.pt"), "pickled.pt"),
    (_SPEC.replace("best.pt", "other.pt"), "missing"),
    (_SPEC.replace("best.pt", "empty.pt"), "empty"),
    (_SPEC.replace("ids: id", "ids: label"), "twice"),
]


@pytest.mark.parametrize(("text", "words"), _BAD_SPECS, ids=[words for _, words in _BAD_SPECS])
def test_bad_spec(project, text, words):
    (project / "audit.yaml").write_text(text)
    (project / "broken.npz").write_bytes(b"PK\x03\x04 and nothing more")
    (project / "empty.pt").write_bytes(b"")
    torch.save(torch.nn.Linear(2, 2), project / "pickled.pt")
    torch.save({"weight": torch.zeros(2)}, project / "other.pt")
    np.save(project / "array.npy", np.zeros(3))
    result = _run("audit", "audit.yaml", "--out", "new", "--quiet", *_FAST)
    _assert_one_sentence(result, words, lines=3 if "fault" in result.stderr else 1)
    assert not (project / "new" / "report.json").exists()


def test_all_faults_of_a_spec_have_a_line_each(project):
    (project / "audit.yaml").write_text(_SPEC.replace("target:", "traget:").replace("ids:", "idz:"))
    result = _run("audit", "audit.yaml")
    assert result.exit_code == 2 and result.stderr.splitlines()[0].endswith("audit.yaml: 2 faults")
    assert len(result.stderr.splitlines()) == 3


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(project):
    (project / "locked").mkdir(mode=0o500)
    _assert_one_sentence(
        _run("audit", "audit.yaml", "--out", "locked/new", "--quiet", *_FAST), "Permission denied"
    )


def _assert_one_sentence(result, words, lines=1):
    said = [line for line in result.stderr.splitlines() if line.strip()]
    # Progress may stand before it; the sentence is the end.
    said = (
        said[next(i for i, line in enumerate(said) if line.startswith("Error: ")) :]
        if "Error: " in result.stderr
        else said
    )
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert said[0].startswith("Error: ") and 1 <= len(said) <= lines, result.stderr
    assert words.lower() in result.stderr.lower()
    assert "Traceback" not in result.output
