"""Seeing, and exchanging, what the branches of a model tell each other through its cross-modal modules.

A branch is cut off from another one by holding what a cross-modal module sees of the other at the mean over training data: its
argument becomes a tensor that is constant over space, time or whatever it extends over. For a module that squeezes its arguments
(an MMTM: the mean over space of every channel) this is the same as replacing the squeeze by its training mean, as Wu et al. 2022
do; for any other module it is what comes closest without knowing it from the inside.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.exceptions import DataError, ModelError, SpecError
from mmaudit.masking.masked_batch import batch_dimension
from mmaudit.masking.paths import get_value, with_values
from mmaudit.masking.spec import BranchesSpec

__all__ = ["CrossModal", "Key", "Layout", "Squeezes", "Visit"]


class Key(NamedTuple):
    """One argument of one call of a cross-modal module."""

    module: str
    call: int
    """Running number among the module's calls in one forward."""
    modality: str


Visit = Callable[[Key, Tensor], Tensor]
"""Gets the features that a cross-modal module is about to see, and says what it is to see instead."""


class Layout(NamedTuple):
    """What the dimensions of features mean; the squeeze averages over all but these two.

    Example:
        >>> layout = Layout(samples=0, channels=1)
        >>> layout.squeeze(torch.arange(8.0).reshape(1, 2, 2, 2))
        tensor([[1.5000, 5.5000]], dtype=torch.float64)
    """

    samples: int
    channels: int | None
    """``None`` where there is one number per sample."""

    @classmethod
    def of(cls, tensor: Tensor, n: int, *, last: bool = False) -> Layout:
        """Of features of n samples: channels come next to the samples, or last."""
        # Frames laid one after another (n * T rows) are samples, even where there are n channels.
        rows = tensor.dim() > 0 and tensor.shape[0] % n == 0
        samples = 0 if rows else batch_dimension(tensor, n) or 0
        others = [d for d in range(tensor.dim()) if d != samples]
        return cls(samples, (others[-1] if last else others[0]) if others else None)

    def squeeze(self, tensor: Tensor) -> Tensor:
        """Mean of every channel, float64 ``(rows, channels)``, on the CPU."""
        tensor = tensor.detach()
        wide = (
            tensor.cpu() if tensor.device.type == "mps" else tensor
        ).double()  # mps has no float64
        others = [d for d in range(wide.dim()) if d not in (self.samples, self.channels)]
        vectors = wide.mean(others) if others else wide
        if self.channels is None:
            return vectors.unsqueeze(1).cpu()
        return (vectors if self.samples < self.channels else vectors.T).cpu()

    def spread(self, vector: Tensor, like: Tensor) -> Tensor:
        """A tensor of the given shape and type that holds one value ``(channels,)`` for every channel."""
        shape = [1] * like.dim()
        if self.channels is not None:
            shape[self.channels] = -1
        # Contiguous: a module may write into its arguments.
        return vector.to(like).view(shape).expand_as(like).contiguous()

    def centred(self, tensor: Tensor, vector: Tensor) -> Tensor:
        """The same features, shifted so that every sample's mean of every channel is the given one."""
        dims = [d for d in range(tensor.dim()) if d not in (self.samples, self.channels)]
        own = tensor.mean(dims, keepdim=True) if dims else tensor
        return tensor - own + self.spread(vector, tensor)


class Squeezes:
    """Means of squeezes over samples, streamed in float64."""

    def __init__(self) -> None:
        self._sums: dict[Key, Tensor] = {}
        self._counts: dict[Key, int] = {}
        self.left_out = 0
        """Rows that were not finite."""

    def __contains__(self, key: Key) -> bool:
        return self._counts.get(key, 0) > 0

    def add(self, key: Key, squeezes: Tensor) -> None:
        """Add rows.

        Args:
            key: Where they were seen.
            squeezes: Shape ``(rows, channels)``, float64.

        Raises:
            ModelError: If the number of channels is another one than before.
        """
        finite = torch.isfinite(squeezes).all(1)
        self.left_out += int((~finite).sum())
        total = squeezes[finite].sum(0)
        known = self._sums.get(key)
        if known is not None and known.shape != total.shape:
            raise ModelError(
                f"the features of {key.modality} that module '{key.module}' gets have {len(total)} channels after {len(known)} in "
                "another batch: expected features (samples, channels, ...) or (samples, ..., channels) with a fixed number of channels."
            )
        self._sums[key] = total if known is None else known + total
        self._counts[key] = self._counts.get(key, 0) + int(finite.sum())

    def mean(self, key: Key) -> Tensor:
        """Training mean of a squeeze, float64 ``(channels,)``.

        Raises:
            ModelError: If this call was never seen.
        """
        if key not in self:
            raise ModelError(
                f"module '{key.module}' got finite features of {key.modality} at call {key.call + 1} of a forward on the audited "
                "data, and never on the data that squeezes are averaged over: expected models that call it alike for every batch."
            )
        return self._sums[key] / self._counts[key]


class CrossModal:
    """The cross-modal modules of a model.

    Args:
        model: The audited model.
        spec: Which modules, and which argument belongs to which modality.

    Raises:
        SpecError: If the model has no such module.
    """

    def __init__(self, model: Any, spec: BranchesSpec) -> None:
        if not isinstance(model, nn.Module):
            raise SpecError(
                f"branches can be cut in a torch module only; the model is a {type(model).__name__}."
            )
        known = dict(model.named_modules(remove_duplicate=False))
        for name in spec.modules:
            if not name or name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise SpecError(f"branches.modules: the model has no module '{name}'{hint}")
        self._modules = {name: known[name] for name in spec.modules}
        self._places = spec.modules

    @contextmanager
    def visited(self, visit: Visit) -> Iterator[None]:
        """Let ``visit`` see, and exchange, every argument of every call within.

        Raises:
            SpecError: Afterwards, if a module was not called; within, if it was called without an argument that the spec names.
        """
        counts: dict[str, int] = dict.fromkeys(self._modules, 0)

        def handle(
            name: str,
            forward: Callable[..., Any],
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
        ) -> Any:
            number = counts[name]
            counts[name] += 1
            bound = _Arguments(name, forward, args, kwargs)
            for modality, path in self._places[name].items():
                features = bound.get(path)
                if features is None:  # a modality that is left out of the call
                    continue
                if not isinstance(features, Tensor) or not features.is_floating_point():
                    found = getattr(features, "dtype", type(features).__name__)
                    raise SpecError(
                        f"branches.modules: argument '{path}' of module '{name}' is a {found}; expected a tensor of features of {modality}."
                    )
                seen = visit(Key(name, number, modality), features)
                if seen is not features:
                    bound.put(path, seen)
            return forward(*bound.args, **bound.kwargs)

        with intercepted(self._modules, handle):
            yield
        never = [name for name, count in counts.items() if not count]
        if never:
            raise SpecError(
                f"branches.modules: module '{never[0]}' was not called in the model's forward (scripted modules cannot be watched): "
                "name a module whose forward gets the features of several branches."
            )


class _Arguments:
    """Arguments of one call, by position or by name, however they were handed over."""

    def __init__(
        self,
        module: str,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._module = module
        self._names = _parameter_names(forward)
        self.args, self.kwargs = list(args), dict(kwargs)

    def get(self, path: str) -> Any:
        container, key, rest = self._find(path)
        value = container[key]
        if value is None or not rest:
            return value
        try:
            return get_value(value, rest)
        except DataError as error:
            raise SpecError(
                f"branches.modules: argument '{path}' of module '{self._module}': {error}"
            ) from None

    def put(self, path: str, value: Any) -> None:
        container, key, rest = self._find(path)
        container[key] = with_values(container[key], {rest: value}) if rest else value

    def _find(self, path: str) -> tuple[Any, Any, str]:
        first, _, rest = path.partition(".")
        if first.isdecimal():
            position = int(first)
            if position < len(self.args):
                return self.args, position, rest
            first = self._names[position] if position < len(self._names) else first
        if first in self.kwargs:
            return self.kwargs, first, rest
        if first in self._names and self._names.index(first) < len(self.args):
            return self.args, self._names.index(first), rest
        names = ", ".join(self.kwargs)
        raise SpecError(
            f"branches.modules: module '{self._module}' was called with {len(self.args)} positional arguments"
            f"{' and ' + names if names else ''}; there is no '{path}' among them."
        )


def _parameter_names(forward: Callable[..., Any]) -> list[str]:
    """Names of the parameters that can be given by position, in order."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
