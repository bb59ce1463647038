import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import mmaudit.evidence.files as files_module
from mmaudit.evidence.data import open_source
from mmaudit.exceptions import DataError
from mmaudit.masking.spec import MaskingSpec, SourceSpec

N = 50
X = np.arange(N * 6, dtype=np.float32).reshape(N, 2, 3)
Y = (np.arange(N) % 4).astype(np.uint8)
NAMES = np.array([f"clip {i}" for i in range(N)])
SPEC = MaskingSpec(modalities={"m": "x"}, target="y", ids="name")


@pytest.fixture(params=["npz", "compressed npz", "parquet"])
def file(request, tmp_path):
    if request.param == "parquet":
        path = tmp_path / "data.parquet"
        table = pa.table(
            {
                "x": pa.array(X.tolist(), pa.list_(pa.list_(pa.float32()))),
                "y": Y,
                "name": NAMES.tolist(),
            }
        )
        pq.write_table(table, path, row_group_size=16, write_page_checksum=True)
    else:
        path = tmp_path / "data.npz"
        (np.savez if request.param == "npz" else np.savez_compressed)(path, x=X, y=Y, name=NAMES)
    return path


def collect(path, batches=None, **options):
    source = open_source(SourceSpec(file=path, **options), SPEC)
    batches = list(source.batches(**(batches or {})))
    return source, batches


@pytest.mark.parametrize("rows", [None, "0:50", "7:40", "3:50:5", "-10:", ":1"])
@pytest.mark.parametrize("size", [1, 8, 64])
def test_rows_and_batches(file, rows, size):
    source, batches = collect(file, rows=rows, batch_size=size)
    chosen = slice(*[int(p) if p else None for p in (rows or ":").split(":")])
    assert np.array_equal(torch.cat([b.data["x"] for b in batches]), X[chosen])
    assert np.concatenate([b.targets for b in batches]).tolist() == Y[chosen].tolist()
    assert [i for b in batches for i in b.ids] == NAMES[chosen].tolist()
    assert all(b.n == size for b in batches[:-1])
    assert (source.length, source.samples) == (len(batches), len(X[chosen]))


@pytest.mark.parametrize("skip, stride, offset", [(0, 2, 1), (3, 1, 0), (2, 3, 2), (99, 1, 0)])
def test_any_part_can_be_read_alone(file, skip, stride, offset):
    source, whole = collect(file, rows="1:48:2", batch_size=5)
    part = list(source.batches(skip=skip, stride=stride, offset=offset))
    wanted = [b for b in whole if b.index >= skip and b.index % stride == offset]
    assert [(b.index, b.start, b.ids) for b in part] == [(b.index, b.start, b.ids) for b in wanted]
    assert all(torch.equal(a.data["x"], b.data["x"]) for a, b in zip(part, wanted, strict=True))


def test_columns_are_renamed_and_the_file_is_recorded(file):
    spec = MaskingSpec(modalities={"m": "picture"}, target="label")
    source = open_source(
        SourceSpec(file=file.name, columns={"picture": "x", "label": "y"}),
        spec,
        directory=file.parent,
        batch_size=10,
    )
    batch = next(source.batches())
    assert set(batch.data) == {"picture", "label"} and batch.ids[:2] == ["0", "1"] and batch.n == 10
    assert batch.data["label"].dtype == torch.uint8
    (record,) = source.files
    assert (
        record.path == file.name and record.bytes == file.stat().st_size and record.role == "data"
    )
    assert file.name in source.description and "50 samples" in source.description


def test_a_model_that_changes_its_input_does_not_change_the_data(file):
    source, batches = collect(file)
    batches[0].data["x"].zero_()
    assert np.array_equal(next(source.batches()).data["x"], X)


def test_doubles_become_floats_with_a_note(tmp_path):
    np.savez(
        tmp_path / "d.npz",
        x=X.astype(np.float64),
        y=Y.astype(">i4"),
        name=NAMES,
        wide=Y.astype(np.uint16),
    )
    source, batches = collect(tmp_path / "d.npz")
    assert (
        batches[0].data["x"].dtype == torch.float32 and batches[0].data["wide"].dtype == torch.int32
    )
    assert batches[0].targets.tolist() == Y.tolist()
    assert [note.text for note in source.notes] == [
        "d.npz: array 'x' was changed from float64 to float32"
    ]


def test_every_flipped_byte_is_found_or_harmless(file):
    whole = file.read_bytes()
    generator = np.random.default_rng(0)
    caught = 0
    for at in generator.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(generator.integers(8))
        file.write_bytes(bytes(damaged))
        try:
            _, batches = collect(file, batch_size=16)
        except DataError as error:
            assert "\n" not in str(error)
            caught += 1
            continue
        assert np.array_equal(torch.cat([b.data["x"] for b in batches]), X), (
            "damage came through silently"
        )
        assert np.concatenate([b.targets for b in batches]).tolist() == Y.tolist()
    assert caught > 20


@pytest.mark.parametrize("length", [0, 10, 300])
def test_a_truncated_file(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError, match="damaged"):
        collect(file)


def test_bad_files(tmp_path, monkeypatch):
    def sentence(path, **options):
        with pytest.raises(DataError) as error:
            collect(path, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    path = tmp_path / "d.npz"
    assert "no such file" in sentence(path)
    np.savez(path, x=X, y=Y[:10], name=NAMES)
    assert "equal length" in sentence(path) and "y 10" in sentence(path)
    np.savez(path, x=np.array([{}, 1], dtype=object))
    assert "Python objects" in sentence(path)
    np.savez(path, x=X, y=Y, name=NAMES)
    assert "no array 'z'; it has x, y, name" in sentence(path, columns={"x": "z"})
    assert "select none of 50 rows" in sentence(path, rows="60:70")
    assert "must go forward" in sentence(path, rows="10:0:-1")
    np.savez(path, x=X[:0], y=Y[:0], name=NAMES[:0])
    assert "no samples" in sentence(path)
    np.savez(path, x=X, y=np.array(["2020-01-01"] * N, dtype="datetime64[D]"), name=NAMES)
    assert "datetime64" in sentence(path)
    np.savez_compressed(path, x=np.zeros((N, 1000), np.float32), y=Y, name=NAMES)
    monkeypatch.setattr(files_module, "_LARGEST_ARRAYS", 100_000)
    assert "at most 8 GiB" in sentence(path)


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_missing_lists_are_absent_samples(tmp_path):
    lists = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32()))
    path = write(tmp_path / "d.parquet", x=lists, y=[0, 1, 2], name=["a", "b", "c"])
    source, (batch,) = collect(path)
    assert batch.present["m"].tolist() == [True, False, True]
    assert batch.data["x"][[0, 2]].tolist() == [[1, 2], [3, 4]]
    assert any("NaN" in note.text for note in source.notes)
    _, parts = collect(path, batch_size=1)
    assert [b.present["m"].tolist() for b in parts] == [[True], [False], [True]]


@pytest.mark.parametrize("size", [None, 2])
def test_fixed_size_lists_and_dictionaries(tmp_path, size):
    kind = pa.list_(pa.int32()) if size is None else pa.list_(pa.int32(), size)
    names = pa.array(["a", "b"]).dictionary_encode()
    path = write(
        tmp_path / "d.parquet", x=pa.array([[1, 2], [3, 4]], kind), y=[True, False], name=names
    )
    _, (batch,) = collect(path)
    assert batch.data["x"].tolist() == [[1, 2], [3, 4]] and batch.data["x"].dtype == torch.int32
    assert batch.ids == ["a", "b"] and batch.targets.tolist() == [1, 0]


@pytest.mark.parametrize(
    "column, words",
    [
        (pa.array([[1.0], [1.0, 2.0]]), "lengths 1 to 2"),
        (pa.array([1, None]), "missing values"),
        (pa.array([[1], None]), "missing lists"),
        (pa.array([["a"], ["b"]]), "expected numbers"),
        (pa.array([{"a": 1}, {"a": 2}]), "struct"),
        (pa.array([b"a", b"b"]), "binary"),
    ],
)
def test_columns_that_are_no_arrays(tmp_path, column, words):
    path = write(tmp_path / "d.parquet", x=column, y=[0, 1], name=["a", "b"])
    with pytest.raises(DataError, match=words) as error:
        collect(path)
    assert "d.parquet: column 'x'" in str(error.value)


def test_a_parquet_file_is_not_held_in_memory(tmp_path):
    values = np.random.default_rng(0).random((100_000, 32), dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 32)
    write(tmp_path / "d.parquet", x=lists, y=np.arange(100_000) % 2)
    del lists
    source = open_source(tmp_path / "d.parquet", MaskingSpec(modalities={"m": "x"}, target="y"))
    before = pa.total_allocated_bytes()
    largest = max(pa.total_allocated_bytes() - before for _ in source.batches())
    assert largest < values.nbytes / 2


def test_a_table_of_pandas(tmp_path):
    frame = pd.DataFrame({"x": np.arange(4.0), "y": [0, 1, 0, 1], "name": list("abcd")})
    frame.to_parquet(tmp_path / "d.parquet")
    _, (batch,) = collect(tmp_path / "d.parquet", columns={"x": "x", "y": "y", "name": "name"})
    assert batch.data["x"].tolist() == [0, 1, 2, 3] and batch.targets.tolist() == [0, 1, 0, 1]
