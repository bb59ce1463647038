"""The shapes and names that everything else is written in, each stated once.

M modalities are the players, indexed in the order of the spec. A coalition S is the set of *present* modalities; everywhere
an axis of length ``2**M`` runs over coalitions, index ``c`` stands for the set ``{m : c >> m & 1}``: 0 is the empty
coalition, ``2**M - 1`` the grand one.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Coalition",
    "EmptyRule",
    "FloatArray",
    "GameValues",
    "IntArray",
    "OutputKind",
    "TaskName",
]

Coalition: TypeAlias = frozenset[str]
"""The names of the modalities that are present."""

FloatArray: TypeAlias = npt.NDArray[np.floating]
IntArray: TypeAlias = npt.NDArray[np.integer]

GameValues: TypeAlias = npt.NDArray[np.floating]
"""Worth of every coalition, shape ``(..., 2**M)``, the last axis in bit order (see above)."""

EmptyRule: TypeAlias = Literal["exact", "zero"]
"""What phi of the empty coalition is in a mono-modal response: its real value, or 0 as in AGM's released code."""

OutputKind: TypeAlias = Literal[
    "logits", "probabilities", "log_probabilities", "one_logit", "values"
]
"""What a model's outputs are; ``values`` are the predictions of a regression."""

TaskName: TypeAlias = Literal["multiclass", "binary", "segments", "multilabel", "regression"]
"""``segments``: classes for each of T segments of a sample; ``multilabel``: L yes-or-no labels for each sample."""
