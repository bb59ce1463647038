"""Whole audits: what they leave behind, what they leave alone, and what an interruption costs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mmaudit
from mmaudit.exceptions import DataError, MMAuditError, ModelError, RecordError, SpecError
from mmaudit.report import AuditReport
from mmaudit.report.tables import read_chunks, shard_paths
from tests.evidence.zoo import assert_unchanged, snapshot
from tests.subjects import SPEC, Data, Late

REPLICATES = 200


def audited(model: Any = None, data: Any = None, spec: Any = None, **options: Any) -> AuditReport:
    options = {"replicates": REPLICATES, "device": "cpu", **options}
    return mmaudit.audit(model or Late().eval(), data or Data(300), spec or SPEC, **options)


def samples_of(folder: Path) -> pd.DataFrame:
    chunks = [
        pd.DataFrame({k: list(v) for k, v in chunk.items()})
        for chunk in read_chunks(folder / "coalitions")
    ]
    return pd.concat(chunks).sort_values("position").reset_index(drop=True)


def estimates_of(report: AuditReport) -> dict[str, Any]:
    return {key: result.model_dump() for key, result in report.measures.items()}


def assert_same_audit(a: Path, b: Path) -> None:
    left, right = samples_of(a), samples_of(b)
    assert list(left.columns) == list(right.columns)
    for name in left.columns:
        wrong = [
            i
            for i, (x, y) in enumerate(zip(left[name], right[name], strict=True))
            if not np.array_equal(x, y)
        ]
        assert not wrong, (name, len(wrong), wrong[:5], left[name][wrong[0]], right[name][wrong[0]])
    assert estimates_of(AuditReport.load(a)) == estimates_of(AuditReport.load(b))


class TestNumbers:
    def test_plain_accuracy_and_masked_accuracy_are_the_models_own(self, tmp_path: Path) -> None:
        model = Late().eval()
        report = audited(model, out=tmp_path)
        hits = {"audio+image": 0, "audio": 0, "image": 0, "none": 0}
        with torch.no_grad():
            for batch in Data(300):
                for name in hits:
                    audio = batch["audio"] * ("audio" in name)
                    image = batch["image"] * ("image" in name)
                    hits[name] += int((model(audio, image).argmax(1) == batch["label"]).sum())
        for name, count in hits.items():
            assert report.estimate("coalitions", coalition=name).value == pytest.approx(
                count / 300, abs=1e-12
            )
        u = report.estimate("utilization", modality="audio", given="image").value
        assert u == pytest.approx((hits["audio+image"] - hits["image"]) / hits["audio+image"])

    def test_batch_size_changes_nothing(self) -> None:
        reports = [audited(data=Data(300, size)) for size in (7, 300)]
        a, b = (r.to_frame("contributions") for r in reports)
        assert np.allclose(
            a["value"].astype(float), b["value"].astype(float), atol=1e-6, equal_nan=True
        )

    def test_the_engine_and_full_passes_agree(self) -> None:
        fast, slow = audited(), audited(optimize=False)
        assert (fast.evidence.method, slow.evidence.method) == ("packed", "full passes")
        assert fast.evidence.largest_difference is not None
        assert fast.evidence.largest_difference <= 1e-5
        assert np.allclose(
            fast.to_frame("responses")["value"].astype(float),
            slow.to_frame("responses")["value"].astype(float),
            atol=1e-6,
            equal_nan=True,
        )

    def test_the_record_says_what_it_cost(self) -> None:
        evidence = audited(data=Data(2000)).evidence
        assert evidence.encoder_calls["audio"] <= 2000 * 1.01
        assert evidence.verified_rows > 0

    def test_measures_that_are_not_asked_for_are_not_computed(self) -> None:
        report = audited(measures=["utilization"])
        assert list(report.measures) == ["utilization"]
        # What nobody asked to measure is no evidence that is missing.
        assert report.record.findings == ()
        assert any("no verdicts: they need" in note.text for note in report.record.notes)
        assert audited().record.findings


class TestModelIsLeftAlone:
    @pytest.fixture
    def model(self) -> Late:
        model = Late().train()
        model.ears[1].eval()  # frozen on purpose
        model(torch.randn(4, 6), torch.randn(4, 5)).sum().backward()
        model.head.register_forward_hook(lambda *_: None)
        return model

    def test_after_an_audit(self, model: Late) -> None:
        before = snapshot(model)
        audited(model)
        assert_unchanged(before, snapshot(model))

    @pytest.mark.parametrize("after", [0, 1, 9])
    def test_after_a_failure(self, model: Late, after: int) -> None:
        class Failing(Data):
            def __iter__(self) -> Any:
                for i, batch in enumerate(super().__iter__()):
                    if i == after:
                        batch["audio"] = batch["audio"][:, :3]
                    yield batch

        before = snapshot(model)
        with pytest.raises(MMAuditError):
            audited(model, Failing(900))
        assert_unchanged(before, snapshot(model))

    def test_after_ctrl_c(self, model: Late) -> None:
        def interrupted(stage: str, done: int, total: int | None) -> None:
            if stage == "Coalitions" and done > 100:
                raise KeyboardInterrupt

        before = snapshot(model)
        with pytest.raises(KeyboardInterrupt):
            audited(model, progress=interrupted)
        assert_unchanged(before, snapshot(model))


class TestInterruption:
    def test_resume_gives_the_same(self, tmp_path: Path) -> None:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        audited(data=Data(10_000, 500), out=whole)

        def interrupted(stage: str, done: int, total: int | None) -> None:
            if stage == "Coalitions" and done >= 7000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            audited(data=Data(10_000, 500), out=broken, progress=interrupted)
        assert len(shard_paths(broken / ".running" / "coalitions")) == 1
        with pytest.raises(RecordError, match="holds an interrupted audit"):
            audited(data=Data(10_000, 500), out=broken)
        audited(data=Data(10_000, 500), out=broken, resume=True)
        assert_same_audit(whole, broken)

    def test_resume_refuses_other_settings(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            audited(out=tmp_path, progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(RecordError, match="another model, data, spec or settings"):
            audited(out=tmp_path, resume=True, seed=3)

    def test_resume_needs_something_to_resume(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match="no interrupted audit"):
            audited(out=tmp_path, resume=True)
        audited(out=tmp_path)
        with pytest.raises(RecordError, match="finished"):
            audited(out=tmp_path, resume=True)

    def test_a_finished_audit_is_not_overwritten(self, tmp_path: Path) -> None:
        first = audited(out=tmp_path)
        with pytest.raises(RecordError, match="holds a finished audit"):
            audited(out=tmp_path)
        assert AuditReport.load(tmp_path) == first
        with pytest.raises(DataError):
            audited(out=tmp_path, overwrite=True, spec={**SPEC, "target": "labels"})
        assert AuditReport.load(tmp_path) == first, "a failed audit took the old one with it"
        assert audited(out=tmp_path, overwrite=True).record.report_id != first.record.report_id

    @pytest.mark.parametrize(
        ("seed", "kills"),
        [
            (0, 3),
            pytest.param(1, 6, marks=pytest.mark.slow),
            pytest.param(2, 6, marks=pytest.mark.slow),
        ],
    )
    def test_kill_at_random_points(self, tmp_path: Path, seed: int, kills: int) -> None:
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        samples, pause = 16_384, 0.02
        command = [sys.executable, "-m", "tests.subjects"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, whole, str(samples), "0"], check=True, env=environment)
        rng = random.Random(seed)
        shards_before = 0
        for attempt in range(30):
            flags = ["resume"] if (killed / ".running" / "audit-state.json").exists() else []
            process = subprocess.Popen(
                [*command, killed, str(samples), str(pause), *flags], env=environment
            )
            try:
                process.wait(rng.uniform(1.0, 4.0) if attempt < kills else 120)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            if (killed / "report.json").exists() and not (killed / ".running").exists():
                break
            shards = len(shard_paths(killed / ".running" / "coalitions"))
            assert shards >= shards_before, "a finished shard was lost"
            shards_before = shards
            assert process.returncode == -signal.SIGKILL
        assert_same_audit(whole, killed)
        assert not list(killed.rglob("*.tmp"))


class TestManyProcesses:
    def test_two_processes_give_the_numbers_of_one(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        samples = "3333"  # a last batch that is short, and an odd number of batches
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "tests.subjects", one, samples, "0"], check=True, env=environment
        )
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
        ]
        subprocess.run(
            [*launcher, "-m", "tests.subjects", two, samples, "0"],
            check=True,
            env=environment,
            timeout=200,
        )
        assert_same_audit(one, two)
        assert AuditReport.load(two).data.fingerprint == AuditReport.load(one).data.fingerprint
        assert AuditReport.load(two).record.settings["processes"] == 2


class TestMissingModalities:
    def test_absent_in_some_samples(self) -> None:
        class Holes(Data):
            def __iter__(self) -> Any:
                for batch in super().__iter__():
                    batch["audio"] = batch["audio"].clone()
                    batch["audio"][::3] = float("nan")
                    yield batch

        report = audited(data=Holes(300, 300))
        assert report.data.present == {"audio": 200, "image": 300}
        assert report.estimate("responses", modality="audio").n == 200
        assert report.evidence.nonfinite == 0

    def test_absent_throughout_with_training_data(self) -> None:
        spec = mmaudit.AuditSpec.model_validate(
            {**SPEC, "model": "tests.subjects:Late", "data": {
                "test": {"factory": "tests.test_auditing:without_audio"}, "train": {"factory": "tests.subjects:Data", "args": {"samples": 64}}}}
        )  # fmt: skip
        report = mmaudit.audit(None, spec=spec, replicates=REPLICATES, device="cpu")
        assert report.data.present == {"audio": 0, "image": 128}
        assert report.estimate("responses", modality="audio").undefined
        assert report.estimate("contributions", modality="audio").undefined


def without_audio() -> list[dict[str, Any]]:
    return [{k: v for k, v in batch.items() if k != "audio"} for batch in Data(128)]


class TestBadInput:
    def test_non_finite_outputs_are_counted_and_named(self) -> None:
        class Inf(Data):
            def __iter__(self) -> Any:
                for batch in super().__iter__():
                    if "s70" in batch["id"]:
                        batch["image"] = batch["image"].clone()
                        batch["image"][6, 0] = float("inf")
                    yield batch

        report = audited(data=Inf(300))
        assert report.evidence.nonfinite == 1
        assert report.evidence.nonfinite_samples == ("s70",)
        assert report.accuracy.n == 299
        assert any("not finite" in note.text for note in report.notes)

    def test_all_outputs_non_finite(self) -> None:
        model = Late().eval()
        model.head.bias.data[:] = float("nan")
        with pytest.raises(ModelError, match="no sample has finite outputs"):
            audited(model)

    def test_expected_accuracy_stops_the_audit(self, tmp_path: Path) -> None:
        spec = mmaudit.AuditSpec.model_validate(
            {
                **SPEC,
                "model": "tests.subjects:Late",
                "data": {"factory": "tests.subjects:Data", "args": {"samples": 200}},
                "expected": 0.99,
            }
        )
        with pytest.raises(ModelError, match="stopped before measuring"):
            mmaudit.audit(None, spec=spec, out=tmp_path, device="cpu")
        assert not (tmp_path / "report.json").exists()

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"target": "labels"}, DataError, "labels"),
            ({"target": None}, DataError, "label"),
            ({"outputs": {"path": "logits"}}, ModelError, "logits"),
            ({"outputs": {"kind": "probabilities"}}, ModelError, "sum to 1"),
            ({"task": "binary"}, MMAuditError, "binary|2 classes|target"),
            ({"classes": ["a", "b"]}, MMAuditError, r"integer in \[0, 2\)"),
            ({"modalities": {"audio": "sound", "image": "image"}}, MMAuditError, "sound"),
            ({"call": {"args": ["audio", "imag"]}}, DataError, "imag"),
            (
                {
                    "modalities": {
                        "audio": {"inputs": "audio", "encoders": "nose"},
                        "image": "image",
                    }
                },
                SpecError,
                "nose",
            ),
        ],
    )
    def test_one_sentence(self, change: dict[str, Any], error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words) as caught:
            audited(spec={**SPEC, **change})
        assert "\n" not in str(caught.value).strip()
