"""Programs that hold a model without its Python code: TorchScript and ``torch.export``.

Hooks do not fire inside a TorchScript program, so that it is audited from its inputs alone. An exported program is unflattened
into modules, where they do, unless it was exported for one batch size: it is then fed in batches of that size, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.fixed_batch import in_batches
from mmaudit.checkpoint.model import OpaqueModel, with_parameters
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
        with_parameters(self, ScriptedModel._run, _script_parameters(program))

    @property
    def program(self) -> torch.jit.ScriptModule:
        """The program itself."""
        held: torch.jit.ScriptModule = self.__dict__["_held"]
        return held

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with _evaluated(self.program):
            return self.program(*args, **kwargs)

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
    return Program(ScriptedModel(program), (note,))


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
    if names is None:
        return Program(model, ())
    positional, keywords = names

    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        values = _by_name([*positional, *keywords], args, kwargs)
        return type(self).forward(
            self, *[values[n] for n in positional], **{n: values[n] for n in keywords}
        )

    with_parameters(model, run, dict.fromkeys([*positional, *keywords], True))
    size, batched = _fixed_batch(program, [*positional, *keywords])
    if size is None:
        return Program(model, ())
    note = (
        f"The program was exported for batches of {size}: samples are fed so, the last batch filled up, and its modules are not"
        " looked into; export it with dynamic_shapes to have that."
    )
    return Program(_FixedBatch(model, [*positional, *keywords], batched, size), (note,))


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
    inputs = set(program.graph_signature.user_inputs)
    values = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]
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
