"""What a training borrows from its caller and gives back: random states, train flags, the model's device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import nn

__all__ = ["borrowed_random_states", "evaluation_mode", "kept_train_flags", "seed_streams"]


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
