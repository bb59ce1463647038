"""A hundred damaged copies of a log of every format: each ends in runs or in one sentence, and soon."""

import json
import random
import time
import warnings

import pytest

from mmaudit.evidence.readers import READERS, read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import csv_text, events, json_lines, write
from tests.evidence.readers.test_huggingface import state
from tests.evidence.readers.test_lightning import metrics
from tests.evidence.readers.test_mlflow import database, folder_store

MUTANTS = 100
LONGEST = 3.0


def csv_log(folder):
    return write(folder / "a.csv", csv_text())


def split_log(folder):
    rows = [f"{e},{s},{e}.5,nan\n" for e in range(8) for s in ("train", "val")]
    return write(folder / "a.csv", "epoch,phase,loss,other\n" + "".join(rows))


def jsonl_log(folder):
    rows = [
        {"type": s, "epoch": e, "losses": {"audio": e + 0.5, "é": None}}
        for e in range(8)
        for s in ("train", "val")
    ]
    return write(folder / "a.jsonl", json_lines(rows))


def json_log(folder):
    lists = {"epoch": [0, 1, 2], "loss": [2.0, 1.5, 1.0], "val_loss": [2.5, None, 2]}
    return write(folder / "a.json", json.dumps([lists, {**lists, "seed": 3}], indent=1))


def lightning_log(folder):
    return write(folder / "metrics.csv", metrics(later="4,40,,,9.0\n"))


def huggingface_log(folder):
    return write(folder / "trainer_state.json", state(5))


def wandb_log(folder):
    head = '"Step","a - loss","a - loss__MIN","a - loss__MAX","b - loss"\n'
    return write(folder / "p.csv", head + "".join(f"{i},1.5,1,2,{i}\n" for i in range(9)))


def event_log(folder):
    points = [(tag, i, 2.0 - i / 8) for i in range(8) for tag in ("train_loss", "val_loss")]
    return events(folder / "events.out.tfevents.1.h", points)


def tensor_log(folder):
    points = [("train_loss", i, 2.0 - i / 8) for i in range(8)]
    return events(folder / "events.out.tfevents.1.h", points, tensors=True, dtype=2)


def database_log(folder):
    folder.mkdir()
    return database(folder / "m.db")


def metric_log(folder):
    folder_store(folder, runs=("r1",))
    return folder / "0" / "r1" / "metrics" / "val" / "a_loss"


LOGS = {
    "csv": csv_log, "split": split_log, "jsonl": jsonl_log, "json": json_log, "lightning": lightning_log,
    "huggingface": huggingface_log, "wandb": wandb_log, "tensorboard": event_log, "tensors": tensor_log,
    "mlflow": database_log, "metric": metric_log,
}  # fmt: skip


def mutant(data, draw):
    """A copy that is cut, flipped, shuffled or written twice, in one to three places."""
    for _ in range(draw.randint(1, 3)):
        kind = draw.choice(("cut", "flip", "swap", "again", "lose", "insert"))
        at = draw.randrange(len(data)) if data else 0
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            many = draw.randint(1, 4)
            for place in (draw.randrange(len(data)) for _ in range(many)):
                data = data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
        elif kind == "insert":
            text = draw.choice(
                (b"\0", b"\xff", b'"', b"{", b"[", b",", b"\n", b"1e999", b"NaN", b"\r")
            )
            data = data[:at] + text + data[at:]
        else:
            lines = data.splitlines(keepends=True)
            if len(lines) > 1:
                first, second = draw.sample(range(len(lines)), 2)
                if kind == "swap":
                    lines[first], lines[second] = lines[second], lines[first]
                elif kind == "again":
                    lines.insert(first, lines[second])
                else:
                    del lines[first]
            data = b"".join(lines)
    return data


@pytest.mark.parametrize("kind", LOGS)
def test_mutants(tmp_path, kind):
    file = LOGS[kind](tmp_path / "logs")
    data = file.read_bytes()
    places = (file, tmp_path / "logs")
    assert all(read_runs(place) for place in places[kind == "metric" :])
    read = refused = 0
    draw = random.Random(kind)
    for number in range(MUTANTS):
        file.write_bytes(mutant(data, draw))
        form = kind if kind in READERS and number % 4 == 0 else None
        start = time.monotonic()
        try:
            runs = read_runs(places[number % 2 or kind == "metric"], form=form)
        except LogError as error:
            refused += 1
            sentence = str(error)
            assert sentence.isprintable() and len(sentence) < 1500, sentence
        else:
            read += 1
            assert runs and all(run.points for run in runs)
            for run in runs:
                assert all(note.isprintable() for note in run.notes), run.notes
                for series in run.series.values():
                    assert len({len(column) for column in series}) == 1
        assert time.monotonic() - start < LONGEST
    assert read and (refused or kind in ("tensorboard", "tensors", "metric"))


@pytest.mark.parametrize("kind", LOGS)
def test_a_damaged_log_hides_no_other(tmp_path, kind):
    """Beside a whole log of the same format, which is read whatever happened to the first."""
    if kind in ("mlflow", "metric"):
        pytest.skip("one store holds all runs")
    damaged, whole = LOGS[kind](tmp_path / "logs" / "one"), LOGS[kind](tmp_path / "logs" / "two")
    expected = {(n, str(s.value.tolist())) for n, s in read_runs(whole)[0].series.items()}
    data = damaged.read_bytes()
    draw = random.Random(kind)
    for _ in range(20):
        damaged.write_bytes(mutant(data, draw))
        for given in (tmp_path / "logs", [damaged, whole]):
            runs = read_runs(given)
            found = [{(n, str(s.value.tolist())) for n, s in run.series.items()} for run in runs]
            assert any(expected <= series for series in found)


def test_nothing_warns(tmp_path):
    """Warnings of libraries would end a strict program, and say nothing to a reader."""
    draw = random.Random(5)
    data = csv_log(tmp_path).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(50):
            (tmp_path / "a.csv").write_bytes(mutant(data, draw))
            try:
                read_runs(tmp_path / "a.csv")
            except LogError:
                continue
