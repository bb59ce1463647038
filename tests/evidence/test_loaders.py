import itertools
import random
import time

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from mmaudit.evidence.data import open_source
from mmaudit.exceptions import DataError
from mmaudit.masking.spec import MaskingSpec
from tests.evidence.datasets import Drawing, Failing, Numbers, Streaming, Uneven

SPEC = MaskingSpec(modalities={"m": "x"}, target="y", ids="id")


class Fixed(Sampler):
    """Listed in an order of its own."""

    def __init__(self, order):
        self.order = order

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return len(self.order)


class Shuffled(Fixed):
    def __iter__(self):
        order = list(self.order)
        random.shuffle(order)
        return iter(order)


class Endless(Fixed):
    def __iter__(self):
        return itertools.cycle(self.order)


def read(loader, **options):
    source = open_source(loader, SPEC, **options)
    batches = list(source.batches())
    return source, batches, [sample for batch in batches for sample in batch.ids]


def ids(numbers):
    return [f"s{i}" for i in numbers]


SHUFFLING = {
    "shuffle=True": {"shuffle": True},
    "RandomSampler": {"sampler": RandomSampler(range(10), replacement=True, num_samples=30)},
    "WeightedRandomSampler": {"sampler": WeightedRandomSampler([1.0] * 9 + [0.0], 4)},
    "DistributedSampler": {"sampler": DistributedSampler(range(10), num_replicas=3, rank=1)},
    "own": {"sampler": Shuffled(list(range(10)))},
    "endless": {"sampler": Endless(list(range(10)))},
    "own batches": {"batch_sampler": BatchSampler(Shuffled(list(range(10))), 4, False)},
    "dropping": {"batch_sampler": BatchSampler(RandomSampler(range(10)), 4, True)},
}


@pytest.mark.parametrize("name", SHUFFLING)
def test_shuffling_samplers_are_replaced_and_noted(name):
    options = {"batch_size": 4} | SHUFFLING[name]
    if "batch_sampler" in options:
        del options["batch_size"]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    source, batches, seen = read(DataLoader(Numbers(), **options))
    assert seen == ids(range(10))
    assert [batch.n for batch in batches] == [4, 4, 2]
    assert any(note.kind == "fallback" and "replaced" in note.text for note in source.notes)
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(states[2], torch.get_rng_state())


def test_a_random_subset_is_kept_in_the_order_given():
    source, _, seen = read(
        DataLoader(Numbers(), batch_size=4, sampler=SubsetRandomSampler([7, 2, 5]))
    )
    assert seen == ids([7, 2, 5]) and "SubsetRandomSampler" in source.notes[0].text


def test_a_shuffled_part_stays_that_part():
    _, _, seen = read(DataLoader(Numbers(), batch_size=4, sampler=Shuffled([8, 3, 5])))
    assert seen == ids([3, 5, 8])


def test_dropped_samples_are_kept_and_noted():
    source, _, seen = read(DataLoader(Numbers(), batch_size=4, drop_last=True))
    assert seen == ids(range(10)) and "the last 2 samples" in source.notes[0].text
    source, _, _ = read(DataLoader(Numbers(8), batch_size=4, drop_last=True))
    assert not source.notes


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"batch_size": 4}, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ({"batch_size": 4, "sampler": Fixed([9, 0, 3, 3, 1][:3])}, [[9, 0, 3]]),
        ({"batch_sampler": Fixed([[1, 0], [5], [3, 2, 4]])}, [[1, 0], [5], [3, 2, 4]]),
    ],
)
def test_a_fixed_order_is_kept_without_a_note(options, expected):
    source, batches, _ = read(DataLoader(Numbers(), **options))
    assert [batch.ids for batch in batches] == [ids(numbers) for numbers in expected]
    assert [batch.start for batch in batches] == [
        sum(map(len, expected[:i])) for i in range(len(expected))
    ]
    assert not source.notes
    assert (source.length, source.samples) == (len(expected), sum(map(len, expected)))


def test_another_batch_size():
    _, batches, seen = read(DataLoader(Numbers(), batch_size=4), batch_size=3)
    assert [batch.n for batch in batches] == [3, 3, 3, 1] and seen == ids(range(10))
    source, batches, _ = read(
        DataLoader(Numbers(), batch_sampler=Fixed([[1, 0], [5]])), batch_size=3
    )
    assert [batch.n for batch in batches] == [2, 1] and "no effect" in source.notes[0].text


@pytest.mark.parametrize(
    "kind", ["planned", "iterable dataset", "list", "whole batches", "function"]
)
@pytest.mark.parametrize(
    "skip, stride, offset", [(0, 1, 0), (2, 1, 0), (0, 2, 1), (1, 3, 0), (9, 1, 0)]
)
def test_any_part_can_be_read_alone(kind, skip, stride, offset):
    ready = list(DataLoader(Numbers(), batch_size=3))
    source = open_source(
        {
            "planned": DataLoader(Numbers(), batch_size=3),
            "iterable dataset": DataLoader(Streaming(), batch_size=3),
            "list": ready,
            "whole batches": DataLoader(ready, batch_size=None),
            "function": lambda: iter(ready),
        }[kind],
        SPEC,
    )
    whole = [(b.index, b.start, b.ids, b.targets.tolist()) for b in source.batches()]
    assert [entry[1] for entry in whole] == [0, 3, 6, 9]
    part = [
        (b.index, b.start, b.ids, b.targets.tolist())
        for b in source.batches(skip=skip, stride=stride, offset=offset)
    ]
    assert part == [entry for entry in whole if entry[0] >= skip and entry[0] % stride == offset]


def test_what_is_skipped_is_not_loaded():
    dataset = Numbers()
    source = open_source(DataLoader(dataset, batch_size=2), SPEC)
    assert len(list(source.batches(skip=1, stride=2, offset=1))) == 2
    assert dataset.loaded == [0, 1, 2, 3, 6, 7]  # the first batch shows where samples run


def test_a_generator_is_read_once():
    ready = list(DataLoader(Numbers(), batch_size=3))
    source = open_source((batch for batch in ready), SPEC)
    assert source.notes[0].kind == "warning" and "only once" in source.notes[0].text
    assert len(list(source.batches())) == 4
    with pytest.raises(DataError, match="only once"):
        list(source.batches())


@pytest.mark.parametrize(
    "how, words",
    [
        ("raise", "ValueError: sample five is broken"),
        ("sys.exit", "SystemExit"),
        ("stop", "StopIteration"),
    ],
)
def test_a_dataset_that_raises_is_one_sentence(how, words):
    source = open_source(DataLoader(Failing(how), batch_size=2), SPEC)
    with pytest.raises(DataError) as error:
        list(source.batches())
    assert str(error.value).startswith("batch 2 (samples 4 to 5) could not be read: ")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_interrupt_passes():
    source = open_source(DataLoader(Failing("interrupt"), batch_size=2), SPEC)
    with pytest.raises(KeyboardInterrupt):
        list(source.batches())


@pytest.mark.parametrize(
    "how, timeout, words",
    [
        ("raise", 60, "ValueError: sample five is broken"),
        ("exit", 60, r"worker died \(exit code 3\)"),
        ("kill", 60, r"worker died \(killed by signal 9\)"),
        ("hang", 2, "worker gave no answer for [23] s"),
    ],
)
def test_a_bad_worker_is_one_sentence_in_time(how, timeout, words):
    source = open_source(
        DataLoader(Failing(how), batch_size=2, num_workers=1), SPEC, timeout=timeout
    )
    assert source.notes[0].text == "the 1 DataLoader workers are spawned, not forked"
    began = last = time.monotonic()
    seen = []
    with pytest.raises(DataError, match=words) as error:
        for batch in source.batches():
            seen.append(batch.index)
            # The worker fails while this process is busy elsewhere, where nothing may be raised.
            time.sleep(1 if how in ("exit", "kill") else 0)
            last = time.monotonic()
    assert time.monotonic() - last < timeout + 5
    assert time.monotonic() - began < 60
    assert "\n" not in str(error.value)
    # A worker that dies may take batches with it that were read but not yet sent.
    assert seen == [0, 1] or how in ("exit", "kill")
    assert f"batch {len(seen)} (samples {2 * len(seen)} to {2 * len(seen) + 1})" in str(error.value)


def test_a_worker_that_is_done_has_not_died():
    _, _, seen = read(DataLoader(Uneven(), batch_size=1, num_workers=2))
    assert sorted(seen) == ids([0, 1, 2])


def test_workers_are_seeded_and_leave_the_random_state_alone():
    source = open_source(DataLoader(Drawing(6), batch_size=2, num_workers=1), SPEC)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = torch.cat([batch.data["drawn"] for batch in source.batches()])
    assert torch.equal(before, torch.get_rng_state())
    second = torch.cat([batch.data["drawn"] for batch in source.batches()])
    assert torch.equal(first, second) and first.unique().numel() == 6


def test_what_cannot_be_sent_to_a_worker_is_read_here():
    dataset = Numbers()
    dataset.handle = lambda: None
    source, _, seen = read(DataLoader(dataset, batch_size=4, num_workers=2))
    assert seen == ids(range(10))
    assert source.notes[0].kind == "fallback" and "without worker processes" in source.notes[0].text


def test_a_program_that_cannot_be_imported_again_has_no_workers(monkeypatch, tmp_path):
    import types

    script = tmp_path / "script.py"
    script.write_text("import mmaudit\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(__import__("sys").modules, "__main__", main)
    source, _, _ = read(DataLoader(Numbers(), batch_size=4, num_workers=2))
    assert "script.py has no if __name__" in source.notes[0].text
    script.write_text("if __name__ == '__main__':\n    pass\n")
    assert "spawned" in open_source(DataLoader(Numbers(), num_workers=2), SPEC).notes[0].text


def test_a_timeout_of_the_users_own_is_kept():
    loader = DataLoader(Failing("hang"), batch_size=2, num_workers=1, timeout=2)
    source = open_source(loader, SPEC, timeout=600)
    with pytest.raises(DataError, match="no answer for [23] s"):
        list(source.batches())
    assert loader.timeout == 2


def test_rows_that_a_collate_fn_leaves_out_are_noted():
    loader = DataLoader(
        Numbers(),
        batch_size=5,
        collate_fn=lambda items: torch.utils.data.default_collate(items[:-1]),
    )
    source, batches, _ = read(loader)
    assert [batch.n for batch in batches] == [4, 4] and [batch.start for batch in batches] == [0, 5]
    assert any("4 rows of 5 samples" in note.text for note in source.notes)


def test_rows_that_a_collate_fn_adds_need_ids():
    def twice(items):
        return torch.utils.data.default_collate(
            [{"x": item["x"], "y": item["y"]} for item in items * 2]
        )

    source = open_source(
        DataLoader(Numbers(), batch_size=5, collate_fn=twice), SPEC.model_copy(update={"ids": None})
    )
    with pytest.raises(DataError, match="10 rows for 5 samples"):
        list(source.batches())
