"""Trains with every remedy on however many processes there are; the tests start it under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from mmaudit.remedies import REMEDIES
from tests.remedies.nets import NETS, data, spec
from tests.remedies.running import run

VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "joint": ("joint", "concat", {}),
    "modality_dropout": ("modality_dropout", "gated", {"p": 0.4}),
    "agm": ("agm", "concat", {"alpha": 1.5}),
    "agm separate": ("agm", "early", {"alpha": 1.5, "coalitions": "separate"}),
    "agm parameters": ("agm", "film", {"alpha": 1.5, "routing": "parameters"}),
    "ogm": ("ogm", "concat", {}),
    "ogm_ge": ("ogm_ge", "concat", {}),
    "ogm_ge masking": ("ogm_ge", "cross-attention", {"scores": "masking"}),
    "ogm_ge covariance": ("ogm_ge", "sum", {"noise": "sample_covariance"}),
    "mla": ("mla", "concat", {}),
    "mla full": ("mla", "gated", {"memory": "full"}),
}
"""Name -> remedy, net, options."""

RECIPE = {"epochs": 2, "batch_size": 16, "momentum": 0.9}


def train_all(folder: Path) -> None:
    """20 steps of every variant that there is."""
    for name, (key, net, options) in VARIANTS.items():
        if key not in REMEDIES:
            continue
        torch.manual_seed(0)
        out = folder / name.replace(" ", "-")
        run(key, NETS[net](3), spec(3), data(3, 160), out, recipe=RECIPE, resume=True, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_all(Path(sys.argv[1]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
