"""Progress in plain lines, on a clock of its own."""

from __future__ import annotations

import pytest

from mmaudit.command_line.progress import PlainLines, SeriesLines, show_progress


def _lines(calls):
    """Lines for ``(second, stage, done, total)``."""
    now, written = [0.0], []
    lines = PlainLines(written.append, lambda: now[0])
    for second, *told in calls:
        now[0] = second
        lines(*told)
    return written


def test_a_fast_audit_has_a_line_per_stage():
    assert _lines(
        [
            (0, "Plain score", 10, 40),
            (0.1, "Plain score", 40, 40),
            (0.2, "Coalitions", 10, 40),
            (0.3, "Measures", 0, None),
        ]
    ) == [
        "Plain score  10 of 40 samples (25 %)",
        "Coalitions   10 of 40 samples (25 %)",
        "Measures",
    ]


def test_lines_are_two_seconds_and_a_tenth_apart():
    written = _lines([(second / 2, "Coalitions", 5 * second, 1000) for second in range(1, 200)])
    shares = [float(line.split("(")[1].split()[0]) if "(" in line else 0 for line in written]
    assert 5 <= len(written) <= 12
    assert all(
        later - earlier >= 10 for earlier, later in zip(shares[1:], shares[2:], strict=False)
    )


def test_a_slow_audit_gives_a_sign_of_life_every_minute():
    assert len(_lines([(second, "Coalitions", second, 10**6) for second in range(0, 601, 5)])) == 11


def test_the_rest_is_told_from_what_this_run_did():
    """A resumed audit starts at 500 of 1,000; 100 samples in 10 s leave 40 s."""
    written = _lines([(0, "Coalitions", 500, 1000), (10, "Coalitions", 600, 1000)])
    assert written[1] == "Coalitions   600 of 1,000 samples (60 %), about 40 s left"


def test_without_a_total():
    assert (
        _lines([(0, "Coalitions", 8, None), (3, "Coalitions", 24, None)])[1]
        == "Coalitions   24 samples"
    )


@pytest.mark.parametrize("quiet", [True, False])
def test_off_a_terminal_there_is_no_bar(capsys, quiet):
    with show_progress(quiet=quiet) as progress:
        progress("Coalitions", 1, 2)
    assert capsys.readouterr().err == ("" if quiet else "Coalitions   1 of 2 samples (50 %)\n")


def _series(calls, finish=True):
    """Lines for ``(second, stage, done, total)`` of a series."""
    now, written = [0.0], []
    lines = SeriesLines(written.append, lambda: now[0])
    for second, *told in calls:
        now[0] = second
        lines(*told)
    if finish:
        lines.finish()
    return written


def _checkpoint(number, begin, seconds, batches=4):
    """Both splits of one checkpoint, batch by batch."""
    for place, split in enumerate(("train", "validation")):
        for batch in range(1, batches + 1):
            second = begin + seconds * (place * batches + batch) / (2 * batches)
            yield second, f"epoch={number} ({split}, {number} of 3)", batch * 10, batches * 10


def test_a_series_has_a_line_for_each_finished_checkpoint():
    calls = [call for n in (1, 2, 3) for call in _checkpoint(n, 10 * (n - 1), 10)]
    assert _series(calls) == [
        "Checkpoint 1 of 3: epoch=1 done, about 23 s left",
        "Checkpoint 2 of 3: epoch=2 done, about 11 s left",
        "Checkpoint 3 of 3: epoch=3 done",
    ]


def test_a_checkpoint_that_breaks_off_is_not_done():
    calls = [*_checkpoint(1, 0, 10), (11, "epoch=2 (train, 2 of 3)", 10, 40)]
    assert [line for line in _series(calls, finish=False) if "epoch=2" in line] == []


def test_a_slow_checkpoint_gives_a_sign_of_life_every_minute():
    calls = [(second, "a (b) (train, 1 of 1)", second, 1000) for second in range(0, 301, 10)]
    written = _series(calls)
    assert written[0] == "Checkpoint 1 of 1: a (b), train: 60 of 1,000 samples (6 %)"
    assert len(written) == 6 and written[-1] == "Checkpoint 1 of 1: a (b) done"


def test_other_stages_of_a_series_are_told_as_ever():
    assert _series([(0, "Loading", 0, None), *_checkpoint(3, 1, 2)]) == [
        "Loading",
        "Checkpoint 3 of 3: epoch=3 done",
    ]


def test_a_series_off_a_terminal(capsys):
    with show_progress(series=True) as progress:
        for _, *told in _checkpoint(3, 0, 1):
            progress(*told)
    assert capsys.readouterr().err == "Checkpoint 3 of 3: epoch=3 done\n"
    with pytest.raises(ValueError, match="broken"), show_progress(series=True) as progress:
        progress("epoch=1 (train, 1 of 3)", 1, 2)
        raise ValueError("broken")
    assert capsys.readouterr().err == ""
