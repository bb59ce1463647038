"""``mmaudit serve`` finds the app by its entry point and passes on what was asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer

from mmaudit.command_line import serving
from mmaudit.command_line.ending import Commands
from mmaudit.exceptions import SpecError


@pytest.fixture
def asked(monkeypatch):
    """What the app was asked for; in place of the app that is installed."""
    found = {}

    def app(workspace, **options):
        found.update(options, workspace=workspace)
        options["show"]("http://127.0.0.1:1/?token=t")
        options["say"]("and more")

    monkeypatch.setattr(
        serving, "entry_points", lambda group: [SimpleNamespace(load=lambda: app)] if group == "mmaudit.app" else []
    )  # fmt: skip
    return found


def _run(*words):
    commands = typer.Typer(cls=Commands)
    commands.callback()(lambda: None)
    commands.command()(serving.serve)
    with pytest.raises(SystemExit) as end:
        commands(["serve", *words])
    return end.value.code


def test_it_serves_this_machine_alone_unless_told_otherwise(asked, tmp_path, capsys):
    assert _run(str(tmp_path)) == 0
    assert asked["workspace"] == tmp_path
    assert asked["host"] == "127.0.0.1"
    assert (asked["port"], asked["open_browser"], asked["read_only"]) == (None, True, False)
    assert asked["trusted_hosts"] == ()
    printed = capsys.readouterr()
    assert printed.out == "http://127.0.0.1:1/?token=t\n", "the address alone, for whoever reads it"
    assert printed.err == "and more\n"


def test_what_is_asked_for_reaches_the_app(asked, tmp_path):
    words = ["--port", "0", "--host", "0.0.0.0", "--no-browser", "--read-only", "--trusted-host", "a", "--trusted-host", "b"]  # fmt: skip
    assert _run(str(tmp_path), *words) == 0
    assert (asked["port"], asked["host"]) == (0, "0.0.0.0")
    assert (asked["open_browser"], asked["read_only"]) == (False, True)
    assert asked["trusted_hosts"] == ("a", "b")


@pytest.mark.parametrize("words", [["--port", "65536"], ["--port", "x"], ["--token", "x"], ["--debug"]])  # fmt: skip
def test_other_options_are_refused(asked, tmp_path, words):
    assert _run(str(tmp_path), *words) == 2
    assert not asked


def test_without_an_app_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(serving, "entry_points", lambda group: [])
    with pytest.raises(SpecError, match="pip install"):
        serving.find_app()


def test_a_refusal_of_the_app_is_one_sentence(asked, tmp_path, monkeypatch, capsys):
    from dashboard.serving import serve

    monkeypatch.setattr(serving, "find_app", lambda: serve)
    assert _run(str(tmp_path), "--host", "0.0.0.0") == 2
    assert "--trusted-host" in capsys.readouterr().err
    assert _run(str(tmp_path / "none")) == 2
    assert "no folder" in capsys.readouterr().err
