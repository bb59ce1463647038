"""What a step of every remedy costs, in steps of plain joint training.

``python -m tests.benchmarks.remedies --device cpu|cuda --json FILE``. Two ResNet-18 encoders and a linear head on their
concatenation, batch 64. Steps of the remedy and of joint training run in turn, and the median of the ratios of neighbours is
given. Every remedy has a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import default_collate

from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.masks import Masks
from mmaudit.masking.batches import BatchParser
from mmaudit.masking.build import build_maskers
from mmaudit.masking.spec import MaskingSpec
from mmaudit.remedies import REMEDIES
from mmaudit.training import Recipe
from mmaudit.training.loop import Run
from mmaudit.training.order import MicroBatch
from mmaudit.training.task import Labelled, Task
from tests.benchmarks import nets
from tests.benchmarks.coalitions import own_peak_mb

BATCH = 64
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "joint": ("joint", {}),
    "modality_dropout": ("modality_dropout", {}),
    "agm": ("agm", {}),
    "agm, separate passes": ("agm", {"coalitions": "separate"}),
    "agm, parameters": ("agm", {"routing": "parameters"}),
    "ogm_ge": ("ogm_ge", {}),
    "ogm_ge, scores by masking": ("ogm_ge", {"scores": "masking"}),
    "ogm_ge, covariance of samples": ("ogm_ge", {"noise": "sample_covariance"}),
    "ogm": ("ogm", {}),
    "mla": ("mla", {}),
}


class Stepper:
    """One model in training, a step at a time on the same batch."""

    def __init__(self, key: str, options: Mapping[str, Any], device: str, pixels: int) -> None:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        samples = [
            {
                "x0": torch.rand(3, pixels, pixels, generator=generator),
                "x1": torch.rand(3, pixels, pixels, generator=generator),
                "y": i % nets.CLASSES,
            }
            for i in range(BATCH)
        ]
        spec = MaskingSpec.model_validate(
            {"modalities": {"a": "x0", "b": "x1"}, "target": "y", "call": {"args": ["x0", "x1"]}}
        )
        model = nets.Late(2)
        batch = BatchParser(spec, lambda note: None).parse(default_collate(samples), 0, 0)
        task = Task(model, spec, Masks(build_maskers(spec), {}, ()), batch.data)
        kind = REMEDIES[key]
        self.hooks = kind(task, kind.Options(**options), batch)
        self.folder = tempfile.TemporaryDirectory()
        self.run = Run(
            model=model,
            recipe=Recipe(optimizer="sgd", lr=1e-3, batch_size=BATCH),
            data={"train": samples, "validation": samples},
            measured={"loss": task.loss},
            forward=task.forward,
            out=Path(self.folder.name),
            collate={},
            loader={},
            place=task.place,
            hooks=self.hooks,
            identity={},
            progress=lambda step: None,
            accelerator=Accelerator(cpu=device == "cpu", mixed_precision="no"),
        )
        self.batch: Labelled = task.place(batch, self.run.device)
        self.run.model.train()
        self.steps = 0

    def seconds(self) -> float:
        """Take one step."""
        self.steps += 1
        places = tuple(range(BATCH))
        micro = MicroBatch(places, places, BATCH, last=True, epoch=1, step=self.steps)
        _wait(self.run.device)
        start = time.perf_counter()
        self.hooks.step(self.run, [(micro, self.batch)])
        _wait(self.run.device)
        return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(variant: str, device: str, steps: int, pixels: int) -> dict[str, Any]:
    """One row."""
    key, options = VARIANTS[variant]
    with kept_heap():
        remedy = Stepper(key, options, device, pixels)
        for _ in range(2):
            remedy.seconds()
        peak = own_peak_mb()
        if device == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
        joint = Stepper("joint", {}, device, pixels)
        joint.seconds()
        ratios = []
        for _ in range(steps):
            before, own, after = joint.seconds(), remedy.seconds(), joint.seconds()
            ratios.append(2 * own / (before + after))
    return {
        "remedy": variant,
        "device": device,
        "step_ratio": round(statistics.median(ratios), 4),
        "peak_mb": round(peak, 1),
        "steps": steps,
        "batch": BATCH,
        "pixels": pixels,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pixels", type=int, help="default: 64 on a CPU, 224 on a GPU")
    parser.add_argument("--only", default="", help="part of a variant's name")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    pixels = options.pixels or (224 if options.device == "cuda" else 64)
    if options.variant:
        print(json.dumps(measure(options.variant, options.device, options.steps, pixels)))
        return
    rows = []
    for variant in VARIANTS:
        if options.only not in variant:
            continue
        command = [sys.executable, "-m", "tests.benchmarks.remedies", "--variant", variant]
        command += ["--device", options.device, "--steps", str(options.steps)]
        command += ["--pixels", str(pixels)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
