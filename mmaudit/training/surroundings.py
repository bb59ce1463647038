"""What a training borrows from its caller and gives back: random states, train flags; and what one process has but one of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import nn

from mmaudit.exceptions import ModelError

__all__ = [
    "borrowed_random_states",
    "evaluation_mode",
    "kept_train_flags",
    "plain_accelerator",
    "seed_streams",
]


@contextmanager
def borrowed_random_states() -> Iterator[None]:
    """Give the states of the python, numpy and torch generators back as they came, also after an error."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def seed_streams(seed: int, epoch: int, rank: int) -> None:
    """Start the python, numpy and torch generators anew, from three numbers.

    Only inside :func:`borrowed_random_states`: dropout and a dataset's augmentations draw from the global generators.
    """
    set_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


@contextmanager
def kept_train_flags(model: nn.Module) -> Iterator[None]:
    """Give every module its own train flag back, also after an error."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has its own train flag again."""
    with kept_train_flags(model), torch.no_grad():
        model.eval()
        yield


def plain_accelerator(*, cpu: bool) -> Accelerator:
    """An accelerator in full precision, whose state is one for the whole process.

    Raises:
        ModelError: If the process has one with other settings already.
    """
    try:
        return Accelerator(
            cpu=cpu,
            mixed_precision="no",
            # A method may leave out parameters in some of its losses; the joint one may in a user's model, too.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError:
        raise ModelError(
            "this process has already trained with other settings of accelerate (as mixed precision); start this training in a process "
            "of its own, as mmaudit retrain does."
        ) from None
