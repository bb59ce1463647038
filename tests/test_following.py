from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

import mmaudit
from mmaudit.cli import main
from mmaudit.evidence.loss_map import read_map
from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.losses import align
from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import CheckpointError, ModelError, RecordError, SpecError
from mmaudit.measures.ogr import first_overfitting
from mmaudit.training import LossRecorder
from tests.training.overfitting import AWAKE, EPOCHS, HEADS, TwoHeads, make_project, samples, train


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A training with a checkpoint of every epoch, recorded at the same time."""
    folder = tmp_path_factory.mktemp("project")
    audit_file = make_project(folder)
    log = LossRecorder(
        folder / "recorded.jsonl", audit_file, train=samples(60, 0), validation=samples(150, 1), train_samples="all"
    )  # fmt: skip

    def after(model, step, epoch):
        log.record(model, step=step, epoch=epoch)
        state = {"state_dict": model.state_dict(), "epoch": epoch, "global_step": step}
        torch.save(state, folder / "run" / f"epoch={epoch}-step={step}.ckpt")

    train(after)
    return folder


def series(project, out, some="*", **options):
    options = {"replicates": 100, **options}
    return mmaudit.trajectory(
        project / "audit.yaml", project / "run" / f"epoch={some}.ckpt", out=out, **options
    )


@pytest.fixture(scope="module")
def whole(project, tmp_path_factory):
    return series(project, tmp_path_factory.mktemp("series") / "out")


def test_checkpoints_and_the_log_of_the_training_agree(project, whole):
    (recorded,), (found,) = read_runs(project / "recorded.jsonl"), read_runs(whole.log)
    names = [name for name in recorded.series if "loss" in name]
    assert len(names) == 6
    for name in names:
        one, other = recorded.series[name], found.series[name]
        assert (
            one.step.tolist() == other.step.tolist() and one.epoch.tolist() == other.epoch.tolist()
        )
        np.testing.assert_allclose(one.value, other.value, rtol=1e-6)
    assert guess_map([found]).map.heads == read_map(whole.map).heads


def test_the_overfitting_head_is_found_at_its_epoch(whole):
    (run,) = read_runs(whole.log)
    losses = align(run, read_map(whole.map))
    first = dict(zip(losses.heads, first_overfitting(losses.train, losses.validation), strict=True))
    assert losses.at.tolist() == list(range(EPOCHS + 1)) and not losses.unusable
    assert losses.at[first["noise"]] == AWAKE + 1 and first["signal"] is None


def test_both_records_say_which_head_overfits_first(project, whole):
    for log in (project / "recorded.jsonl", whole.log):
        said = [finding.text for finding in mmaudit.ogr(log).findings]
        assert any(
            text.startswith(f"noise overfits first, from epoch {AWAKE + 1}") for text in said
        )


def test_measures_along_the_training(project, whole):
    frame = whole.measures
    assert set(frame["measure"]) == {"responses", "contributions", "utilization"}
    assert frame["epoch"].nunique() == EPOCHS + 1
    s = frame[(frame["quantity"] == "s") & (frame["modality"] == "signal") & (frame["empty"] == "exact") & (frame["class"] == "all")]  # fmt: skip
    losses = whole.losses
    held = losses[(losses["head"] == "signal") & (losses["split"] == "validation")]
    np.testing.assert_allclose(s["value"], held["loss"], rtol=1e-5)
    assert (s["low"] < s["value"]).all() and (s["n"] == 150).all()
    pd.testing.assert_frame_equal(pd.read_parquet(whole.folder / "measures.parquet"), frame)


def test_what_it_took_is_about_one_pass(whole):
    rows = [json.loads(path.read_text()) for path in (whole.folder / "checkpoints").iterdir()]
    assert len(rows) == EPOCHS + 1 and {row["method"] for row in rows} == {"packed"}
    passes = [value for row in rows for value in row["passes"].values()]
    assert min(passes) >= 1 and np.median(passes) < 2
    about = json.loads(whole.log.read_text().splitlines()[0])
    assert "passes over train" in about["cost"] and "epochs in the names" in about["notes"]
    assert {file["role"] for row in rows for file in row["files"]} == {"checkpoint", "code"}


def test_own_heads(project, tmp_path):
    found = series(project, tmp_path / "out", "1[02]*", heads=HEADS, measures=["utilization"])
    model = TwoHeads()
    model.load_state_dict(torch.load(next((project / "run").glob("epoch=12*")))["state_dict"])
    data = samples(60, 0)
    with torch.no_grad():
        scores = model.eval()(data["signal"], data["noise"])["by_noise"]
    expected = torch.nn.functional.cross_entropy(scores, data["y"]).item()
    losses = found.losses.set_index(["epoch", "split", "head"])["loss"]
    assert losses[12, "train", "noise"] == pytest.approx(expected, rel=1e-5)
    row = json.loads(next((tmp_path / "out" / "checkpoints").glob("epoch=12*")).read_text())
    assert row["passes"]["train"] == 1


def test_an_interrupted_series_goes_on(project, tmp_path):
    seen, out = [], tmp_path / "out"

    def stop(stage, done, total):
        seen.append(stage)
        if stage.startswith("epoch=3") and "validation" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        series(project, out, "[0-4]-*", progress=stop)
    assert len(list((out / "checkpoints").iterdir())) == 3
    with pytest.raises(RecordError, match="resume"):
        series(project, out, "[0-4]-*")
    with pytest.raises(RecordError, match="another heads"):
        series(project, out, "[0-4]-*", resume=True, heads=HEADS)
    seen.clear()
    found = series(project, out, "[0-4]-*", resume=True, progress=lambda stage, *_: seen.append(stage))  # fmt: skip
    assert {stage.partition("-")[0] for stage in seen} == {"epoch=3", "epoch=4"}
    plain = series(project, tmp_path / "plain", "[0-4]-*")
    assert found.losses.equals(plain.losses) and found.measures.equals(plain.measures)
    # A training that goes on: only what is new is evaluated.
    seen.clear()
    more = series(project, out, "[0-5]-*", resume=True, progress=lambda stage, *_: seen.append(stage))  # fmt: skip
    assert {stage.partition("-")[0] for stage in seen} == {"epoch=5"}
    assert more.losses["epoch"].max() == 5
    assert not (out / ".running").exists()


def test_a_checkpoint_that_was_written_again_is_evaluated_again(project, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    torch.manual_seed(0)
    for epoch in (1, 2):
        save_file(TwoHeads().state_dict(), run / f"epoch{epoch}.safetensors")
    options = {"out": tmp_path / "out", "replicates": 100}
    first = mmaudit.trajectory(project / "audit.yaml", run / "*.safetensors", **options)
    save_file(TwoHeads().state_dict(), run / "epoch2.safetensors")
    os.utime(run / "epoch2.safetensors", ns=(1, 1))
    second = mmaudit.trajectory(
        project / "audit.yaml", run / "*.safetensors", resume=True, **options
    )
    changed = first.losses["loss"] != second.losses["loss"]
    assert set(first.losses["epoch"][changed]) == {2}


def test_without_validation_data_the_test_split_stands_in_and_that_is_said(project, tmp_path):
    audit_file = make_project(tmp_path, validation=False)
    found = mmaudit.trajectory(audit_file, project / "run" / "epoch=[01]-*", out=tmp_path / "out", replicates=100)  # fmt: skip
    assert set(found.losses["split"]) == {"train", "test"}
    assert any("chosen on test data" in note for note in found.notes)
    guess = guess_map(read_runs(found.log))
    assert any("test" in sentence for sentence in guess.sentences)
    assert guess.map.heads == read_map(found.map).heads


def test_few_samples_are_the_same_at_every_checkpoint(project, tmp_path):
    found = series(project, tmp_path / "out", "[01]-*", train_samples=30, validation_samples=40)
    counts = found.losses.groupby("split")["n"].unique()
    assert counts["train"].tolist() == [30] and counts["validation"].tolist() == [40]
    log = LossRecorder(
        tmp_path / "recorded.jsonl", project / "audit.yaml", train=samples(60, 0), validation=samples(150, 1),
        train_samples=30, validation_samples=40,
    )  # fmt: skip
    model = TwoHeads()
    model.load_state_dict(torch.load(next((project / "run").glob("epoch=1-*")))["state_dict"])
    expected = log.record(model, step=3, epoch=1)
    for row in found.losses[found.losses["epoch"] == 1].to_dict("records"):
        assert row["loss"] == pytest.approx(
            expected[f"{row['split']}/{row['head']}_loss"], rel=1e-6
        )


def test_a_diverged_checkpoint_does_not_end_the_series(project, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    model = TwoHeads()
    save_file(model.state_dict(), run / "epoch1.safetensors")
    with torch.no_grad():
        model.signal[0].weight.fill_(float("nan"))
    save_file(model.state_dict(), run / "epoch2.safetensors")
    found = mmaudit.trajectory(project / "audit.yaml", run / "*.safetensors", out=tmp_path / "out", replicates=100)  # fmt: skip
    losses = found.losses.set_index(["epoch", "split", "head"])["loss"]
    assert np.isnan(losses[2, "train", "joint"]) and np.isfinite(losses[1, "train", "joint"])
    assert set(found.measures["epoch"]) == {1}
    assert any("no held-out sample has finite outputs" in note for note in found.notes)
    (run_read,) = read_runs(found.log)
    assert np.isnan(run_read.series["validation/joint_loss"].value).tolist() == [False, True]


def test_samples_that_are_left_out_are_told(project, tmp_path):
    audit_file = make_project(tmp_path)
    held_out = dict(np.load(tmp_path / "validation.npz"))
    held_out["noise"][:3] = np.inf
    np.savez(tmp_path / "validation.npz", **held_out)
    found = mmaudit.trajectory(audit_file, project / "run" / "epoch=[01]-*", out=tmp_path / "out", replicates=100)  # fmt: skip
    told = [note for note in found.notes if "3 of 150 samples of the validation split" in note]
    assert len(told) == 1 and "the same for 1 other" in told[0]
    assert set(found.losses.groupby("split")["n"].max().to_dict().items()) == {("train", 60), ("validation", 147)}  # fmt: skip
    (run_read,) = read_runs(found.log)
    assert run_read.series["validation/nonfinite_samples"].value.tolist() == [3, 3]


def test_a_damaged_checkpoint_does_not_lose_the_others(project, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    torch.manual_seed(0)
    for epoch in (1, 2, 3):
        save_file(TwoHeads().state_dict(), run / f"epoch{epoch}.safetensors")
    whole = (run / "epoch2.safetensors").read_bytes()
    (run / "epoch2.safetensors").write_bytes(whole[:200])
    options = {"out": out, "replicates": 100}
    pattern = (project / "audit.yaml", run / "*.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of 3 checkpoints cannot be used.*epoch2.*--resume"):  # fmt: skip
        mmaudit.trajectory(*pattern, **options)
    (run_read,) = read_runs(out / "losses.jsonl")
    assert run_read.series["train/joint_loss"].epoch.tolist() == [1, 3]
    assert not (out / ".running").exists()
    (run / "epoch2.safetensors").write_bytes(whole)
    seen = []
    found = mmaudit.trajectory(*pattern, **options, resume=True, progress=lambda stage, *_: seen.append(stage))  # fmt: skip
    assert found.losses["epoch"].unique().tolist() == [1, 2, 3]
    assert {stage.partition(".")[0] for stage in seen} == {"epoch2"}
    for path in run.iterdir():
        path.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints can be used"):
        mmaudit.trajectory(*pattern, out=tmp_path / "none")


def test_what_found_nothing_is_begun_anew(project, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="'by_sight'"):
        series(project, out, "[01]-*", heads={"signal": "by_sight"})
    found = series(project, out, "[01]-*", heads={"signal": "by_signal"})
    assert len(found.losses) == 2 * 2 * 3
    with pytest.raises(RecordError, match=r"another seed \(0; now 5\)"):
        series(project, out, "[01]-*", heads={"signal": "by_signal"}, resume=True, seed=5)


def test_notes_that_differ_by_the_checkpoint_alone_are_said_once(whole):
    told = [note for note in whole.notes if "under 'state_dict'" in note]
    assert told == [
        f"Took the weights under 'state_dict' of epoch=0-step=0.ckpt (the same for {EPOCHS} other checkpoints)."
    ]


def test_concepts_give_competition_along_the_training(project, tmp_path):
    audit_file = make_project(tmp_path)
    spec = yaml.safe_load(audit_file.read_text())
    data = samples(150, 1)
    np.savez(
        tmp_path / "concept.npz", id=np.arange(150).astype(str), concept=data["signal"].numpy()
    )
    spec |= {"probe": {"concepts": {"signal": "concept.npz"}}, "latent": "signal.2"}
    audit_file.write_text(yaml.safe_dump(spec))
    found = mmaudit.trajectory(audit_file, project / "run" / "epoch=[09]-*", out=tmp_path / "out", replicates=100)  # fmt: skip
    strength = found.measures[found.measures["measure"] == "competition"]
    assert set(strength["epoch"]) == {0, 9}
    pooled = strength[(strength["modality"] == "signal") & strength["value"].notna()]
    assert len(pooled) >= 2


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"checkpoints": "nowhere/*.pt"}, SpecError, "no checkpoint matches"),
        ({"heads": {"smell": "x"}}, SpecError, "'smell' is no modality"),
        ({"train_samples": 0}, SpecError, "train_samples is 0"),
        ({"empty": "none"}, SpecError, "empty is 'none'"),
        ({"measures": ["magic"]}, SpecError, "unknown measure"),
        ({"checkpoints": "wrong"}, CheckpointError, "signal"),
        ({"checkpoints": "pickle"}, CheckpointError, "trust"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(project, tmp_path, options, error, said):
    if options.get("checkpoints") == "wrong":
        save_file({"other": torch.ones(2)}, tmp_path / "epoch1.safetensors")
        options = {"checkpoints": tmp_path / "epoch1.safetensors"}
    if options.get("checkpoints") == "pickle":
        torch.save(TwoHeads(), tmp_path / "epoch1.pt")
        options = {"checkpoints": tmp_path / "epoch1.pt"}
    options = {"checkpoints": project / "run" / "epoch=0*", **options}
    with pytest.raises(error, match=said):
        mmaudit.trajectory(project / "audit.yaml", out=tmp_path / "out", **options)


def test_training_data_is_needed(project, tmp_path):
    audit_file = make_project(tmp_path)
    spec = yaml.safe_load(audit_file.read_text())
    del spec["data"]["train"]
    audit_file.write_text(yaml.safe_dump(spec))
    with pytest.raises(SpecError, match=r"data\.train"):
        mmaudit.trajectory(audit_file, project / "run" / "epoch=0*", out=tmp_path / "out")


def test_foreign_folders_are_left_alone(project, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RecordError, match="not empty"):
        series(project, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def command(*arguments):
    sys.argv = ["mmaudit", *map(str, arguments)]
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_the_command(project, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    out = tmp_path / "out"
    base = (
        "trajectory",
        project / "audit.yaml",
        "--checkpoints",
        project / "run" / "epoch=[01]-*",
        "--quiet",
    )
    options = ("--out", out, "--heads", "noise=by_noise", "--replicates", "100")
    assert command(*base, *options) == 0
    said = capsys.readouterr().out
    assert "joint validation" in said and "epoch=1-step=30.ckpt" in said and "mmaudit ogr" in said
    assert "\n".join(said.splitlines()[1:3]).count("epoch=") == 2
    assert command(*base, *options) == 2
    assert "resume" in capsys.readouterr().err
    assert f"mmaudit ogr {out / 'losses.jsonl'} --map {out / 'losses.map.yaml'}" in said
    assert command(*base, *options, "--resume") == 0
    # A pattern without quotes is files by the time it is read.
    files = sorted((project / "run").glob("epoch=[01]-*"))
    plain = ("trajectory", project / "audit.yaml", "--checkpoints", *files, "--quiet", *options)
    assert command(*plain, "--resume") == 0
    assert capsys.readouterr().out.count("epoch=") == 4
    assert command(*base, "--out", tmp_path / "b", "--heads", "noise") == 2
    assert "MODALITY=PATH" in capsys.readouterr().err


_RUN = """
import sys, torch, mmaudit
torch.set_num_threads(1)
mmaudit.trajectory(sys.argv[1], sys.argv[2], out=sys.argv[3], replicates=100, batch_size=7, device="cpu", resume=True)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


def started(project, out, *launcher):
    root = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    script = out.parent / "run.py"
    script.write_text(_RUN)
    pattern = str(project / "run" / "epoch=[0-5]-*")
    with (out.parent / "said.txt").open("w") as said:
        return subprocess.Popen(
            [*launcher, script, project / "audit.yaml", pattern, out], env=environment, stderr=said
        )


@pytest.fixture
def one_thread():
    """As in the processes that are started: the last bits of a sum depend on the number of threads."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_series_goes_on(project, tmp_path):
    out = tmp_path / "out"
    for done in (1, 3):
        process = started(project, out, sys.executable)
        until = time.monotonic() + 100
        while len(list(out.glob("checkpoints/*.json"))) < done and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert started(project, out, sys.executable).wait() == 0
    plain = series(project, tmp_path / "plain", "[0-5]-*", batch_size=7)
    # All but the first line, which says what it took.
    assert (out / "losses.jsonl").read_text().splitlines()[
        1:
    ] == plain.log.read_text().splitlines()[1:]


_TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_same(project, tmp_path):
    out = tmp_path / "out"
    process = started(project, out, sys.executable, *_TWO)
    assert process.wait(timeout=300) == 0, (tmp_path / "said.txt").read_text()[-2000:]
    plain = series(project, tmp_path / "plain", "[0-5]-*", batch_size=7)
    (one,), (two,) = read_runs(plain.log), read_runs(out / "losses.jsonl")
    for name in one.series:
        np.testing.assert_allclose(one.series[name].value, two.series[name].value, rtol=1e-9)
    frame = pd.read_parquet(out / "measures.parquet")
    np.testing.assert_allclose(frame["value"], plain.measures["value"], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_two_processes_leave_a_damaged_checkpoint_out_together(tmp_path):
    make_project(tmp_path)
    for epoch in range(4):
        save_file(TwoHeads().state_dict(), tmp_path / "run" / f"epoch={epoch}-.safetensors")
    (tmp_path / "run" / "epoch=2-.safetensors").write_bytes(b"x" * 50)
    out = tmp_path / "out"
    process = started(tmp_path, out, sys.executable, *_TWO)
    assert process.wait(timeout=300) != 0
    assert "1 of 4 checkpoints cannot be used" in (tmp_path / "said.txt").read_text()
    (run_read,) = read_runs(out / "losses.jsonl")
    assert run_read.series["train/joint_loss"].epoch.tolist() == [0, 1, 3]
