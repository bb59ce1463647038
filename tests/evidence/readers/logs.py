"""Logs as tools write them, small."""

import json
import struct

import numpy as np
import pytest

EPOCHS = np.arange(6)
TRAIN = 2.0 - 0.2 * EPOCHS
VALIDATION = 2.1 - 0.1 * EPOCHS


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def csv_text(separator=",", line_end="\n"):
    rows = [["epoch", "train_loss", "val_loss"]]
    rows += [[str(e), f"{t:.4f}", f"{v:.4f}"] for e, t, v in zip(EPOCHS, TRAIN, VALIDATION)]
    return "".join(separator.join(row) + line_end for row in rows)


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def events(path, points, *, tensors=False, dtype=1, tail=b"", mutate=None):
    """An event file of (tag, step, value), simple values or tensors as TensorFlow 2 writes them."""
    proto = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    path.parent.mkdir(parents=True, exist_ok=True)
    out = [record(proto.Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())]
    for number, (tag, step, value) in enumerate(points):
        event = proto.Event(wall_time=2.0 + number, step=step)
        cell = event.summary.value.add(tag=tag)
        if tensors:
            cell.metadata.plugin_data.plugin_name = "scalars" if number == 0 else ""
            cell.tensor.dtype = dtype
            cell.tensor.tensor_shape.SetInParent()
            if dtype == 1:
                cell.tensor.tensor_content = struct.pack("<f", value)
            elif dtype == 2:
                cell.tensor.double_val.append(value)
            else:
                cell.tensor.int64_val.append(int(value))
        else:
            cell.simple_value = value
        out.append(record(event.SerializeToString()))
    data = b"".join(out) + tail
    path.write_bytes(mutate(data) if mutate else data)
    return path


def record(data):
    checksum = pytest.importorskip(
        "tensorboard.compat.tensorflow_stub.pywrap_tensorflow"
    ).masked_crc32c
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", checksum(head)) + data + struct.pack("<I", checksum(data))
