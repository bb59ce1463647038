"""The Python file beside converted weights: ``build()`` calls what is known to build the model, or says what to fill in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmaudit.checkpoint.rebuilding import rebuilding
from mmaudit.checkpoint.wording import listed, shown

__all__ = [
    "SETTINGS",
    "Stub",
    "calling_factory",
    "calling_transformers",
    "for_module",
    "to_fill_in",
]

SETTINGS = "settings.json"
"""The configuration of a transformers class, beside its stub."""

_HEAD = '"""Builds the model whose weights lie beside this file. Written by mmaudit convert."""\n\n'


class Stub(NamedTuple):
    """A file that has a ``build()``.

    Attributes:
        text: Of the file.
        ready: Whether ``build()`` returns the model.
        says: What it does, in words that follow ``build()``.
    """

    text: str
    ready: bool
    says: str


def calling_factory(reference: str, args: Mapping[str, Any], home: Path, out: Path) -> Stub:
    """A stub that calls the user's own factory.

    Args:
        reference: ``package.module:callable``.
        args: Its keyword arguments.
        home: The folder it is imported from.
        out: Where the stub is going to lie.
    """
    text = (
        f"{_HEAD}from pathlib import Path\n\n"
        "from mmaudit.checkpoint.importing import import_callable\n\n"
        f"_HOME = {_relative(home, out)}\n\n\n"
        f"def build():\n    return import_callable({reference!r}, _HOME)(**{dict(args)!r})\n"
    )
    return Stub(text, True, f"calls {shown(reference)}")


def calling_transformers(kind: type[nn.Module], config: type) -> Stub:
    """A stub that builds a class of transformers from :data:`SETTINGS`."""
    names = sorted({kind.__name__, config.__name__})
    text = (
        f"{_HEAD}import json\nfrom pathlib import Path\n\n"
        f"from transformers import {', '.join(names)}\n\n\n"
        f"def build():\n    settings = json.loads((Path(__file__).parent / {SETTINGS!r}).read_text())\n"
        f"    return {kind.__name__}({config.__name__}(**settings))\n"
    )
    return Stub(text, True, f"builds transformers' {kind.__name__} from {SETTINGS}")


def for_module(model: nn.Module, tensors: Mapping[str, Tensor], home: Path, out: Path) -> Stub:
    """A stub that builds a module of the same class, or says what to fill in.

    Args:
        model: The module, as it was unpickled.
        tensors: Its weights.
        home: The folder its classes are imported from.
        out: Where the stub is going to lie.
    """
    call, differs = rebuilding(model)
    kind = type(model)
    if call is None or any(c.__module__ == "__main__" for c in call.classes.values()):
        what = f"call {shown(f'{kind.__module__}.{kind.__qualname__}', 60)} with the arguments it was built with"
        if differs:
            what += f" and set what was changed later (its {shown(differs, 60)} is not what the call gives)"
        return to_fill_in(what, tensors)
    lines = [f"{_HEAD}from collections import OrderedDict\nfrom pathlib import Path\n\n"]
    lines += [
        "from torch import nn\n\nfrom mmaudit.checkpoint.importing import import_callable\n\n"
    ]
    lines += [f"_HOME = {_relative(home, out)}\n\n\ndef build():\n"]
    for name, used in call.classes.items():
        reference = f"{used.__module__}:{used.__qualname__}"
        lines.append(f"    {name} = import_callable({reference!r}, _HOME)\n")
    lines.append(f"    return {call.expression}\n")
    text = "".join(lines)
    if "OrderedDict(" not in call.expression:
        text = text.replace("from collections import OrderedDict\n", "")
    if "nn." not in call.expression:
        text = text.replace("from torch import nn\n\n", "")
    return Stub(text, True, f"returns {shown(call.expression, 160)}")


def to_fill_in(what: str, tensors: Mapping[str, Tensor]) -> Stub:
    """A stub that raises one sentence.

    Args:
        what: What ``build()`` has to do, as an order.
        tensors: The weights, for the sentence.
    """
    first = next(iter(tensors), "")
    size = tuple(tensors[first].shape) if first else ()
    sentence = f"fill in build(): {what} ({len(tensors)} keys, such as {shown(first, 40)} {size})"
    text = f"{_HEAD}\ndef build():\n    raise NotImplementedError(\n        {sentence!r}\n    )\n"
    return Stub(text, False, f"has to be filled in: {what}")


def describe_keys(tensors: Mapping[str, Tensor]) -> str:
    """The parts of a model that its keys name."""
    parts = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
    return listed(parts, 5, 60)


def settings_text(settings: Mapping[str, Any]) -> str:
    """A configuration as the text of :data:`SETTINGS`."""
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def _relative(home: Path, out: Path) -> str:
    """An expression for a folder as seen from the stub; absolute where that would be a long way up."""
    try:
        seen = os.path.relpath(home.resolve(), out.resolve())
    except ValueError:  # another drive
        return f"Path({str(home.resolve())!r})"
    if Path(seen).parts[:4] == (os.pardir,) * 4:
        return f"Path({str(home.resolve())!r})"
    return f"Path(__file__).parent / {seen!r}"
