"""ONNX models made by hand, so that what they compute is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIX = {
    "audio.mel": (TensorProto.FLOAT, 3),
    "video": (TensorProto.FLOAT16, 2),
    "token_ids": (TensorProto.INT64, 4),
    "mask": (TensorProto.BOOL, 4),
    "age": (TensorProto.DOUBLE, 1),
    "site": (TensorProto.INT32, 1),
}
"""Inputs of :func:`six_inputs`: name -> type, width."""


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def model_of(nodes, inputs, outputs, initializers=(), *, opset=17, **options) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="tests", **options
    )
    model.ir_version = 9
    return model


def linear(batch: int | str = "n", *, weight: np.ndarray | None = None) -> onnx.ModelProto:
    """``scores = x W + b`` with ``W`` of ``(3, 2)``."""
    weight = np.arange(6, dtype=np.float32).reshape(3, 2) if weight is None else weight
    return model_of(
        [
            helper.make_node("MatMul", ["x", "W"], ["xW"]),
            helper.make_node("Add", ["xW", "b"], ["scores"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 2])],
        [
            numpy_helper.from_array(weight, "W"),
            numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "b"),
        ],
    )


def six_inputs(batch: int | str = "n") -> onnx.ModelProto:
    """Two class scores: the sum of everything with weights 1 to 6, and its negative; also the sum alone, and text."""
    nodes, parts = [], []
    for number, (name, (kind, _)) in enumerate(SIX.items()):
        key = f"i{number}"
        nodes.append(helper.make_node("Cast", [name], [f"{key}f"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceSum", [f"{key}f", "last"], [f"{key}s"], keepdims=1))
        nodes.append(helper.make_node("Mul", [f"{key}s", f"w{number}"], [f"{key}w"]))
        parts.append(f"{key}w")
    nodes += [
        helper.make_node("Sum", parts, ["total"]),
        helper.make_node("Neg", ["total"], ["minus"]),
        helper.make_node("Concat", ["total", "minus"], ["logits"], axis=1),
        helper.make_node("Cast", ["total"], ["words"], to=TensorProto.STRING),
    ]
    weights = [
        numpy_helper.from_array(np.array(number + 1.0, np.float32), f"w{number}")
        for number in range(len(SIX))
    ]
    return model_of(
        nodes,
        [
            helper.make_tensor_value_info(name, kind, [batch, width])
            for name, (kind, width) in SIX.items()
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [batch, 1]),
            helper.make_tensor_value_info("words", TensorProto.STRING, [batch, 1]),
        ],
        [numpy_helper.from_array(np.array([1], np.int64), "last"), *weights],
    )


def external(
    location: str, *, offset: int = 0, length: int | None = 24, more=()
) -> onnx.ModelProto:
    """:func:`linear` whose ``W`` lies in another file."""
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)}
    if length is not None:
        entries["length"] = str(length)
    for key, value in [*entries.items(), *more]:
        tensor.external_data.add(key=key, value=value)
    return model


WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2) * 10
"""What the external file of :func:`external` holds."""
