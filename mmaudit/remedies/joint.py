"""Plain joint training: the control that every remedy is compared with."""

from __future__ import annotations

from typing import get_args

from mmaudit.remedies.base import Remedy
from mmaudit.typing import TaskName

__all__ = ["Joint"]


class Joint(Remedy):
    """Joint training with the same budget, data order and seed as a remedy.

    What it changes:
        Nothing.

    When it helps:
        It shows what more training alone does; a remedy that is not better than this has not helped.

    Cost:
        None.

    Hyperparameters:
        None.

    Source:
        The baseline of every paper on the subject.

    Differences from the authors' code:
        None.
    """

    key = "joint"
    title = "joint training"
    needs_structure = False
    tasks = get_args(TaskName)
