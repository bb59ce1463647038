"""Calling a model as the spec says, and finding its class scores in what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.paths import find_value, get_value, tensor_paths, with_values
from mmaudit.masking.spec import CallSpec, MaskingSpec

__all__ = ["Caller"]


class Caller:
    """Binds a model to a spec: batch in, output tensor out.

    Without ``call`` in the spec, inputs go to the parameters of ``forward`` that bear their names (or their modality's name);
    failing that, a ``forward`` with one parameter gets a mapping whole, and any other gets the inputs in order.

    Args:
        model: Module or any callable.
        spec: How it is called and where its outputs are.
    """

    def __init__(self, model: Callable[..., Any], spec: MaskingSpec) -> None:
        self.model = model
        self._spec = spec
        self._inputs = [
            (modality, name, path)
            for modality, part in spec.modalities.items()
            for name, path in part.inputs.items()
        ]
        # Read once: while modules are watched, the instance's forward is something else.
        self._parameters = _parameters(model)

    def __call__(self, batch: Any) -> Tensor:
        """Run the model on a batch.

        Returns:
            The tensor at ``outputs.path``, as the model gives it.

        Raises:
            ModelError: If the outputs are not where the spec says.
        """
        args, kwargs = self.arguments(batch)
        return self._select(self.model(*args, **kwargs))

    def paths(self, batch: Any) -> tuple[str, ...]:
        """Paths of the batch that reach the model; ``batch`` alone where it gets the whole of it."""
        args, kwargs = self._plan(batch)
        return (*args, *kwargs.values())

    def call_spec(self, batch: Any) -> CallSpec:
        """How the model is called with batches such as this one, written out.

        Raises:
            ModelError: If the spec has to say it.
        """
        args, kwargs = self._plan(batch)
        return CallSpec(args=args, kwargs=kwargs)

    def arguments(self, batch: Any) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for one batch."""
        args, kwargs = self._plan(batch)
        inputs = {path for _, _, path in self._inputs}

        def look(path: str) -> Any:
            # A modality may be missing from a batch; everything else that the call names has to be there.
            return find_value(batch, path) if path in inputs else get_value(batch, path)

        return [_fresh(look(path)) for path in args], {
            name: _fresh(look(path)) for name, path in kwargs.items()
        }

    def _plan(self, batch: Any) -> tuple[tuple[str, ...], dict[str, str]]:
        call = self._spec.call
        if call is not None:
            return call.args, dict(call.kwargs)
        paths = [path for _, _, path in self._inputs]
        if self._parameters is None:
            return tuple(paths), {}
        names, required, takes_any = self._parameters
        by_input = [name for _, name, _ in self._inputs]
        by_modality = [modality for modality, _, _ in self._inputs]
        for labels in (by_input, by_modality):
            if (
                len(set(labels)) == len(labels)
                and set(labels) <= set(names)
                and required <= set(labels)
            ):
                return (), dict(zip(labels, paths, strict=True))
        if len(names) == 1 and not takes_any and (len(paths) > 1 or isinstance(batch, Mapping)):
            if isinstance(batch, Mapping):
                return ("batch",), {}
            raise ModelError(
                f"forward takes one argument '{names[0]}', but the spec has {len(paths)} inputs: say how to call it, e.g. call: {{args: [batch]}}."
            )
        if not takes_any and not len(required) <= len(paths) <= len(names):
            raise ModelError(
                f"forward takes ({', '.join(names)}), the spec has inputs ({', '.join(by_input)}): say how to call it under 'call'."
            )
        return tuple(paths), {}

    def _select(self, returned: Any) -> Tensor:
        path, branches = self._spec.outputs.path, self._spec.branches
        if path is None and branches is not None and not isinstance(returned, Tensor):
            return _mean_of_branches(returned, branches.outputs)
        if path is not None:
            try:
                returned = get_value(returned, path)
            except DataError as error:
                raise ModelError(
                    f"outputs.path '{path}' is not in what the model returns: {error}"
                ) from None
        if isinstance(returned, Tensor):
            return returned
        found = f"a {type(returned).__name__}"
        if isinstance(returned, Mapping):
            found += f" with {', '.join(map(str, list(returned)[:8]))}"
        elif isinstance(returned, (tuple, list)):
            found += f" of {len(returned)}"
        raise ModelError(
            f"the model returned {found}, not a tensor: say under outputs.path where the class scores are."
        )


def _mean_of_branches(returned: Any, paths: Mapping[str, str]) -> Tensor:
    """Prediction of a model that returns its branches alone: the mean of their scores (Wu et al. 2022)."""
    try:
        scores = [get_value(returned, path) for path in paths.values()]
    except DataError as error:
        raise ModelError(f"branches.outputs: {error}") from None
    return torch.stack(scores).mean(0)


def _parameters(model: Callable[..., Any]) -> tuple[list[str], set[str], bool] | None:
    """Names of what ``forward`` takes, those without default, and whether it takes any number of them."""
    try:
        parameters = list(
            inspect.signature(
                model.forward if isinstance(model, nn.Module) else model
            ).parameters.values()
        )
    except (TypeError, ValueError):
        return None
    named = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)
    ]
    takes_any = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    return [p.name for p in named], {p.name for p in named if p.default is p.empty}, takes_any


def _fresh(value: Any) -> Any:
    """A container of its own for every call, so that a model that pops from its batch does not empty the user's."""
    return (
        value
        if value is None or isinstance(value, Tensor)
        else with_values(value, tensor_paths(value))
    )
