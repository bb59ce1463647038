"""An ONNX model as something that an audit can call: forward only, its inputs by name, tensors in and out.

What is inside is a graph and no module: no hooks, no gradients, no parameters. It is measured from its inputs and outputs,
every coalition in a pass of its own.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmaudit.checkpoint.fixed_batch import in_batches
from mmaudit.checkpoint.model import OpaqueModel, with_parameters
from mmaudit.checkpoint.onnx_file import private_copy
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError, ModelError
from mmaudit.report.schema import FileRecord

__all__ = ["OnnxModel", "OpenedOnnx", "open_onnx"]

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(int8)": torch.int8,
    "tensor(int16)": torch.int16,
    "tensor(int32)": torch.int32,
    "tensor(int64)": torch.int64,
    "tensor(uint8)": torch.uint8,
    "tensor(uint16)": torch.uint16,
    "tensor(uint32)": torch.uint32,
    "tensor(uint64)": torch.uint64,
    "tensor(bool)": torch.bool,
}
_TEXT = "tensor(string)"


class OpenedOnnx(NamedTuple):
    """A model, and what the record says about it."""

    model: OnnxModel
    format: str
    files: tuple[FileRecord, ...]
    notes: tuple[str, ...]


class OnnxModel(OpaqueModel):
    """A session of onnxruntime as a model.

    Inputs are given in the graph's order or by name; characters of a name that Python does not allow may be written ``_``. A
    graph with one output returns that tensor, one with several a mapping of name to tensor. A graph that takes one batch
    size only gets samples in batches of that size, the last filled up.

    Args:
        session: An ``onnxruntime.InferenceSession``.
        names_outputs: Return a mapping even of one output.

    Raises:
        CheckpointError: If an input or every output is of a type that is no tensor of numbers, truth values or text.
    """

    def __init__(self, session: Any, *, names_outputs: bool = False) -> None:
        super().__init__("an ONNX model")
        self.session = session
        self.inputs = {node.name: node for node in session.get_inputs()}
        odd = [
            f"{node.name} {node.type}"
            for node in self.inputs.values()
            if node.type not in _DTYPES and node.type != _TEXT
        ]
        if odd:
            raise CheckpointError(
                f"the ONNX model takes inputs that are no tensors of an ordinary type ({listed(odd, 3)}); export it with others."
            )
        self.outputs = [node.name for node in session.get_outputs() if node.type in _DTYPES]
        if not self.outputs:
            kinds = [f"{node.name} {node.type}" for node in session.get_outputs()]
            raise CheckpointError(
                f"the ONNX model returns no tensor of numbers ({listed(kinds, 3)}); export it with its scores."
            )
        self.names_outputs = names_outputs or len(self.outputs) > 1
        self.batch, self.batched = _fixed_batch(self.inputs)
        self._python_names = _python_names(list(self.inputs))
        with_parameters(self, OnnxModel._run, dict.fromkeys(self._python_names.values(), True))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        values = self._values(args, kwargs)
        device = next(
            (v.device for v in values.values() if isinstance(v, Tensor)), torch.device("cpu")
        )
        arrays = {name: self._array(name, value) for name, value in values.items()}
        if self.batch is None:
            found = self._call(arrays)
        else:
            found = in_batches(self._call, arrays, self.batched, self.batch)
        tensors = {name: tensor.to(device) for name, tensor in found.items()}
        return tensors if self.names_outputs else tensors[self.outputs[0]]

    def _values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        known = {python: name for name, python in self._python_names.items()}
        values = dict(zip(self.inputs, args, strict=False))
        values |= {known.get(key, key): value for key, value in kwargs.items()}
        if len(args) > len(self.inputs) or set(values) != set(self.inputs):
            raise ModelError(
                f"the ONNX model takes ({listed(self.inputs, 12, 300)}); say under 'call' which input goes where."
            )
        return {name: values[name] for name in self.inputs}

    def _array(self, name: str, value: Any) -> Any:
        """An input as the runtime takes it."""
        kind = self.inputs[name].type
        if kind == _TEXT:
            return np.asarray(value, dtype=object)
        if value is None:
            raise ModelError(
                f"the ONNX model cannot do without its input '{shown(name, 40)}'; use another mask than 'drop'."
            )
        tensor = torch.as_tensor(value).detach().cpu()
        wanted = _DTYPES[kind]
        if tensor.dtype != wanted:
            lossless = torch.can_cast(tensor.dtype, wanted)
            cast = tensor.to(wanted)
            if not lossless or not (
                wanted.is_floating_point or torch.equal(cast.to(tensor.dtype), tensor)
            ):
                raise ModelError(
                    f"the ONNX model takes '{shown(name, 40)}' as {_word(wanted)}, and the data give {_word(tensor.dtype)};"
                    " give it in that type."
                )
            tensor = cast
        rank = self.inputs[name].shape
        if rank and tensor.dim() != len(rank):
            raise ModelError(
                f"the ONNX model takes '{shown(name, 40)}' with {len(rank)} dimensions {_shape(rank)}, and the data give"
                f" {tuple(tensor.shape)}; check which input goes where."
            )
        return tensor.contiguous().numpy()

    def _call(self, arrays: dict[str, Any]) -> dict[str, Tensor]:
        try:
            found = self.session.run(self.outputs, arrays)
        except Exception as error:
            reason = shown(" ".join(str(error).split()), 200).rstrip(".")
            raise ModelError(
                f"onnxruntime cannot run the model on this batch ({reason}); check the shapes of its inputs."
            ) from error
        # A copy: the runtime may use its memory again.
        return {
            name: torch.from_numpy(np.array(array))
            for name, array in zip(self.outputs, found, strict=True)
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModel:
        return OnnxModel(self.session, names_outputs=self.names_outputs)


def open_onnx(path: Path) -> OpenedOnnx:
    """Check an ONNX file and start a session of onnxruntime on the CPU.

    Args:
        path: The file; data beside it is copied to a private folder for as long as the session takes to start.

    Raises:
        CheckpointError: If the extra is not installed, or the file is refused (:func:`~mmaudit.checkpoint.onnx_file.private_copy`)
            or cannot be run by the installed version.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(
            f"{shown(path)} is an ONNX model, which needs onnxruntime: pip install 'mmaudit[onnx]'."
        ) from error
    try:
        import onnx  # noqa: F401  asked for before anything is done
    except ImportError as error:
        raise CheckpointError(
            f"{shown(path)} is an ONNX model, which is checked with the package onnx: pip install 'mmaudit[onnx]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    with tempfile.TemporaryDirectory(prefix="mmaudit-", ignore_cleanup_errors=True) as folder:
        copy = private_copy(path, Path(folder))
        try:
            session = onnxruntime.InferenceSession(
                str(copy.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = shown(" ".join(str(error).split()), 160).rstrip(".")
            raise CheckpointError(
                f"{shown(path)} cannot be run by onnxruntime {onnxruntime.__version__} ({reason}); export it for this version."
            ) from error
    model = OnnxModel(session)
    notes = ["An ONNX model is measured from its inputs and outputs alone, on the CPU."]
    if model.batch is not None:
        notes.append(
            f"The ONNX model takes batches of {model.batch}: samples are fed so, the last batch filled up."
        )
    left = [node.name for node in session.get_outputs() if node.name not in model.outputs]
    if left:
        notes.append(f"Outputs of the ONNX model that are no numbers were left: {listed(left, 3)}.")
    by = f", written by {copy.producer}" if copy.producer else ""
    words = f"ONNX, opset {copy.opset}{by}, onnxruntime {onnxruntime.__version__}"
    return OpenedOnnx(model, words, copy.records, tuple(notes))


def _fixed_batch(inputs: Mapping[str, Any]) -> tuple[int | None, list[str]]:
    """The one batch size that a graph takes and the inputs that have it; ``None`` where any will do."""
    first = {name: node.shape[0] for name, node in inputs.items() if node.shape}
    if not first or not all(isinstance(size, int) for size in first.values()):
        return None, []
    sizes = list(first.values())
    size = max(set(sizes), key=sizes.count)
    return size, [name for name, own in first.items() if own == size]


def _python_names(names: list[str]) -> dict[str, str]:
    """Names that Python allows, where that leaves them distinct."""
    python = {name: re.sub(r"\W|^(?=\d)", "_", name) for name in names}
    return python if len(set(python.values())) == len(names) else {name: name for name in names}


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(shape: list[Any]) -> str:
    return shown(f"({', '.join('?' if not isinstance(d, int) else str(d) for d in shape)})", 60)
