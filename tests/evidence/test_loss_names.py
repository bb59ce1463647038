"""Names of losses as people write them: the heads that are guessed, and that it is told."""

import numpy as np
import pytest

from mmaudit.evidence.loss_map import LossMap, read_map
from mmaudit.evidence.loss_names import guess_map, of_test_set, read_name
from mmaudit.evidence.readers import Run, Series
from mmaudit.evidence.readers.huggingface import TRAINER
from mmaudit.exceptions import LogError

COUNT = np.arange(4)
SERIES = Series(COUNT, COUNT.astype(float), np.ones(4), COUNT)
ONE = Series(COUNT[:1], np.zeros(1), np.ones(1), COUNT[:1])


def run(*names, title="r"):
    return Run(title, "CSV", (), dict.fromkeys(names, SERIES))


def heads(*names):
    found = guess_map([run(*names)]).map
    return {head: (pair.train, pair.validation) for head, pair in found.heads.items()}, found


@pytest.mark.parametrize(
    "pattern",
    [
        "{split}/{head}_loss", "{split}_{head}_loss", "loss_{head}/{split}", "{head}/{split}/loss", "{split}_loss_{head}",
        "{split}.nll.{head}", "{head} {split} loss", "{split}-{head}-loss", "metrics/{split}/{head}/loss", "{split}/{head}_loss_epoch",
        "{split}_{head}_cross_entropy", "{split}|{head}|Loss",
    ],
)  # fmt: skip
@pytest.mark.parametrize("splits", [("train", "val"), ("Train", "Valid"), ("training", "validation"), ("trn", "dev"), ("train", "eval")])  # fmt: skip
def test_one_pattern_for_all(pattern, splits):
    names = [pattern.format(split=s, head=h) for h in ("audio", "text", "fusion") for s in splits]
    found, used = heads(*names)
    expected = {
        h: tuple(pattern.format(split=s, head=h) for s in splits) for h in ("audio", "text")
    }
    assert found == {**expected, "joint": tuple(names[4:])}
    assert used.joint_head == "joint"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("trainAudioLoss", "valAudioLoss", "trainLoss", "valLoss"), {"audio": 0, "joint": 2}),
        (("audio_loss", "val_audio_loss", "loss", "val_loss"), {"audio": 0, "joint": 2}),
        (("loss_v", "val_loss_v"), {"v": 0}),
        (("Loss/train", "Loss/val"), {"joint": 0}),
        (("epoch/loss", "epoch/val_loss"), {"joint": 0}),
        (("trainloss", "valloss"), {"joint": 0}),
        (("CELoss/train", "CELoss/val"), {"joint": 0}),
        (("loss1/train", "loss1/val", "loss2/train", "loss2/val"), {"1": 0, "2": 2}),
        (("train_av_loss", "val_av_loss", "train_audio_loss", "val_audio_loss"), {"audio": 2, "joint": 0}),
        (("train/loss", "train/val_loss"), {"joint": 0}),
        (("eval_train_loss", "eval_val_loss", "loss"), {"joint": 0}),
        (("train_loss", "test_loss"), {"joint": 0}),
    ],
)  # fmt: skip
def test_habits(names, expected):
    found, _ = heads(*names)
    assert found == {head: (names[i], names[i + 1]) for head, i in expected.items()}


def test_the_sum_of_several_losses_is_not_taken_for_the_joint_head():
    found, _ = heads(
        "train_loss", "val_loss", "train_total_loss", "val_total_loss", "train_fusion_loss", "val_fusion_loss",
        "train_audio_loss", "val_audio_loss",
    )  # fmt: skip
    assert found["joint"] == ("train_fusion_loss", "val_fusion_loss")
    found, _ = heads("train_total_loss", "val_total_loss", "train_loss", "val_loss")
    assert found["joint"] == ("train_loss", "val_loss")


def test_names_that_differ_are_told():
    guess = guess_map([run("train_loss", "val_fusion_loss", "train_a_loss", "val_a_loss")])
    assert guess.map.heads["joint"].train == "train_loss"
    assert any("called differently" in text for text in guess.sentences)


def test_of_several_series_the_best_is_taken_and_the_others_are_told():
    names = (
        "train/loss_step",
        "train/loss_epoch",
        "train/clean_loss",
        "val/loss",
        "best_val_loss",
        "loss_scale",
    )
    guess = guess_map([run(*names)])
    assert guess.map.heads["joint"].train == "train/clean_loss"
    assert "2 other losses left out" in guess.sentences[-1]
    mixed = Run("r", "", (), {"train_loss": ONE, "loss": SERIES, "val_loss": SERIES})
    assert guess_map([mixed]).map.heads["joint"].train == "loss"


def test_one_train_loss_that_names_no_head_is_shared():
    guess = guess_map([run("loss", "eval_g0_loss", "eval_g1_loss")])
    assert guess.map.evaluation_sets and guess.map.joint_head is None
    assert set(guess.map.heads) == {"g0", "g1"}
    told = guess.sentences[0]
    assert "taken for sets of data; if they are heads of the model, each needs a train loss" in told
    alone = guess_map([run("loss", "val_audio_loss")])
    assert set(alone.map.heads) == {"audio"} and "called differently" in alone.sentences[0]


@pytest.mark.parametrize(
    ("names", "kept", "left"),
    [
        (("train/fusion_loss", "val/audio_loss", "val/fusion_loss", "val/image_loss"), {"joint"}, "'val/audio_loss', 'val/image_loss' have no train loss of their own"),
        (("train/audio_loss", "val/audio_loss", "val/fusion_loss"), {"audio"}, "'val/fusion_loss' has no train loss of its own"),
        (("train_loss", "val_loss", "val_a_loss", "val_b_loss"), {"joint"}, "'val_a_loss', 'val_b_loss' have"),
        (("train_loss", "val_fusion_loss", "val_a_loss"), {"joint"}, "'val_a_loss' has no train loss"),
        (("loss", "a_loss", "val_a_loss", "val_b_loss"), {"a"}, "'val_b_loss' has no train loss"),
    ],
)  # fmt: skip
def test_a_train_loss_that_names_a_head_is_of_that_head_alone(names, kept, left):
    guess = guess_map([run(*names)])
    assert set(guess.map.heads) == kept
    assert any(left in text and text.endswith("left out.") for text in guess.sentences)
    assert not guess.map.evaluation_sets


def trainer(*names):
    return guess_map([Run("r", TRAINER, (), dict.fromkeys(names, SERIES))])


@pytest.mark.parametrize("own", ["clean", "main", "total", "all", "full", "joint", "multimodal", "test", "val", "time"])  # fmt: skip
def test_sets_of_a_trainer_are_called_as_they_are(own):
    guess = trainer("loss", "learning_rate", f"eval_{own}_loss", "eval_in_domain_loss")
    assert {h: m.validation for h, m in guess.map.heads.items()} == {
        own: f"eval_{own}_loss", "in_domain": "eval_in_domain_loss"
    }  # fmt: skip
    assert {m.train for m in guess.map.heads.values()} == {"loss"}
    assert guess.map.joint_head is None and guess.map.evaluation_sets
    assert "they are evaluation sets of the Trainer" in guess.sentences[0]
    assert not any("No joint head" in text for text in guess.sentences)


def test_what_else_a_trainer_logs():
    assert trainer("loss", "eval_loss").map.joint_head == "joint"
    assert set(trainer("loss", "eval_loss", "eval_hard_loss").map.heads) == {"eval", "hard"}
    assert set(trainer("loss", "eval_loss", "eval_eval_loss").map.heads) == {"eval", "eval_"}
    assert set(trainer("loss", "eval_hard_loss").map.heads) == {"hard"}
    own = trainer("loss", "audio_loss", "eval_loss", "eval_audio_loss").map
    assert own.joint_head == "joint" and own.heads["audio"].train == "audio_loss"
    parts = trainer("loss", "kl_loss", "eval_clean_loss", "eval_noisy_loss").map
    assert set(parts.heads) == {"clean", "noisy"}
    clean = trainer("loss", "eval_train_loss", "eval_val_loss", "eval_ood_loss").map
    assert {m.train for m in clean.heads.values()} == {"eval_train_loss"}
    assert set(clean.heads) == {"val", "ood"}


def test_sets_of_data_have_a_joint_head_only_where_the_map_says_so():
    pairs = {n: {"train": "loss", "validation": n} for n in ("joint", "a")}
    assert read_map({"heads": pairs}).joint_head is None
    assert read_map({"heads": pairs, "joint": "joint"}).joint_head == "joint"


def test_several_validation_sets_of_lightning():
    names = [f"val/{h}_loss/dataloader_idx_{i}" for h in ("audio", "fusion") for i in (10, 2)]
    guess = guess_map([run("train/audio_loss", "train/fusion_loss", *names)])
    assert guess.map.heads["audio"].validation == "val/audio_loss/dataloader_idx_2"
    assert guess.map.heads["joint"].validation == "val/fusion_loss/dataloader_idx_2"
    assert "the first (dataloader_idx_2) was taken, the others (dataloader_idx_10)" in guess.sentences[0]  # fmt: skip
    assert "2 other losses left out" in guess.sentences[-1]
    plain = guess_map([run("train_loss", "val_loss/dataloader_idx_0")])
    assert plain.map.joint_head == "joint" and len(plain.sentences) == 1
    apart = guess_map([run("train_a_loss", "train_b_loss", "val_a_loss/dataloader_idx_0", "val_b_loss/dataloader_idx_1")])  # fmt: skip
    assert set(apart.map.heads) == {"a", "b"}
    assert not any("several sets" in text for text in apart.sentences)


@pytest.mark.parametrize(
    "word", ["weighted", "scaled", "aux", "auxiliary", "kl", "reg", "regularization", "regularizer", "penalty", "consistency", "commitment", "entropy"]
)  # fmt: skip
def test_parts_of_a_loss_are_no_heads(word):
    extra = [f"{s}/audio_{word}_loss" for s in ("train", "val")] + [
        f"{s}_{word}_loss" for s in ("train", "val")
    ]
    guess = guess_map([run(*extra, "train/audio_loss", "val/audio_loss", "train_loss", "val_loss")])
    assert {h: m.train for h, m in guess.map.heads.items()} == {
        "audio": "train/audio_loss", "joint": "train_loss"
    }  # fmt: skip
    assert "4 other losses left out" in guess.sentences[-1]
    assert all(read_name(name) is not None for name in extra)
    with pytest.raises(LogError, match="name them in a map"):
        guess_map([run(*extra)])


def both(*names):
    return [f"{split}_loss_{name}".rstrip("_") for name in names for split in ("train", "val")]


AUXILIARY = (
    "contrastive", "info_nce", "distill", "distillation", "kd", "align", "alignment", "cls", "classification", "orthogonal", "recon",
    "reconstruction", "a_v_contrastive", "av_align", "audio_kd", "cls_head", "multimodal_contrastive",
)  # fmt: skip


@pytest.mark.parametrize("word", AUXILIARY)
def test_auxiliary_losses_are_no_heads_beside_others(word):
    guess = guess_map([run(*both("", "audio", "video", word))])
    assert set(guess.map.heads) == {"audio", "video", "joint"}
    assert guess.map.heads["joint"].train == "train_loss"
    assert any("were taken for parts of a loss" in text for text in guess.sentences)
    assert f"'train_loss_{word}'" in guess.sentences[-1]
    alone = guess_map([run(*both("", word))])
    assert set(alone.map.heads) == {"joint"} and f"'train_loss_{word}'" in alone.sentences[-1]


@pytest.mark.parametrize("word", AUXILIARY)
def test_a_head_that_is_called_like_a_part_is_taken_where_there_is_no_other(word):
    guess = guess_map([run(*both(word))])
    assert list(guess.map.heads.values())[0].train == f"train_loss_{word}"
    assert len(guess.map.heads) == 1
    assert any("is called like a part of a loss; it was taken for a head" in t for t in guess.sentences)  # fmt: skip
    # a joint loss that lacks a validation is no head either
    assert len(guess_map([run("train_total_loss", *both(word))]).map.heads) == 1


def test_of_several_parts_alone_none_is_taken():
    with pytest.raises(LogError, match="are parts of a loss") as caught:
        guess_map([run(*both("cls", "contrastive"))])
    assert "name them in a map" in str(caught.value)


def test_a_task_beside_a_modality_is_the_loss_of_its_head():
    found, _ = heads(*both("", "audio_cls", "video_cls"))
    assert found["audio"] == ("train_loss_audio_cls", "val_loss_audio_cls")
    assert set(found) == {"audio", "video", "joint"}
    found, _ = heads(*both("audio", "audio_cls", "audio_recon", "video_recon", "video_cls", "joint_cls"))  # fmt: skip
    assert found == {
        "audio": ("train_loss_audio", "val_loss_audio"),
        "video": ("train_loss_video_cls", "val_loss_video_cls"),
        "joint": ("train_loss_joint_cls", "val_loss_joint_cls"),
    }
    # the plain loss has no validation of its own: that of the same task belongs to the train loss
    found, _ = heads("train_loss_audio", *both("audio_cls"), "val_loss_audio_recon")
    assert found == {"audio": ("train_loss_audio_cls", "val_loss_audio_cls")}


def test_copies_times_a_weight_are_no_heads():
    found, _ = heads(*both("", "unscaled", "audio", "audio_unscaled"))
    assert found == {
        "audio": ("train_loss_audio", "val_loss_audio"), "joint": ("train_loss", "val_loss")
    }  # fmt: skip
    found, _ = heads(*both("audio_unscaled", "video_unscaled"))
    assert set(found) == {"audio", "video"}


@pytest.mark.parametrize(
    "name", ["fusion_output", "head_joint", "ensemble", "multimodal", "multimodal_head", "ensemble_output", "joint_logits", "output_fusion", "late_fusion"]
)  # fmt: skip
def test_joint_heads_are_known_beside_words_that_name_none(name):
    found, used = heads(*both("audio_output", "video_output", name))
    assert set(found) == {"audio", "video", "joint"} and used.joint_head == "joint"
    assert found["joint"] == (f"train_loss_{name}", f"val_loss_{name}")
    keras, _ = heads("audio_output_loss", f"{name}_loss", "val_audio_output_loss", f"val_{name}_loss")  # fmt: skip
    assert keras["joint"] == (f"{name}_loss", f"val_{name}_loss") and "audio" in keras


def test_words_that_name_no_head_are_dropped_where_heads_stay_apart():
    found, _ = heads("main/loss", "main/loss_audio", "validation/main/loss", "validation/main/loss_audio")  # fmt: skip
    assert found == {
        "audio": ("main/loss_audio", "validation/main/loss_audio"),
        "joint": ("main/loss", "validation/main/loss"),
    }
    assert set(heads(*both("head_1", "head_2"))[0]) == {"head_1", "head_2"}
    assert set(heads(*both("audio", "uni_audio"))[0]) == {"audio", "uni_audio"}
    assert set(heads(*both("head", "output"))[0]) == {"head", "output"}
    assert set(heads(*both("late_ct", "early_ct"))[0]) == {"late_ct", "early_ct"}
    assert heads(*both("late_fusion", "early_fusion"))[1].joint_head is None


@pytest.mark.parametrize("name", ["contrast", "t1_contrast", "clip", "mask", "depth", "flow", "cycle", "text_bert"])  # fmt: skip
def test_modalities_whose_names_are_near_those_of_parts_stay(name):
    found, _ = heads(*both("", name, "audio"))
    assert set(found) == {name, "audio", "joint"}


@pytest.mark.parametrize("unit", [" [nats]", " (bits)", " [%]", " [kcal/mol]", "[nats]"])
def test_units_are_no_heads(unit):
    found, _ = heads(*(name + unit for name in both("", "audio")))
    assert set(found) == {"audio", "joint"}
    found, _ = heads(*(f"{name}[{head}]" for head in ("audio", "text") for name in both("")))
    assert set(found) == {"audio", "text"}


def test_series_that_are_made_of_losses_are_told():
    guess = guess_map([run(*both("", "audio"), "best_val_loss", "train_loss_smoothed", "best_acc")])
    assert set(guess.map.heads) == {"audio", "joint"}
    told = [text for text in guess.sentences if "made of other losses" in text]
    assert told == ["'best_val_loss', 'train_loss_smoothed' are made of other losses (best, smoothed): left out."]  # fmt: skip
    assert not any("made of" in text for text in guess_map([run(*both(""))]).sentences)


def test_a_cross_entropy_is_no_part():
    found, _ = heads("train_audio_cross_entropy", "val_audio_cross_entropy")
    assert set(found) == {"audio"}


def test_more_heads_than_a_map_may_have():
    names = [f"{s}/h{i}_loss" for i in range(400) for s in ("train", "val")]
    with pytest.raises(LogError, match="400 heads were found .* name some in a map") as caught:
        guess_map([run(*names)])
    assert len(str(caught.value).splitlines()) == 1
    assert set(guess_map([run(*names), run("train_loss", "val_loss")]).map.heads) == {"joint"}
    assert len(guess_map([run(*names[:200])]).map.heads) == 100


def test_va_is_validation_unless_another_word_is():
    found, _ = heads("tr_loss", "va_loss", "tr_a_loss", "va_a_loss")
    assert found == {"a": ("tr_a_loss", "va_a_loss"), "joint": ("tr_loss", "va_loss")}
    found, _ = heads(*(f"{s}_{h}_loss" for h in ("v", "a", "va") for s in ("train", "val")))
    assert found["joint"] == ("train_va_loss", "val_va_loss")
    found, _ = heads("va_loss", "v_loss", "loss", "val_va_loss", "val_v_loss", "val_loss")
    assert found == {
        "v": ("v_loss", "val_v_loss"), "va": ("va_loss", "val_va_loss"), "joint": ("loss", "val_loss")
    }  # fmt: skip


def test_a_test_loss_stands_in_and_says_so():
    guess = guess_map([run("train_loss", "test_loss")])
    assert "No validation loss" in guess.sentences[0]
    assert of_test_set("test_loss") and not of_test_set("val_loss")


def test_the_map_that_most_runs_have():
    full = run("train_loss", "val_loss", "train_a_loss", "val_a_loss")
    crashed = run("train_loss", "train_a_loss")
    guess = guess_map([crashed, full, full, run("lr")])
    assert set(guess.map.heads) == {"a", "joint"}


@pytest.mark.parametrize(
    "names", [("accuracy", "lr"), ("train/policy_entropy",), ("train_loss",), ()]
)
def test_nothing_to_guess(names):
    with pytest.raises(LogError, match="name them in a map"):
        guess_map([run(*names)])


def test_a_guess_can_be_saved_and_read_back(tmp_path):
    found = guess_map([run("train_é_loss", "val_é_loss", "loss", "val_loss")]).map
    path = tmp_path / "heads.yaml"
    path.write_text(found.text(), encoding="utf-8")
    assert read_map(path) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\nb: *a\n", "aliases"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
        ("[" * 5000, "nested too deep"),
        ("- " * 5000, "nested too deep"),
        ("5", "expected heads"),
        ("heads: {a: {train: x}}", "heads.a.validation"),
        ("heads: {a: {train: x, validation: y, z: 1}}", "heads.a.z"),
        ("heads: {a: {train: x, validation: y}}\njoint: b\n", "joint is 'b', which is no head"),
        ("heads: [a, b]", "heads is a list"),
        ("head: {a: {train: x, validation: y}}", "'head' is no part of a map"),
        ("heads: {a: [x, y]}", "heads.a is a list"),
        ("heads: {a: {train: 1.5, validation: y}}", "heads.a.train is 1.5"),
        ("heads: {true: {train: x, validation: y}}", "put it into quotes"),
        ("epoch,train_loss\n0,1.5\n", "it is the text 'epoch,train_loss"),
        ("a: [", "not readable as YAML .line 1"),
        ("", "it is empty"),
        ("columns: {split: phase}", "heads is missing .columns alone"),
        (
            "heads: {a: {train: x, validation: y}}\ncolumns: {head: h}",
            "step, epoch, run, name, value, split.*columns: {epoch: ep, split: phase}",
        ),
        ("heads: {a: {train: x, validation: y}}\ncolumns: [split]", "columns is a list"),
        ("heads: {a: {train: x, validation: y}}\ncolumns: {split: [x]}", "columns.split is a list"),
        ("heads: {}", "heads"),
        ("x" * 200_000, "larger than"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_no_map(tmp_path, text, message):
    path = tmp_path / "heads.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LogError, match=message) as caught:
        read_map(path)
    sentence = str(caught.value)
    assert (
        sentence.isprintable()
        and "Input should" not in sentence
        and "validation error" not in sentence
    )
    with pytest.raises(LogError):
        read_map(tmp_path / "missing.yaml")


@pytest.mark.parametrize("source", [5, None, ["heads"], {}, {"heads": {"a": None}}])
def test_no_map_in_python(source):
    with pytest.raises(LogError, match="heads"):
        read_map(source)


def test_numbers_may_be_names_and_columns_go_with_the_heads():
    found = read_map(
        {"heads": {0: {"train": 1, "validation": 2}}, "columns": {"step": 0}, "joint": 0}
    )
    assert found.joint_head == "0" and found.heads["0"].train == "1" and found.columns.step == "0"
    assert read_map({"heads": found.heads, "columns": found.columns}).heads == found.heads


@pytest.mark.parametrize(
    ("names", "joint"),
    [
        (("rgb", "flow", "rgb_flow"), "rgb_flow"),
        (("rgb", "flow", "flow_rgb"), "flow_rgb"),
        (("text", "image", "text+image"), "text_image"),
        (("audio", "video", "audio_and_video"), "audio_and_video"),
        (("a", "v", "av"), None),
        (("t", "i", "ti"), "ti"),
        (("a", "t", "v", "at", "av", "tv", "atv"), "atv"),
        (("a", "t", "v", "av"), ""),
        (("rgb", "flow", "depth", "rgb_flow"), ""),
        (("text_bert", "image", "text_bert_image"), "text_bert_image"),
        (("rgb", "flow", "rgbflowx"), ""),
        (("rgb", "flow", "rgb_flow_fusion"), "rgb_flow_fusion"),
        (("a", "aa", "aaa", "aaaa", "aaaaaaaaab"), ""),
        (("m1", "m2", "m3", "m4", "m5", "m1m2m3m4m5"), "m1m2m3m4m5"),
        (tuple(f"x{i}" for i in range(11)) + ("".join(f"x{i}" for i in range(11)),), "".join(f"x{i}" for i in range(11))),
    ],
)  # fmt: skip
def test_a_head_that_is_called_after_all_others_is_the_joint_one(names, joint):
    guess = guess_map(
        [run(*(f"{split}_{name}_loss" for name in names for split in ("train", "val")))]
    )
    expected = names[-1] if joint != "" else None
    told = " ".join(guess.sentences)
    if expected is None:
        assert guess.map.joint_head is None and len(guess.map.heads) == len(names)
        assert "No joint head was recognised: name it in a map with joint: NAME." in guess.sentences
    else:
        assert guess.map.heads["joint"].train == f"train_{expected}_loss"
        assert list(guess.map.heads)[-1] == "joint" and len(guess.map.heads) == len(names)
        assert "No joint head" not in told
        if joint is not None:
            assert f"'{joint}' is called after all other heads" in told


def test_a_joint_head_that_says_so_comes_first():
    guess = guess_map(
        [run(*(f"{s}{h}loss" for h in ("rgb_", "flow_", "rgb_flow_", "fusion_") for s in ("train_", "val_")))]
    )  # fmt: skip
    assert guess.map.heads["joint"].train == "train_fusion_loss"
    assert set(guess.map.heads) == {"rgb", "flow", "rgb_flow", "joint"}


def test_one_head_and_evaluation_sets_lack_no_joint_head():
    for names in (("train_a_loss", "val_a_loss"), ("loss", "eval_g0_loss", "eval_g1_loss")):
        assert not any("No joint head" in text for text in guess_map([run(*names)]).sentences)


def test_a_log_whose_losses_are_all_not_finite_says_so():
    broken = SERIES._replace(value=SERIES.value * np.nan)
    with pytest.raises(LogError, match="no loss of the log is finite anywhere.*'train_loss'"):
        guess_map([Run("r", "", (), {"train_loss": broken, "val_loss": broken, "lr": SERIES})])
    with pytest.raises(LogError, match="No value of 'val_loss' is finite. Two rows are odd."):
        guess_map(
            [Run("r", "", (), {"train_loss": SERIES, "val_loss": broken}, ("Two rows are odd.",))]
        )


def test_a_map_is_itself():
    found = LossMap.model_validate({"heads": {"a": {"train": "x", "validation": "y"}}})
    assert read_map(found) is found and found.joint_head is None


def test_a_loss_that_was_never_finite_is_no_head_and_is_told():
    broken = SERIES._replace(value=SERIES.value * np.nan)
    names = {
        "train_a_loss": SERIES,
        "val_a_loss": broken,
        "train_b_loss": SERIES,
        "val_b_loss": SERIES,
    }
    guess = guess_map([Run("r", "", (), names)])
    assert set(guess.map.heads) == {"b"}
    assert "'train_a_loss', 'val_a_loss'" in guess.sentences[-1]


def test_an_accelerometer_is_a_head():
    found, _ = heads(*both("", "acc", "gyro"), "train_acc", "val_acc")
    assert set(found) == {"acc", "gyro", "joint"}
