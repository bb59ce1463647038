"""Logs of a recorder with losses and norms, whose learning speeds are known by construction."""

import json

import numpy as np

from mmaudit.evidence.loss_file import map_path, recorded_map

CROSSING = {"audio": 0.04, "image": 0.01}
OWN = {"audio": 0.01, "image": 0.02}
"""mu of each step: log10 speeds are .60 and -.30, whatever the number of steps."""


def norm_rows(step, gradients, weight=4.0):
    """Lines of one step; ``gradients`` has a mu for each (branch, group)."""
    return [
        {"step": step, "epoch": None, "split": "norms", "name": f"{branch} {group} {what}", "value": value}
        for (branch, group), mu in gradients.items()
        for what, value in (("gradient", mu * weight if isinstance(mu, float) else mu), ("weight", weight))
    ]  # fmt: skip


def constant(own=OWN, crossing=CROSSING, factor=1.0):
    """mu of one step."""
    found = {(branch, "own"): mu * factor for branch, mu in own.items()}
    return found | {(branch, "crossing"): mu * factor for branch, mu in (crossing or {}).items()}


def write_log(path, norms, *, heads=("audio", "image"), epochs=12, planted=True):
    """A log as recorders write it, with its map.

    Args:
        path: The file.
        norms: Step -> what :func:`norm_rows` takes.
        heads: Their losses.
        epochs: Checkpoints of the losses.
        planted: Whether the validation loss of each head turns.
    """
    lines = [{"about": "clean losses of all heads", "heads": "...", "loss": "nats"}]
    for at in range(epochs + 1):
        for split in ("train", "validation"):
            for name in (*heads, "joint"):
                loss = 2 * np.exp(-at / 4) + (0.05 * max(at - 6, 0) if split == "validation" and planted else 0)  # fmt: skip
                lines.append({"step": 10 * at, "epoch": at, "split": split, "name": f"{name}_loss", "value": loss})  # fmt: skip
    for step, gradients in norms.items():
        lines += norm_rows(step, gradients)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    map_path(path).write_text(recorded_map(heads).text())
    return path


def steady(path, steps=40, every=1, **options):
    """A log whose speeds are the same at every step."""
    return write_log(path, {s: constant(**options) for s in range(every, steps + 1, every)})
