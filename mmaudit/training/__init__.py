"""One training loop, which remedies build on; it records clean losses and can be resumed.

:class:`LossRecorder` records them within anybody else's loop.
"""

from mmaudit.training.callbacks import lightning_callback, trainer_callback
from mmaudit.training.hooks import Hooks, Training
from mmaudit.training.loop import TrainingResult, TrainingStep, train
from mmaudit.training.loss_recorder import LossRecorder, RecordingCost
from mmaudit.training.losses import accuracy, cross_entropy
from mmaudit.training.recipe import Recipe
from mmaudit.training.recorder import Recorder, read_history

__all__ = [
    "Hooks",
    "LossRecorder",
    "Recipe",
    "Recorder",
    "RecordingCost",
    "Training",
    "TrainingResult",
    "TrainingStep",
    "accuracy",
    "cross_entropy",
    "lightning_callback",
    "read_history",
    "train",
    "trainer_callback",
]
