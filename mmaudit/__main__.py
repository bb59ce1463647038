"""``python -m mmaudit``, and so ``torchrun -m mmaudit``: the command line."""

from __future__ import annotations

from mmaudit.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
