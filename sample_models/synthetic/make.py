"""Writes the constructed weights: ``python -m sample_models.synthetic.make``."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from sample_models.synthetic.cases import CASES
from sample_models.synthetic.model import construct

__all__ = ["main"]


def main(folder: Path = Path(__file__).parent) -> None:
    """Write ``<case>/model.safetensors`` for every case."""
    for case in CASES:
        (folder / case).mkdir(exist_ok=True)
        save_file(construct(case).state_dict(), folder / case / "model.safetensors")


if __name__ == "__main__":
    main()
