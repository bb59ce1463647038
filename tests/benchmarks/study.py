"""Do remedies help on MNIST x FSDD? Five seeds, late and early fusion, one validation grid for all, test data used once.

``python -m tests.benchmarks.study --out FOLDER``: about three quarters of an hour on two cores; a run that was cut off goes on.
Pictures are cut to 25 % of their energy and sounds get noise of one standard deviation, so that each modality alone knows
part of the answer. Every method gets the same number of epochs and the same number of points on its grid (learning rate, and
its main setting), is tuned on validation accuracy with one seed, and is then trained with five others. Training masks with
zeros, as the authors do; audits mask with values of other samples, because a silent sound is like none in this data.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

GRID: dict[str, list[dict[str, Any]]] = {
    "joint": [{}],
    "modality_dropout": [{"p": 0.15}, {"p": 0.3}],
    "agm": [{"alpha": 0.5}, {"alpha": 1.5}],
    "agm, separate passes": [
        {"alpha": 0.5, "coalitions": "separate"},
        {"alpha": 1.5, "coalitions": "separate"},
    ],
    "ogm_ge": [{"alpha": 0.3}, {"alpha": 0.8}],
    "mla": [{"memory": "cycle"}, {"memory": "released"}],
}
LATE_ONLY: dict[str, str] = {
    "mla": "needs an encoder for each modality",
    "agm, separate passes": "without encoders there is nothing to reuse: agm itself runs every coalition whole",
}
RATES = {"joint": (0.005, 0.01, 0.02, 0.04)}
TWO_RATES = (0.01, 0.04)
SEEDS = (1, 2, 3, 4, 5)
TUNING_SEED = 0
EPOCHS = 5


def train_one(job: dict[str, Any]) -> dict[str, Any]:
    """One training, and its audit on the test data if the job is not for tuning."""
    path = Path(job["file"])
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    torch.set_num_threads(1)
    from mmaudit import audit
    from mmaudit.evidence.masks import Masks
    from mmaudit.exceptions import ModelError
    from mmaudit.masking.build import build_maskers
    from mmaudit.masking.spec import MaskingSpec
    from mmaudit.remedies import REMEDIES
    from mmaudit.training import Recipe, read_history, train
    from mmaudit.training.samples import open_samples
    from mmaudit.training.task import Task
    from sample_models.mnist_fsdd import build
    from sample_models.mnist_fsdd.data import samples

    base = {
        "modalities": {"audio": "audio", "image": "image"},
        "call": {"args": ["audio", "image"]},
        "target": "label",
        "ids": "id",
        "group": "clip",
    }
    spec = MaskingSpec.model_validate(base)
    torch.manual_seed(job["seed"])
    model = build(job["fusion"])
    key = job["method"].split(",")[0]
    splits = {name: open_samples(samples(name), spec) for name in ("train", "validation")}
    example = splits["train"].batch(range(8))
    task = Task(model, spec, Masks(build_maskers(spec), {}, ()), example.data)
    kind = REMEDIES[key]
    recipe = Recipe(
        optimizer="sgd", lr=job["lr"], momentum=0.9, weight_decay=1e-4, scheduler="cosine",
        epochs=EPOCHS, batch_size=64, seed=job["seed"], monitor="accuracy",
    )  # fmt: skip
    folder = path.with_suffix("")
    try:
        result = train(
            model, splits["train"].data, splits["validation"].data, recipe,
            loss=task.loss, forward=task.forward, scores={"accuracy": task.accuracy},
            collate=splits["train"].collate, place=task.place,
            hooks=kind(task, kind.Options(**job["options"]), example),
            identity=job, out=folder, device="cpu", resume=True,
        )  # fmt: skip
    except ModelError as error:  # it diverged: this point of the grid is lost
        if not job["tuning"]:
            raise
        row = {**job, "validation": 0.0, "diverged": str(error)}
        path.write_text(json.dumps(row))
        return row
    row = {**job, "validation": result.best_value, "best_epoch": result.best_epoch}
    history = read_history(folder)
    row["coefficients"] = {
        str(name): float(values.value.mean())
        for name, values in history[history.split == "remedy"].groupby("name")
    }
    if not job["tuning"]:
        masked = {name: {"inputs": name, "mask": "marginal"} for name in ("audio", "image")}
        report = audit(
            result.model, samples("test"), {**base, "modalities": masked}, device="cpu",
            batch_size=100, replicates=100,
        )  # fmt: skip
        row |= _figures(report)
    path.write_text(json.dumps(row))
    return row


def _figures(report: Any) -> dict[str, float]:
    coalitions = report.to_frame("coalitions")
    accuracy = coalitions[(coalitions["score"] == "accuracy") & (coalitions["class"] == "all")]
    whole = accuracy[accuracy["coalition"] == "audio+image"]
    found = {"accuracy": float(whole["value"].iloc[0])}
    responses = report.to_frame("responses")
    utilization = report.to_frame("utilization")
    for name in ("audio", "image"):
        row = responses[
            (responses["modality"] == name)
            & (responses["quantity"] == "Acc")
            & (responses["empty"] == "exact")
            & (responses["class"] == "all")
        ]
        found[f"response {name}"] = float(row["value"].iloc[0])
        row = utilization[
            (utilization["modality"] == name)
            & (utilization["quantity"] == "u")
            & (utilization["given"] == ("image" if name == "audio" else "audio"))
            & (utilization["class"] == "all")
        ]
        found[f"utilization {name}"] = float(row["value"].iloc[0])
    return found


def jobs(out: Path, fusions: list[str]) -> list[dict[str, Any]]:
    """The grid, every point with the tuning seed."""
    found = []
    for fusion in fusions:
        for method, settings in GRID.items():
            if fusion == "early" and method in LATE_ONLY:
                continue
            for lr in RATES.get(method, TWO_RATES):
                for options in settings:
                    found.append(_job(out, fusion, method, lr, options, TUNING_SEED, tuning=True))
    return found


def _job(
    out: Path,
    fusion: str,
    method: str,
    lr: float,
    options: Mapping[str, Any],
    seed: int,
    *,
    tuning: bool,
) -> dict[str, Any]:
    words = [fusion, method, f"lr{lr}", *(f"{k}{v}" for k, v in options.items()), f"seed{seed}"]
    name = "-".join(words).replace(" ", "_").replace(",", "")
    return {
        "fusion": fusion, "method": method, "lr": lr, "options": dict(options), "seed": seed,
        "tuning": tuning, "file": str(out / f"{name}.json"),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, and differences from joint training with paired t-intervals."""
    from mmaudit.comparing import seed_level

    found = []
    for fusion in dict.fromkeys(row["fusion"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows if row["fusion"] == fusion):
            mine = _of(rows, fusion, method)
            line: dict[str, Any] = {
                "fusion": fusion, "method": method, "lr": mine[0]["lr"], "options": mine[0]["options"],
            }  # fmt: skip
            for quantity in QUANTITIES:
                own = np.array([row[quantity] for row in mine])
                line[quantity] = {"mean": float(own.mean()), "sd": float(own.std(ddof=1))}
                if method != "joint":
                    other = np.array([row[quantity] for row in _of(rows, fusion, "joint")])
                    difference = seed_level(other, own)
                    line[quantity] |= {
                        "difference": difference.difference.value,
                        "low": difference.difference.low,
                        "high": difference.difference.high,
                        "p": difference.p,
                    }
            found.append(line)
    return found


QUANTITIES = (
    "accuracy",
    "response audio",
    "response image",
    "utilization audio",
    "utilization image",
)


def _of(rows: list[dict[str, Any]], fusion: str, method: str) -> list[dict[str, Any]]:
    mine = [row for row in rows if row["fusion"] == fusion and row["method"] == method]
    return sorted(mine, key=lambda row: int(row["seed"]))


def main() -> None:
    """Tune, train, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fusion", choices=("late", "early"), action="append")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        tried = []
        for row in pool.map(train_one, jobs(options.out, options.fusion or ["late", "early"])):
            tried.append(row)
            print(f"validation {row['validation']:.3f}  {Path(row['file']).stem}", flush=True)
        chosen: dict[tuple[str, str], dict[str, Any]] = {}
        for row in tried:
            key = row["fusion"], row["method"]
            if key not in chosen or row["validation"] > chosen[key]["validation"]:
                chosen[key] = row
        final = [
            _job(options.out, fusion, method, row["lr"], row["options"], seed, tuning=False)
            for (fusion, method), row in chosen.items()
            for seed in SEEDS
        ]
        rows = []
        for row in pool.map(train_one, final):
            rows.append(row)
            print(f"test {row['accuracy']:.3f}  {Path(row['file']).stem}", flush=True)
    lines = table(rows)
    (options.out / "table.json").write_text(json.dumps(lines, indent=1))
    for line in lines:
        cells = []
        for quantity in QUANTITIES:
            cell = line[quantity]
            text = f"{quantity} {cell['mean']:.3f} ({cell['sd']:.3f})"
            if "p" in cell:
                text += f" {cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}] p {cell['p']:.3f}"
            cells.append(text)
        print(f"{line['fusion']:<6} {line['method']:<22} " + " | ".join(cells))


if __name__ == "__main__":
    main()
