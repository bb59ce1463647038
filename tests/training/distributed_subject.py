"""Trains on however many processes there are; the tests start it under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed

from tests.training.subject import PLAIN, build, run

if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), PLAIN, build(random_layers=False), resume=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
