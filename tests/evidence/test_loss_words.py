"""Words of a loss's name, weighed against the other losses of the run."""

import itertools

import pytest

from mmaudit.evidence.loss_words import derived_losses, weighed, without_unit
from mmaudit.evidence.readers.names import read_name


def weigh(*names):
    found = weighed({name: read_name(name) for name in names})
    return {name: None if loss.part else (loss.head, loss.joint) for name, loss in found.losses.items()}  # fmt: skip


def test_what_is_weighed_does_not_depend_on_the_order():
    names = [f"{s}_{h}_loss" for h in ("audio", "audio_cls", "uni_audio", "kd") for s in ("train", "val")]  # fmt: skip
    expected = weigh(*names)
    assert all(weigh(*order) == expected for order in itertools.islice(itertools.permutations(names), 0, 5000, 97))  # fmt: skip
    assert expected["train_audio_loss"] == ("audio", None) and expected["val_kd_loss"] is None
    assert expected["val_uni_audio_loss"] == ("uni_audio", None)


def test_names_without_such_words_stay_as_they_were_read():
    names = [
        "train_loss",
        "val/rgb_flow/loss",
        "tr_t1_contrast_loss",
        "test_loss",
        "loss_av",
        "kl_loss",
    ]
    read = {name: read_name(name) for name in names}
    found = weighed(read)
    assert found.auxiliary == {}
    for name, loss in found.losses.items():
        assert loss._replace(rank=()) == read[name]._replace(rank=())


def test_plainer_losses_rank_first():
    names = ("train_audio_loss", "train_audio_cls_loss", "train_audio_recon_loss", "train_audio_cls_unscaled_loss")  # fmt: skip
    found = weighed({name: read_name(name) for name in names}).losses
    assert sorted(names, key=lambda name: found[name].rank) == list(names)


def test_no_loss_at_all():
    assert weighed({}) == ({}, {})
    assert derived_losses(["best_epoch", "min_lr", "best", ""]) == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("loss[audio]", "loss[audio]"), ("train loss (video)", "train loss (video)"), ("val_loss (nats/sample)", "val_loss"), ("loss [1]", "loss"),
        ("loss [ nats ]", "loss"), ("[nats] loss", " loss"), ("loss []", "loss"), ("loss [nats", "loss [nats"), ("", ""), ("[" * 5000, "[" * 5000),
    ],
)  # fmt: skip
def test_units(name, plain):
    assert without_unit(name) == plain
