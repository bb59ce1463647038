"""A million points: seconds for text, hardly more than the library's own loader takes for event files, and bounded memory."""

import time
import tracemalloc

import numpy as np
import pytest

from mmaudit.evidence.readers import read_runs
from tests.evidence.readers.logs import events

pytestmark = pytest.mark.slow
POINTS = 1_000_000


def seconds(call):
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def text(form):
    values = np.exp(-np.arange(POINTS) / 1e5)
    if form == "csv":
        yield "step,train_loss,val_loss\n"
        yield from (f"{i},{v:.6f},{v if i % 1000 == 0 else ''}\n" for i, v in enumerate(values))
    else:
        yield from (f'{{"step": {i}, "train_loss": {v:.6f}}}\n' for i, v in enumerate(values))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_text(tmp_path, form):
    path = tmp_path / f"log.{form}"
    with path.open("w") as file:
        file.writelines(text(form))
    taken, (run,) = seconds(lambda: read_runs(path))
    assert len(run.series["train_loss"].value) == POINTS
    assert taken < 5


def test_event_files_take_hardly_longer_than_their_library(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    path = events(
        tmp_path / "events.out.tfevents.1.h", [("a_loss", i, 1.0) for i in range(POINTS // 4)]
    )
    theirs, count = seconds(lambda: sum(1 for _ in loader.LegacyEventFileLoader(str(path)).Load()))
    ours, (run,) = seconds(lambda: read_runs(path))
    assert count == POINTS // 4 + 1 and len(run.series["a_loss"].value) == POINTS // 4
    assert ours <= 1.2 * theirs


def test_memory_grows_with_the_points_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        for number, line in enumerate(text("jsonl")):
            if number == 200_000:
                break
            file.write(line)
    tracemalloc.start()
    read_runs(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 32 bytes a point are kept; a list of all rows as objects would be some 300.
    assert peak < 120 * 200_000 + 40_000_000
