"""Which of the names in a pickle a person should see first: those that would run code before those that every model has.

The order decides nothing: whether a file is refused depends on :func:`is_weight_global` alone, and on trust.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

import torch

from mmaudit.checkpoint.pickled_names import HIDDEN, UNREAD
from mmaudit.checkpoint.wording import listed

__all__ = ["is_weight_global", "told"]

_CONTAINERS = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.set",
        "builtins.complex",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
    }
)
_QUANTIZATION = frozenset(
    {
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.per_channel_affine",
        "torch.per_channel_symmetric",
        "torch.per_channel_affine_float_qparams",
    }
)
_DATA = re.compile(
    r"collections\.(OrderedDict|Counter|defaultdict|deque)"
    r"|builtins\.(dict|list|set|frozenset|tuple|int|float|bool|str|bytes|bytearray|complex|object|slice|range)"
    r"|copyreg\._reconstructor|_codecs\.encode|argparse\.Namespace|types\.SimpleNamespace|functools\.partial"
    r"|pathlib(\._local)?\.\w*Path|datetime\.(datetime|date|time|timedelta|timezone)"
    r"|decimal\.Decimal|fractions\.Fraction|uuid\.UUID"
    r"|numpy\.(dtype|ndarray|bool_?|str_|u?int\d+|float\d+|complex\d+|dtypes\.\w+)"
    r"|numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
)
_LIBRARY = re.compile(
    r"torch\.(nn|optim|ao)(\.[a-z_][a-z0-9_]*)*\.[A-Z]\w*|torch\.nn\.functional\.\w+"
)
_MOST_ALARMING = 8
_LEGIBLE = 20


def is_weight_global(name: str) -> bool:
    """Whether files of weights need a name, so that it is no reason to refuse one.

    Example:
        >>> is_weight_global("torch._utils._rebuild_tensor_v2"), is_weight_global("posix.system")
        (True, False)
    """
    if name in _CONTAINERS or name in _QUANTIZATION:
        return True
    module, _, attribute = name.rpartition(".")
    if module == "torch":
        return attribute.endswith("Storage") or isinstance(
            getattr(torch, attribute, None), torch.dtype
        )
    if module == "torch._utils":
        return (
            attribute.startswith("_rebuild_")
            and "numpy" not in attribute
            and "cpu_tensor" not in attribute
        )
    return False


def told(names: Iterable[str], most: int = 2, room: int = 120) -> str:
    """The names of a pickle for one line of a message, without those of every file of weights.

    First comes what would run code: functions of Python's own library, of torch and of NumPy, and what cannot be known. All of it
    is told, up to eight names, however many others there are. Names of other libraries follow, layers and plain data are last.

    Args:
        names: Dotted names, as from :func:`~mmaudit.checkpoint.pickled_names.names_in_pickle`.
        most: How many to tell where nothing would run code.
        room: Characters, about.

    Returns:
        The names with how many more there are; empty where there is nothing to tell.

    Example:
        >>> told(["torch.FloatStorage", "torch.nn.modules.linear.Linear", "net.Net", "posix.system"])
        'posix.system, net.Net (+1)'
    """
    ranked = sorted(
        (name for name in dict.fromkeys(names) if not is_weight_global(name)), key=_rank
    )
    alarming = sum(_rank(name) == 0 for name in ranked)
    count = max(most, min(alarming, _MOST_ALARMING))
    return listed(ranked, count, max(room, _LEGIBLE * min(count, len(ranked))))


def _rank(name: str) -> int:
    """0 for what would run code or hides what it is, 1 for what is not known, 2 for plain data and torch's layers."""
    if name in (HIDDEN, UNREAD):
        return 0
    parts = name.split(".")
    if _DATA.fullmatch(name):
        return 2
    # A dotted name can lead through an imported module: torch.nn.modules.module.os.system.
    if parts[0] in sys.stdlib_module_names or not sys.stdlib_module_names.isdisjoint(parts[1:-1]):
        return 0
    if _LIBRARY.fullmatch(name):
        return 2
    return 0 if parts[0] in ("torch", "numpy") and not parts[-1][:1].isupper() else 1
