"""What a linear probe costs: the streaming ridge regression against scikit-learn's ``Ridge``, side by side.

``python -m tests.benchmarks.probe --json FILE``: 200,000 samples, 1,024 features, 100 outputs, one penalty; about a minute on two
cores. Each method has a process of its own, so that its peak memory is its own; both get the same batches from the same generator,
which is part of the time of both. scikit-learn's needs all of them in one array, in double precision to be as exact as the
streaming one (``--dtype float32`` gives it single precision: half the memory, and coefficients that are off by ``difference``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 1024
PENALTY = 120.0
METHODS = ("mmaudit", "scikit-learn")


def batches(n: int, d: int, q: int, dtype: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Latents with means and spreads of their own, and concepts that they say in part."""
    rng = np.random.default_rng(0)
    mean, spread = 3 * rng.standard_normal(d), rng.uniform(0.2, 2, d)
    weights = rng.standard_normal((d, q)) / np.sqrt(d)
    mean, spread, weights = (part.astype(dtype) for part in (mean, spread, weights))
    for start in range(0, n, BATCH):
        size = min(BATCH, n - start)
        z = rng.standard_normal((size, d), dtype=dtype) * spread + mean
        yield z, z @ weights + rng.standard_normal((size, q), dtype=dtype)


def fit(method: str, n: int, d: int, q: int, dtype: str) -> np.ndarray:
    """Coefficients, ``(d, q)``."""
    if method == "mmaudit":
        import torch

        from mmaudit.evidence.ridge import StreamingRidge

        ridge = StreamingRidge()
        for z, c in batches(n, d, q, dtype):
            ridge.add(torch.from_numpy(z), torch.from_numpy(c))
        found: np.ndarray = ridge.fit(PENALTY).weights.numpy()
        return found
    from sklearn.linear_model import Ridge

    whole_z, whole_c = np.empty((n, d), dtype), np.empty((n, q), dtype)
    for place, (z, c) in enumerate(batches(n, d, q, dtype)):
        rows = slice(place * BATCH, place * BATCH + len(z))
        whole_z[rows], whole_c[rows] = z, c
    return np.asarray(Ridge(alpha=PENALTY).fit(whole_z, whole_c).coef_.T)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One row, in this process."""
    shape = (options.samples, options.features, options.outputs, options.dtype)
    started, used = time.perf_counter(), time.process_time()
    coefficients = fit(options.method, *shape)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    np.save(options.out, coefficients)
    return {
        "method": options.method,
        "n": options.samples,
        "d": options.features,
        "q": options.outputs,
        "dtype": options.dtype,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "peak_mb": round(own_peak_mb(), 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }


def apart(
    options: argparse.Namespace, method: str, samples: int
) -> tuple[dict[str, Any], np.ndarray]:
    """One row and its coefficients, from a process of its own."""
    out = Path(options.folder) / f"{method}-{samples}.npy"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.probe",
        "--method",
        method,
        "--out",
        str(out),
    ]
    for name, value in (
        ("samples", samples),
        ("features", options.features),
        ("outputs", options.outputs),
        ("dtype", options.dtype),
    ):
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row, np.load(out)


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each method: the better of several turns, which the methods take in alternation."""
    rows: dict[str, dict[str, Any]] = {}
    found: dict[str, np.ndarray] = {}
    for _ in range(options.repeats):
        for method in METHODS:
            row, found[method] = apart(options, method, options.samples)
            if method not in rows or row["seconds"] < rows[method]["seconds"]:
                rows[method] = row
    twice, _ = apart(options, "mmaudit", 2 * options.samples)
    rows["mmaudit"]["peak_mb_of_twice_as_many"] = twice["peak_mb"]
    largest = np.abs(found["mmaudit"]).max()
    difference = float(np.abs(found["mmaudit"] - found["scikit-learn"]).max() / largest)
    rows["scikit-learn"]["difference"] = difference
    return list(rows.values())


def own_peak_mb() -> float:
    """Peak resident memory of this process; nothing of the package is imported for it, which would count for both methods."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--outputs", type=int, default=100)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        rows = compare(options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
