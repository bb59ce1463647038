"""Logs of trainings whose overfitting is known by construction."""

import csv
import io

import numpy as np

TURNS = {"audio": 8, "image": 25, "joint": 14}
"""Head -> last epoch before its validation loss rises."""
LEVELS = {"audio": (0.8, 3.0, 0.04), "image": (0.7, 7.0, 0.02), "joint": (0.5, 4.0, 0.03)}
T = 40


def planted(head, turn=None):
    """Train and validation loss of a head, without noise."""
    level, tau, slope = LEVELS[head]
    turn = TURNS[head] if turn is None else turn
    at = np.arange(T)
    fall = level + 1.4 * np.exp(-at / tau)
    held_out = np.where(at > turn, fall[turn] + slope * (at - turn), fall)
    return np.maximum(fall - 0.012 * level * at - 0.02, 0.01), held_out


def log_text(noise=0.0, seed=0, heads=("audio", "image", "joint"), columns=None):
    """A CSV log of the planted curves; extra columns by name."""
    rng = np.random.default_rng(seed)
    found = {"epoch": np.arange(T)}
    for head in heads:
        for split, values in zip(("train", "val"), planted(head), strict=True):
            found[f"{split}_{head}_loss"] = values + noise * rng.normal(size=T)
    found.update(columns or {})
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(found)
    writer.writerows(zip(*(values.tolist() for values in found.values()), strict=True))
    return out.getvalue()


def write_logs(folder, runs=1, noise=0.0, **options):
    """Paths of as many logs."""
    paths = []
    for seed in range(runs):
        path = folder / f"seed{seed}.csv"
        path.write_text(log_text(noise, seed, **options))
        paths.append(path)
    return paths
