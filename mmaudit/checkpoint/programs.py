"""Programs that hold a model without its Python code: TorchScript and ``torch.export``.

Hooks do not fire inside a TorchScript program, so that it is audited from its inputs alone. An exported program is unflattened
into modules, where they do, unless it was exported for one batch size: it is then fed in batches of that size, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.fixed_batch import in_batches
from mmaudit.checkpoint.model import OpaqueModel, with_parameters
from mmaudit.checkpoint.precision import as_taken, as_wanted, own_dtype, spelled
from mmaudit.exceptions import ModelError

__all__ = ["Program", "ScriptedModel", "exported_model", "scripted_model"]


class Program(NamedTuple):
    """A model made of a program, and sentences for the record."""

    model: nn.Module
    notes: tuple[str, ...]


class ScriptedModel(OpaqueModel):
    """A TorchScript program as a model; it runs in evaluation mode and is left in the mode it came in.

    Args:
        program: What ``torch.jit.load``, ``script`` or ``trace`` gave.
    """

    def __init__(self, program: torch.jit.ScriptModule) -> None:
        super().__init__("a TorchScript program")
        # Not registered: a frozen program lacks attributes that every module is taken to have.
        self.__dict__["_held"] = program
        self.__dict__["_dtype"] = own_dtype(_tensors(program))
        with_parameters(self, ScriptedModel._run, _script_parameters(program))

    @property
    def program(self) -> torch.jit.ScriptModule:
        """The program itself."""
        held: torch.jit.ScriptModule = self.__dict__["_held"]
        return held

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        dtype = self.__dict__["_dtype"]
        with _evaluated(self.program):
            if dtype is None:
                return self.program(*args, **kwargs)
            return as_wanted(self.program(*as_taken(args, dtype), **as_taken(kwargs, dtype)))

    @property
    def original_name(self) -> str:
        """Name of the class that was compiled."""
        return str(getattr(self.program, "original_name", "program"))

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the program."""
        return iter(self.program.named_parameters(*args, **kwargs))

    def named_buffers(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        """Those of the program."""
        return iter(self.program.named_buffers(*args, **kwargs))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the program."""
        return self.program.state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScriptedModel:
        self.program._apply(fn)
        return self


def scripted_model(program: torch.jit.ScriptModule) -> Program:
    """A TorchScript program as a model, with what its record has to say."""
    note = "A TorchScript program runs no hooks: it is measured from its inputs and outputs alone."
    return Program(ScriptedModel(program), (note, *_own_type(own_dtype(_tensors(program)))))


def _own_type(dtype: torch.dtype | None) -> tuple[str, ...]:
    if dtype is None:
        return ()
    return (
        f"The program computes in {spelled(dtype)}, as it was compiled: inputs are converted to it, outputs to float32.",
    )


def _tensors(program: torch.jit.ScriptModule) -> list[Tensor]:
    """Parameters; of a frozen program, which has none, the constants that its code uses."""
    parameters: list[Tensor] = list(program.parameters())
    if parameters:
        return parameters
    try:
        graph = program.inlined_graph  # held on to: its nodes do not outlive it
        return [
            node.t("value")
            for node in graph.findAllNodes("prim::Constant")  # type: ignore[attr-defined]
            if node.hasAttribute("value") and node.kindOf("value") == "t" and node.t("value").dim()
        ]
    except RuntimeError:  # a program without a forward
        return []


class _FixedBatch(OpaqueModel):
    """An exported program that takes one batch size."""

    def __init__(self, program: nn.Module, names: list[str], batched: list[str], size: int) -> None:
        super().__init__(f"a program exported for batches of {size}")
        self.program, self.names, self.batched, self.size = program, names, batched, size
        with_parameters(self, _FixedBatch._run, dict.fromkeys(names, True))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        values = _by_name(self.names, args, kwargs)
        return in_batches(lambda part: self.program(**part), values, self.batched, self.size)


def exported_model(program: torch.export.ExportedProgram) -> Program:
    """An exported program as a model of modules.

    Args:
        program: What ``torch.export.load`` or ``torch.export.export`` gave.

    Returns:
        The unflattened program. Where all its inputs are plain tensors it takes them by position or name, whichever it was
        exported with; where it was exported for one batch size, any number of samples is fed in batches of that size.
    """
    model = torch.export.unflatten(program)
    names = _flat_names(program)
    own = own_dtype(model.parameters())
    if names is None:
        if own is not None:
            with_parameters(model, partial(_converted, own), {})
        return Program(model, _own_type(own))
    positional, keywords = names

    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        values = _by_name([*positional, *keywords], args, kwargs)
        values = {n: v if n not in taken else as_taken(v, taken[n]) for n, v in values.items()}
        made = type(self).forward(
            self, *[values[n] for n in positional], **{n: values[n] for n in keywords}
        )
        return made if own is None else as_wanted(made)

    taken = _taken(program, [*positional, *keywords])
    with_parameters(model, run, dict.fromkeys([*positional, *keywords], True))
    size, batched = _fixed_batch(program, [*positional, *keywords])
    if size is None:
        return Program(model, _own_type(own))
    note = (
        f"The program was exported for batches of {size}: samples are fed so, the last batch filled up, and its modules are not"
        " looked into; export it with dynamic_shapes to have that."
    )
    return Program(
        _FixedBatch(model, [*positional, *keywords], batched, size), (note, *_own_type(own))
    )


def _converted(dtype: torch.dtype, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    made = type(module).forward(module, *as_taken(args, dtype), **as_taken(kwargs, dtype))
    return as_wanted(made)


def _taken(program: torch.export.ExportedProgram, names: list[str]) -> dict[str, torch.dtype]:
    """The floating-point types that a program was exported with, input by input."""
    inputs = _inputs(program)
    if len(inputs) != len(names):
        return {}
    return {
        name: value.dtype
        for name, value in zip(names, inputs, strict=True)
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def _inputs(program: torch.export.ExportedProgram) -> list[Any]:
    """What a program was exported with, without the data."""
    inputs = set(program.graph_signature.user_inputs)
    return [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]


def _by_name(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    values = dict(zip(names, args, strict=False)) | kwargs
    if len(args) > len(names) or set(values) != set(names):
        raise ModelError(
            f"the program takes ({', '.join(names)}); say under 'call' which input goes where."
        )
    return values


def _flat_names(program: torch.export.ExportedProgram) -> tuple[list[str], list[str]] | None:
    """Names of the inputs by position and by keyword; nothing where an input is a container."""
    signature = program.module_call_graph[0].signature
    spec = program.call_spec.in_spec
    if signature is None or spec is None or spec.num_children != 2:
        return None
    args, kwargs = (spec.child(0), spec.child(1))
    names = list(getattr(signature, "forward_arg_names", None) or ())
    if args.num_children + kwargs.num_children != spec.num_leaves or len(names) != spec.num_leaves:
        return None
    return names[: args.num_children], names[args.num_children :]


def _fixed_batch(
    program: torch.export.ExportedProgram, names: list[str]
) -> tuple[int | None, list[str]]:
    """The batch size that a program takes and the inputs that have it; ``None`` where any will do."""
    values = _inputs(program)
    if len(values) != len(names):
        return None, []
    first = {
        name: value.shape[0]
        for name, value in zip(names, values, strict=True)
        if isinstance(value, Tensor) and value.dim()
    }
    if not first or not all(isinstance(size, int) for size in first.values()):
        return None, []
    sizes = list(first.values())
    size = max(set(sizes), key=sizes.count)
    return int(size), [name for name, own in first.items() if own == size]


def _script_parameters(program: torch.jit.ScriptModule) -> dict[str, bool]:
    try:
        arguments = program.forward.schema.arguments[1:]  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return {}
    return {argument.name: not argument.has_default_value() for argument in arguments}


@contextmanager
def _evaluated(program: torch.jit.ScriptModule) -> Iterator[None]:
    """Evaluation mode for one call; frozen programs have no mode."""
    training = [module for module in program.modules() if getattr(module, "training", False)]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
