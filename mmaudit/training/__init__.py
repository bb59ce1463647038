"""One training loop, which remedies build on; it records clean losses and can be resumed."""

from mmaudit.training.hooks import Hooks, Training
from mmaudit.training.loop import TrainingResult, TrainingStep, train
from mmaudit.training.losses import accuracy, cross_entropy
from mmaudit.training.recipe import Recipe
from mmaudit.training.recorder import Recorder, read_history

__all__ = [
    "Hooks",
    "Recipe",
    "Recorder",
    "Training",
    "TrainingResult",
    "TrainingStep",
    "accuracy",
    "cross_entropy",
    "read_history",
    "train",
]
