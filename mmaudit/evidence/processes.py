"""The processes that share an audit, one when it was not started by ``torchrun`` or the like."""

from __future__ import annotations

import os
from typing import Any

import torch

from mmaudit.exceptions import SpecError

__all__ = ["Processes", "known_device"]


class Processes:
    """Rank, number and device of this process; accelerate where there are several.

    Args:
        device: The user's choice; left out, a GPU if there is one.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.rank, self.number = 0, int(os.environ.get("WORLD_SIZE", "1"))
        self._state: Any = None
        wanted = None if device is None else known_device(device)
        if self.number > 1:
            from accelerate import PartialState

            here = torch.accelerator.current_accelerator(check_available=True)
            self._state = PartialState(
                cpu=here is None or (wanted is not None and wanted.type == "cpu")
            )
            if self._state.num_processes != self.number:
                raise SpecError(
                    f"{self.number} processes were launched, but they do not find each other ({self._state.num_processes} seen)."
                )
            self.rank, self.number = self._state.process_index, self._state.num_processes
            if wanted is None or (wanted.type == self._state.device.type and wanted.index is None):
                wanted = self._state.device
        if wanted is None:
            wanted = torch.accelerator.current_accelerator(check_available=True)
        # "cpu:0" is not "cpu": moving to it copies, which changes strides and with them the last bits of products.
        self.device = torch.device("cpu") if wanted is None or wanted.type == "cpu" else wanted

    @property
    def main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all of them have to ask."""
        if self._state is None:
            return flag
        value = torch.tensor(int(flag), device=self.device)
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
        return bool(value.item())


def known_device(device: str | torch.device) -> torch.device:
    """A device that is there.

    Raises:
        SpecError: If it is not.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise SpecError(
            f"'{device}' is no device; expected cpu, cuda, cuda:1, mps or the like"
        ) from None
    here = torch.accelerator.current_accelerator(check_available=True)
    if wanted.type not in ("cpu", "meta") and (here is None or here.type != wanted.type):
        raise SpecError(
            f"this machine offers torch no {wanted.type}; leave the device out, or say cpu"
        )
    return wanted
