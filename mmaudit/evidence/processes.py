"""The processes that share an audit, one when it was not started by ``torchrun`` or the like."""

from __future__ import annotations

import os
from typing import Any

import torch

__all__ = ["Processes"]


class Processes:
    """Rank, number and device of this process; accelerate where there are several.

    Args:
        device: The user's choice; left out, a GPU if there is one.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.rank, self.number = 0, int(os.environ.get("WORLD_SIZE", "1"))
        self._state: Any = None
        if self.number > 1:
            from accelerate import PartialState

            self._state = PartialState(
                cpu=device is not None and torch.device(device).type == "cpu"
            )
            self.rank, self.number = self._state.process_index, self._state.num_processes
        if device is not None:
            self.device = torch.device(device)
        elif self._state is not None:
            self.device = self._state.device
        else:
            self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()
