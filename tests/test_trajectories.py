"""From logs to a record of overfitting: planted turns are found, and everything about them is told."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mmaudit import LossReport, learning_speeds, ogr, read_losses
from mmaudit.evidence.loss_file import NONFINITE, map_path, recorded_map
from mmaudit.exceptions import LogError, MMAuditError, RecordError, UndefinedMeasureError
from tests.integration.shared_data import shared_file
from tests.loss_logs import TURNS, T, log_text, planted, write_logs
from tests.norm_logs import CROSSING, OWN, constant, norm_rows, steady, write_log


def onset(report, head):
    return report.estimate("overfitting", head=head)


def test_a_planted_turn_is_found_exactly(tmp_path):
    report = ogr(write_logs(tmp_path))
    for head, turn in TURNS.items():
        assert onset(report, head).value == turn + 1
        assert report.estimate("overfitting", head=head, quantity="best checkpoint").value == turn
    first = report.findings[0]
    assert first.rule == "overfits first" and first.modality == "audio"
    assert (
        "audio overfits first, from epoch 9" in first.text and "image from epoch 26" in first.text
    )


@pytest.mark.parametrize("noise", [0.01, 0.02])
def test_a_planted_turn_under_noise_with_five_runs(tmp_path, noise):
    report = ogr(write_logs(tmp_path, runs=5, noise=noise))
    for head, turn in TURNS.items():
        found = onset(report, head)
        # the valley of the image is flat: its turn is not so sharp
        assert abs(found.value - (turn + 1)) <= (1 if head != "image" else 3)
        assert found.low - 1 <= turn + 1 <= found.high + 1 and found.n == 5
    assert report.findings[0].modality == "audio"


def test_one_noisy_run_has_a_block_bootstrap(tmp_path):
    report = ogr(write_logs(tmp_path, noise=0.01))
    found = onset(report, "audio")
    assert abs(found.value - 9) <= 1 and found.low <= 9 <= found.high
    assert "block bootstrap" in found.method


def test_the_map_is_told_saved_and_taken(tmp_path):
    (path,) = write_logs(tmp_path)
    log = read_losses(path)
    assert log.heads == ("audio", "image", "joint") and any(
        "audio: train" in text for text in log.guessed
    )
    saved = log.save_map(tmp_path / "heads.yaml")
    again = read_losses(path, map=saved)
    assert again.map == log.map and again.guessed == ()
    np.testing.assert_array_equal(again.runs[0].train, log.runs[0].train)
    swapped = {"heads": {"sound": {"train": "train_audio_loss", "validation": "val_audio_loss"}}}
    assert read_losses(path, map=swapped).heads == ("sound",)


def test_columns_of_the_map_and_of_the_call(tmp_path):
    text = "when,part,what,x\n" + "".join(
        f"{i},{part},audio_loss,{2 - i / 10 + (part == 'val') / 10}\n"
        for i in range(8)
        for part in ("train", "val")
    )
    path = tmp_path / "long.csv"
    path.write_text(text)
    columns = {"epoch": "when", "split": "part", "name": "what", "value": "x"}
    log = read_losses(path, columns=columns)
    assert log.heads == ("audio",) and log.runs[0].axis == "epoch"
    saved = log.save_map(tmp_path / "heads.yaml")
    np.testing.assert_array_equal(read_losses(path, map=saved).runs[0].train, log.runs[0].train)
    with pytest.raises(LogError, match="columns: 'nope' is none"):
        read_losses(path, columns={"nope": "x"})


def test_runs_that_cannot_be_used_are_told(tmp_path):
    paths = write_logs(tmp_path, runs=2)
    crashed = tmp_path / "crashed.csv"
    crashed.write_text("epoch,train_audio_loss\n0,2.3\n1,2.2\n")
    log = read_losses([*paths, crashed])
    assert log.titles == ("seed0", "seed1")
    assert (
        "2 runs, taken for repeats" in log.notes[0]
        and "1 run of 3 left out: 'crashed'" in log.notes[1]
    )
    assert log.select("seed1").titles == ("seed1",)
    with pytest.raises(LogError, match="no run 'x'"):
        log.select("x")


def test_a_sum_is_a_problem_and_gets_no_ogr(tmp_path):
    whole = sum(planted(head)[0] for head in TURNS)
    path = tmp_path / "log.csv"
    path.write_text(
        log_text(
            heads=("audio", "image"), columns={"train_loss": whole, "val_loss": planted("joint")[1]}
        )
    )
    report = ogr(path)
    problem = report.findings[0]
    assert problem.level == "problem" and problem.modality == "joint"
    assert "No OGR of joint" in problem.text and "LossRecorder" in problem.missing[0]
    assert not any(f.rule == "joint against best single head" for f in report.findings)
    assert {r.labels["head"] for r in report.measure("blend_weights").rows} == {"audio", "image"}


@pytest.mark.parametrize(
    ("change", "rule"), [(0.0, "learns nothing"), (0.5, "learns only its train set")]
)
def test_a_head_that_learns_nothing_does_not_look_good(tmp_path, change, rule):
    at = np.arange(T)
    rng = np.random.default_rng(0)
    train = 2.3 - change * (1 - np.exp(-at / 5)) + 0.001 * rng.normal(size=T)
    idle = {"train_text_loss": train, "val_text_loss": 2.31 + 0.001 * rng.normal(size=T)}
    path = tmp_path / "log.csv"
    path.write_text(log_text(columns=idle))
    report = ogr(path)
    (found,) = [f for f in report.findings if f.modality == "text" and f.rule.startswith("learns")]
    assert found.rule == rule and found.level == "attention"
    assert found.evidence


def test_no_overfitting_is_good(tmp_path):
    at = np.arange(T)
    columns = {
        f"{split}_{head}_loss": level + extra + np.exp(-at / 6)
        for head, level in (("a", 0.5), ("b", 0.7))
        for split, extra in (("train", 0.0), ("val", 0.05))
    }
    path = tmp_path / "log.csv"
    path.write_text(log_text(heads=(), columns=columns))
    report = ogr(path)
    assert [f.rule for f in report.findings if f.level == "good"] == ["no overfitting"]
    assert "no overfitting was found" in onset(report, "a").undefined


def test_joint_against_the_best_single_head(tmp_path):
    report = ogr(write_logs(tmp_path, runs=3, noise=0.005))
    (found,) = [f for f in report.findings if f.rule == "joint against best single head"]
    apart = report.estimate(
        "overfitting", head="joint", quantity="OGR less that of the best other head"
    )
    own, best = (
        report.estimate("overfitting", head=h, quantity="OGR").value for h in ("joint", "image")
    )
    assert apart.value == pytest.approx(own - best, rel=0.1) and "'image'" in apart.method
    assert ("more" in found.text) == (apart.value > 0)
    assert any(row.labels["head"] == "image" for row in found.evidence)


def test_every_finding_has_a_rule_and_real_evidence(tmp_path):
    report = ogr(write_logs(tmp_path, runs=2, noise=0.01))
    assert {f.rule for f in report.findings} >= {"overfits first", "blend"}
    for finding in report.findings:
        assert finding.because and finding.evidence
        for row in finding.evidence:
            assert report.estimate(row.measure, **row.labels) == row.estimate


def test_the_record_is_kept_and_read_back(tmp_path):
    report = ogr(
        write_logs(tmp_path), policy="abs", super_epoch=7, smoothing=0.3, lag=2, title="mine"
    )
    file = report.save(tmp_path / "out")
    assert LossReport.load(tmp_path / "out") == report
    assert LossReport.load(file).record.settings == {
        "lag": 2,
        "smoothing": 0.3,
        "policy": "abs",
        "super_epoch": 7,
    }
    assert json.loads(file.read_text())["schema_version"] == 1
    with pytest.raises(RecordError, match="exists already"):
        report.save(tmp_path / "out")
    report.save(tmp_path / "out", overwrite=True)
    assert report.record.title == "mine" and report.record.runs[0].files[0].sha256
    frame = report.to_frame("ogr")
    assert set(frame["lag"]) == {"2", "cumulative"} and len(frame) == 3 * 4 * (T - 2 + T - 1)
    with pytest.raises(RecordError, match="0 rows"):
        report.estimate("overfitting", head="nobody")
    with pytest.raises(RecordError, match="say also checkpoint"):
        report.estimate("ogr", head="audio")
    with pytest.raises(RecordError, match="expected one of the measures"):
        report.measure("nothing")


@pytest.mark.parametrize(
    "damage",
    ['{"schema_version": 2}', "{}", "", '{"schema_version": 1}', '{"schema_version": 1, "a": NaN}'],
)
def test_damaged_records(tmp_path, damage):
    (tmp_path / "losses.json").write_text(damage)
    with pytest.raises(RecordError):
        LossReport.load(tmp_path)


def test_real_logs_are_read_whole():
    report = ogr(shared_file("logs/lightning/metrics.csv"))
    assert report.record.runs[0].at == (0, 1, 2, 3, 4)
    assert any("after the training" in note for note in report.record.notes)
    assert not report.record.unusable
    runs = read_losses(shared_file("logs/mfn_mosi_runs.json"))
    assert len(runs.runs) == 40 and all(
        run.train.shape == (1, 50) and not run.flags for run in runs.runs
    )
    sets = ogr(shared_file("logs/huggingface/trainer_state.json"))
    assert (
        len(sets.heads) == 6 and sets.record.evaluation_sets and len(sets.record.runs[0].at) == 30
    )
    folder = shared_file(
        "logs/tensorboard/labeled_contrastive/events.out.tfevents.1713773043.host.0"
    ).parent
    pytest.importorskip("tensorboard")
    batches = read_losses(folder).runs[0]
    assert batches.train.shape == (1, 100) and "about 77" in batches.window and not batches.unusable


@pytest.mark.parametrize("heads", [1, 2, 12])
def test_any_number_of_heads(tmp_path, heads):
    columns = {}
    for number in range(heads):
        train, held_out = planted("audio", 5 + number)
        columns |= {f"train_m{number}_loss": train, f"val_m{number}_loss": held_out}
    path = tmp_path / "log.csv"
    path.write_text(log_text(heads=(), columns=columns))
    report = ogr(path)
    assert [onset(report, f"m{n}").value for n in range(heads)] == [6 + n for n in range(heads)]
    assert report.record.joint is None
    assert (report.measure("blend_weights").undefined is None) == (heads > 1)


@pytest.mark.parametrize("checkpoints", [1, 2, 3])
def test_few_checkpoints(tmp_path, checkpoints):
    path = tmp_path / "log.csv"
    path.write_text("".join(log_text().splitlines(keepends=True)[: checkpoints + 1]))
    report = ogr(path)
    assert any(flag.kind == "few checkpoints" for flag in report.flags)
    assert (report.findings[0].rule == "too few checkpoints") == (checkpoints < 3)


def test_what_is_refused(tmp_path):
    (path,) = write_logs(tmp_path)
    for options in ({"lag": 0}, {"lag": 40}, {"smoothing": 1.0}, {"super_epoch": 0}):
        with pytest.raises(UndefinedMeasureError):
            ogr(path, **options)
    for call in (
        lambda: ogr(path, policy="max"),
        lambda: ogr(read_losses(path), form="csv"),
        lambda: ogr([]),
    ):
        with pytest.raises(MMAuditError):
            call()


@pytest.mark.parametrize("norms", [False, True])
def test_nothing_here_loads_torch(tmp_path, norms):
    path = steady(tmp_path / "losses.jsonl") if norms else write_logs(tmp_path)[0]
    code = (
        "import sys, mmaudit; report = mmaudit.ogr(sys.argv[1]); report.figures(); report.markdown(); "
        "report.html(sys.argv[2]); sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "a.html")], check=False
    )
    assert ended.returncode == 0


def recorded(folder, names, *, left_out=0):
    """A log as recorders write it, with the map beside it; its train losses are above the validation losses."""
    path = folder / "losses.jsonl"
    lines = [{"about": "clean losses of all heads", "heads": "...", "loss": "nats"}]
    for at in range(T):
        for split in ("train", "validation"):
            values = {f"{n}_loss": 2 - at / T + (split == "train") / 5 for n in (*names, "joint")}
            if left_out:
                values[NONFINITE] = float(left_out)
            lines += [
                {"step": at, "epoch": at, "split": split, "name": name, "value": value}
                for name, value in values.items()
            ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    map_path(path).write_text(recorded_map(names).text())
    return path


def test_a_recorded_log_is_clean_and_has_its_map(tmp_path):
    names = ("train", "total", "Ton (L)")
    report = ogr(recorded(tmp_path, names))
    assert report.heads == (*names, "joint") and report.record.guessed == ()
    assert "beside the log" in report.record.notes[0]
    assert report.flags == ()
    # of an unknown log the same numbers would speak of training mode
    map_path(tmp_path / "losses.jsonl").rename(tmp_path / "map.yaml")
    text = (tmp_path / "losses.jsonl").read_text().split("\n", 1)[1]
    (tmp_path / "losses.jsonl").write_text(text)
    again = ogr(tmp_path / "losses.jsonl", map=tmp_path / "map.yaml")
    assert {flag.kind for flag in again.flags} == {"training mode"}


def test_samples_that_a_recorder_left_out_are_told(tmp_path):
    (train, validation) = ogr(recorded(tmp_path, ("a", "b"), left_out=12)).flags
    assert "up to 12 samples of 'train' are left out" in train.text
    assert "'validation'" in validation.text and validation.kind == "not finite"


def test_learning_speeds_are_part_of_the_record(tmp_path):
    path = steady(tmp_path / "losses.jsonl")
    report = ogr(path)
    for branch in ("audio", "image"):
        known = np.log10(CROSSING[branch] / OWN[branch])
        found = report.estimate("learning_speed", branch=branch, checkpoint="40")
        assert found.value == pytest.approx(known) and found.method == "no interval: one run"
    apart = report.estimate("learning_speed", checkpoint="40", quantity="difference")
    speeds = learning_speeds(path)
    assert apart.value == pytest.approx(speeds.difference[-1]) and speeds.step[-1] == 40
    (found,) = [f for f in report.findings if f.rule == "conditional learning speed"]
    assert found.level == "information" and found.modality == "audio"
    assert LossReport.load(report.save(tmp_path / "out")) == report
    assert not any("norms" in note for note in report.record.notes)
    assert list(report.figures()) == ["loss_curves", "ogr", "blend_weights", "learning_speed"]


def test_the_losses_do_not_depend_on_norms_beside_them(tmp_path):
    (tmp_path / "plain").mkdir()
    with_norms, without = steady(tmp_path / "a.jsonl"), write_log(tmp_path / "plain" / "a.jsonl", {})  # fmt: skip
    one, other = ogr(with_norms), ogr(without)
    assert "learning_speed" not in other.measures and other.record.notes == one.record.notes
    for key, measure in other.measures.items():
        assert one.measures[key] == measure
    rule = "conditional learning speed"
    assert tuple(f for f in one.findings if f.rule != rule) == other.findings


def test_norms_of_the_runs_that_are_used(tmp_path):
    paths = [steady(tmp_path / f"{i}.jsonl") for i in range(2)]
    crashed = tmp_path / "crashed.jsonl"
    crashed.write_text("".join(json.dumps(row) + "\n" for row in norm_rows(1, constant())))
    without = write_log(tmp_path / "without.jsonl", {})
    maps = {"map": map_path(paths[0])}
    log = read_losses([*paths, crashed, without], **maps)
    assert set(log.norms) == {"0", "1"} and set(log.titles) == {"0", "1", "without"}
    report = ogr(log)
    assert "Norms for learning speeds were recorded in 2 of 3 runs." in report.record.notes
    assert report.measure("learning_speed").settings["runs"] == 2
    found = report.estimate("learning_speed", branch="audio", checkpoint="40")
    assert found.method == "Student t over 2 of 3 runs"
    assert "learning_speed" not in ogr(log.select("without")).measures
    with pytest.raises(LogError, match="holds norms of 2 runs"):
        learning_speeds(tmp_path)
