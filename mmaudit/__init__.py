"""mmaudit audits a trained multimodal model: which modality it uses, which it ignores, and how sure one can be.

Public names load on first use, so that ``import mmaudit`` stays free of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmaudit.auditing import audit
    from mmaudit.checkpoint.loader import load_checkpoint
    from mmaudit.checkpoint.structure import inspect_structure
    from mmaudit.comparing import compare
    from mmaudit.evidence.coalitions import evaluate_coalitions
    from mmaudit.exceptions import MMAuditError
    from mmaudit.following import CheckpointTrajectory, trajectory
    from mmaudit.masking.spec import AuditSpec, MaskingSpec
    from mmaudit.report import AuditReport
    from mmaudit.report.loss_report import LossReport
    from mmaudit.retraining import RetrainResult, retrain
    from mmaudit.speeds import LearningSpeeds, learning_speeds
    from mmaudit.trajectories import LossLog, ogr, read_losses

__version__ = "0.1.0"

_HOME = {
    "AuditReport": "mmaudit.report",
    "AuditSpec": "mmaudit.masking.spec",
    "CheckpointTrajectory": "mmaudit.following",
    "LearningSpeeds": "mmaudit.speeds",
    "LossLog": "mmaudit.trajectories",
    "LossReport": "mmaudit.report.loss_report",
    "MMAuditError": "mmaudit.exceptions",
    "MaskingSpec": "mmaudit.masking.spec",
    "RetrainResult": "mmaudit.retraining",
    "audit": "mmaudit.auditing",
    "compare": "mmaudit.comparing",
    "evaluate_coalitions": "mmaudit.evidence.coalitions",
    "inspect_structure": "mmaudit.checkpoint.structure",
    "learning_speeds": "mmaudit.speeds",
    "load_checkpoint": "mmaudit.checkpoint.loader",
    "ogr": "mmaudit.trajectories",
    "read_losses": "mmaudit.trajectories",
    "retrain": "mmaudit.retraining",
    "trajectory": "mmaudit.following",
}

__all__ = [
    "AuditReport",
    "AuditSpec",
    "CheckpointTrajectory",
    "LearningSpeeds",
    "LossLog",
    "LossReport",
    "MMAuditError",
    "MaskingSpec",
    "RetrainResult",
    "__version__",
    "audit",
    "compare",
    "evaluate_coalitions",
    "inspect_structure",
    "learning_speeds",
    "load_checkpoint",
    "ogr",
    "read_losses",
    "retrain",
    "trajectory",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mmaudit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
