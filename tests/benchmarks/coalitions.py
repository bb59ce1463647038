"""What all 2**M coalitions cost, in plain evaluation passes, and what an audit keeps in memory.

``python -m tests.benchmarks.coalitions --json FILE``. A plain pass is the model over all batches under ``no_grad``. An audit
does everything that ``mmaudit.audit`` does up to the finished table: looking inside the model, all coalitions, the checks
against brute force, statistics, writing. Both run in turn, and ratios of neighbouring runs are compared. The C library keeps
freed memory for both, as it does in an audit; without, plain passes get slower and ratios differ between processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import find_structure
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.cost import Cost
from mmaudit.evidence.data import open_source
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.masks import Masks
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.table import shard_infos
from mmaudit.masking.build import build_maskers
from mmaudit.masking.calling import Caller
from mmaudit.masking.spec import MaskingSpec
from mmaudit.measures.shapley import shapley_matrix
from tests.benchmarks import nets

BATCH = 64


class Batches:
    """Synthetic batches that are drawn from a small pool, so that data costs nothing."""

    def __init__(
        self, make: Callable[[int, torch.Generator], dict[str, Any]], number: int, size: int = BATCH
    ) -> None:
        self.number = number
        generator = torch.Generator().manual_seed(0)
        self.pool = [make(size, generator) for _ in range(min(2, number))]

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.pool[i % len(self.pool)] for i in range(self.number))


@dataclass
class Case:
    """One row of the benchmark."""

    model: str
    fusion: str
    modalities: int
    build: Callable[[], nn.Module]
    make: Callable[[int, torch.Generator], dict[str, Any]]
    spec: dict[str, Any]
    batches: int
    after: tuple[str, ...]
    """Modules that come after the encoders; with the rest of the top-level forward they are the share f."""


def images(modalities: int, pixels: int) -> Callable[[int, torch.Generator], dict[str, Any]]:
    def make(n: int, generator: torch.Generator) -> dict[str, Any]:
        batch: dict[str, Any] = {
            f"x{m}": torch.rand(n, 3, pixels, pixels, generator=generator)
            for m in range(modalities)
        }
        return {**batch, "y": torch.randint(0, nets.CLASSES, (n,), generator=generator)}

    return make


def sequences(modalities: int) -> Callable[[int, torch.Generator], dict[str, Any]]:
    def make(n: int, generator: torch.Generator) -> dict[str, Any]:
        inputs, lengths = [], []
        for m in range(modalities):
            longest = (40, 24, 32, 28)[m % 4]
            length = torch.randint(8, longest + 1, (n,), generator=generator)
            length[0] = longest
            x = torch.randn(n, longest, 40, generator=generator)
            inputs.append(x * (torch.arange(longest) < length[:, None]).unsqueeze(2))
            lengths.append(length)
        return {
            "inputs": inputs,
            "lengths": lengths,
            "y": torch.randint(0, nets.CLASSES, (n,), generator=generator),
        }

    return make


def image_spec(modalities: int) -> dict[str, Any]:
    return {"modalities": {f"m{m}": {"inputs": f"x{m}"} for m in range(modalities)}, "target": "y",
            "call": {"args": [f"x{m}" for m in range(modalities)]}}  # fmt: skip


def sequence_spec(modalities: int) -> dict[str, Any]:
    return {"modalities": {f"m{m}": {"inputs": f"inputs.{m}"} for m in range(modalities)}, "target": "y",
            "call": {"kwargs": {"inputs": "inputs", "lengths": "lengths"}}}  # fmt: skip


def cases(quick: bool) -> list[Case]:
    rows = []
    for M, pixels, batches in ((2, 112, 32), (4, 112, 24), (8, 112, 12)):
        if quick:
            pixels, batches = 32, 4
        late = {"linear head": 0, "512-unit head": 512}
        for name, hidden in late.items():
            rows.append(
                Case(
                    f"ResNet-18, {name}",
                    "late",
                    M,
                    lambda M=M, h=hidden: nets.Late(M, h),
                    images(M, pixels),
                    image_spec(M),
                    batches,
                    ("head",),
                )
            )
        rows.append(
            Case(
                "ResNet-18, FiLM",
                "intermediate",
                M,
                lambda M=M: nets.FiLM(M),
                images(M, pixels),
                image_spec(M),
                batches,
                ("film", "head"),
            )
        )
        rows.append(
            Case(
                "ResNet-18, gated",
                "intermediate",
                M,
                lambda M=M: nets.Gated(M),
                images(M, pixels),
                image_spec(M),
                batches,
                ("gate", "head"),
            )
        )
    for M in (2, 4):
        rows.append(
            Case(
                "GRU, two-layer fusion transformer",
                "intermediate",
                M,
                lambda M=M: nets.FusionTransformer(M),
                sequences(M),
                sequence_spec(M),
                192 if M == 2 else 96,
                (),
            )
        )
        rows.append(
            Case(
                "functional glue",
                "late",
                M,
                lambda M=M: nets.FunctionalGlue(M),
                images(M, 48),
                image_spec(M),
                12,
                (),
            )
        )
    for M, pixels, batches in ((2, 112, 32), (4, 48, 16), (8, 32, 6)):
        rows.append(
            Case(
                "ResNet-18 on stacked channels",
                "early",
                M,
                lambda M=M: nets.Early(M),
                images(M, 32 if quick else pixels),
                image_spec(M),
                batches,
                (),
            )
        )
    return rows


def plain(model: nn.Module, spec: MaskingSpec, data: Batches) -> float:
    """Seconds of one plain evaluation pass."""
    caller = Caller(model, spec)
    start = time.perf_counter()
    with torch.no_grad():
        for batch in data:
            caller(batch).argmax(-1)
    return time.perf_counter() - start


def audited(
    model: nn.Module, spec: MaskingSpec, data: Batches
) -> tuple[float, CoalitionEvaluator, Cost, float]:
    """Seconds of an audit up to its finished table, the evaluator, and seconds spent looking inside the model."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, left_as_it_came(model), torch.no_grad():
        source = open_source(data, spec)
        masks, processes = Masks(build_maskers(spec), {}, ()), Processes("cpu")
        blank = CoalitionEvaluator(model, spec, None)
        weights = shapley_matrix(len(spec.names))
        first = Collector(source, blank, masks, value_function(spec), weights, processes)
        structure = find_structure(model, Caller(model, spec), first.prepare(source.first()))
        looked = time.perf_counter() - start
        evaluator = CoalitionEvaluator(model, spec, structure)
        Collector(source, evaluator, masks, value_function(spec), weights, processes).collect(
            Path(folder)
        )
        cost = Cost.total(Cost(**info.cost) for info in shard_infos(Path(folder)))
        return time.perf_counter() - start, evaluator, cost, looked


def enumerated(model: nn.Module, spec: MaskingSpec, batch: dict[str, Any]) -> float:
    """Seconds of masking and calling the model once per coalition, on one batch."""
    from mmaudit.masking.preparing import in_memory_batch

    prepared, caller = in_memory_batch(batch, spec, torch.device("cpu")), Caller(model, spec)
    start = time.perf_counter()
    with torch.no_grad():
        for index in range(2 ** len(spec.names)):
            caller(prepared.coalition(index))
    return time.perf_counter() - start


def with_captum(
    model: nn.Module, spec: MaskingSpec, batch: dict[str, Any], modalities: int
) -> float:
    """Seconds of captum's exact ShapleyValues with one feature per modality, on one batch."""
    from captum.attr import ShapleyValues

    inputs = tuple(batch[f"x{m}"] for m in range(modalities))
    masks = tuple(torch.full((1, *x.shape[1:]), m) for m, x in enumerate(inputs))
    start = time.perf_counter()
    with torch.no_grad():
        ShapleyValues(model).attribute(inputs, target=batch["y"], feature_mask=masks)
    return time.perf_counter() - start


def share_after_encoders(
    model: nn.Module,
    spec: MaskingSpec,
    data: Batches,
    encoders: Callable[[nn.Module], list[nn.Module]],
) -> float:
    """Share f of a plain pass that is not spent inside the encoders, measured with timers around their forward."""
    spent = 0.0

    def timed(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            out = forward(*args, **kwargs)
            spent += time.perf_counter() - start
            return out

        return run

    modules = encoders(model)
    for module in modules:
        module.__dict__["forward"] = timed(module.forward)
    try:
        total = plain(model, spec, data)
    finally:
        for module in modules:
            del module.__dict__["forward"]
    return 1 - spent / total


def encoder_modules(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, nets.Early):
        return []
    if isinstance(model, nets.FunctionalGlue):
        return [*model.first, *model.second, *model.third]
    return list(model.encoders)


def measure(case: Case, repeats: int) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    model, spec = case.build().eval(), MaskingSpec.model_validate(case.spec)
    data = Batches(case.make, case.batches)
    plain(model, spec, Batches(case.make, 1))
    audited(model, spec, Batches(case.make, 1))  # imports and first calls are no part of the cost
    share = statistics.median(
        share_after_encoders(model, spec, Batches(case.make, 2), encoder_modules) for _ in range(3)
    )
    ratios, looks = [], []
    for _ in range(repeats):
        before = plain(model, spec, data)
        seconds, evaluator, cost, looked = audited(model, spec, data)
        after = plain(model, spec, data)
        ratios.append(2 * seconds / (before + after))
        looks.append(2 * looked / (before + after))
    common = {
        "model": case.model,
        "fusion": case.fusion,
        "modalities": case.modalities,
        "share": round(share, 5),
    }
    samples = case.batches * BATCH
    yield {
        **common, "method": "mmaudit", "passes": round(statistics.median(ratios), 4),
        "encoder_calls": {name: round(rows / samples, 4) for name, rows in cost.encoder_rows.items()},
        "how": evaluator.method, "samples": samples, "batch": BATCH, "inspection": round(statistics.median(looks), 4),
        "largest_difference": cost.largest_difference,
    }  # fmt: skip
    small = BATCH if case.modalities < 8 and case.fusion != "early" else 4
    batch = case.make(small, torch.Generator().manual_seed(1))
    one = Batches(case.make, 1, small)
    one.pool = [batch]
    S = 2**case.modalities
    unit = min(plain(model, spec, one) for _ in range(3))
    yield {
        **common,
        "method": "enumeration",
        "passes": round(enumerated(model, spec, batch) / unit, 2),
        "encoder_calls": S,
        "batch": small,
    }
    if case.modalities <= 4 and "x0" in batch and case.fusion != "early":
        tiny = case.make(4, torch.Generator().manual_seed(1))
        one = Batches(case.make, 1, 4)
        one.pool = [tiny]
        unit = min(plain(model, spec, one) for _ in range(3))
        calls = _captum_calls(case.modalities)
        yield {
            **common,
            "method": "captum",
            "passes": round(with_captum(model, spec, tiny, case.modalities) / unit, 2),
            "encoder_calls": calls,
            "batch": 4,
        }


def _captum_calls(modalities: int) -> int:
    """Forwards of captum's exact ShapleyValues: one, and one per modality in each of M! orders."""
    orders = 1
    for m in range(2, modalities + 1):
        orders *= m
    return 1 + modalities * orders


class Sizes:
    """A data set of any length whose batches are one and the same, with running sample numbers."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        generator = torch.Generator().manual_seed(0)
        self.a, self.b = (
            torch.randn(1000, 16, generator=generator),
            torch.randn(1000, 16, generator=generator),
        )
        self.y = torch.randint(0, 5, (1000,), generator=generator)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return ((self.a, self.b, self.y) for _ in range(self.samples // 1000))


class Small(nn.Module):
    """A model that costs nothing beside the audit."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(16, 5)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(a), self.b(b)], 1).relu())


def peak_of_audit(samples: int) -> float:
    """Peak resident memory in MB of a whole audit in this process."""
    import mmaudit

    spec = {"modalities": {"a": 0, "b": 1}, "target": 2}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        mmaudit.audit(Small(), Sizes(samples), spec, out=folder, device="cpu", overwrite=True)
    return own_peak_mb()


def own_peak_mb() -> float:
    """Peak resident memory of this process; that of ``getrusage`` holds the parent's at the fork, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small inputs and few batches: a smoke test, not a measurement",
    )
    parser.add_argument(
        "--only", default="", help="part of a model's name, 'late', 'early', ..., or 'memory'"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_of_audit(options.peak))
        return
    rows: list[dict[str, Any]] = []
    for case in cases(options.quick):
        if options.only not in f"{case.model} {case.fusion} M={case.modalities}":
            continue
        with kept_heap():
            for row in measure(case, options.repeats):
                rows.append(row)
                print(json.dumps(row), flush=True)
    if options.only in ("", "memory"):
        for samples in (10_000, 1_000_000) if not options.quick else (10_000, 100_000):
            command = [sys.executable, "-m", "tests.benchmarks.coalitions", "--peak", str(samples)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(
                {"samples": samples, "peak_rss_mb": round(float(done.stdout.split()[-1]), 1)}
            )
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
