"""The table of losses that ``mmaudit trajectory`` prints, at any width."""

import pandas as pd
import pytest
from rich.console import Console

from mmaudit.command_line import following


def table(monkeypatch, heads, width):
    rows = [
        {"checkpoint": f"epoch={epoch}", "head": head, "split": split, "loss": 0.5 + epoch}
        for epoch in range(2)
        for head in heads
        for split in ("train", "validation")
    ]
    console = Console(width=width, record=True, highlight=False, file=None)
    monkeypatch.setattr(following, "results_console", lambda **_: console)
    following._print_losses(pd.DataFrame(rows))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("number", [1, 3, 6, 13])
def test_no_name_breaks(monkeypatch, capsys, width, number):
    heads = ["fusion_output", *(f"sensor_{i}_head" for i in range(number - 1))]
    text = table(monkeypatch, heads, width)
    assert all(text.split().count(head) >= 1 for head in heads)
    assert text.split().count("0.5") == text.split().count("1.5") == 2 * number
    assert max(map(len, text.splitlines())) <= width


def test_names_are_no_markup(monkeypatch, capsys):
    assert "[red]m" in table(monkeypatch, ["[red]m"], 80)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
def test_names_of_checkpoints_are_whole(monkeypatch, capsys, number):
    text = table(monkeypatch, [f"sensor{i}" for i in range(number)], 110)
    assert "epoch=0" in text.split() and "epoch=1" in text.split()
    assert "…" not in text
