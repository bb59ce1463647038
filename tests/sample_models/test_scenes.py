from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

import sample_models.scenes
from sample_models.scenes import batches, build
from sample_models.scenes.data import LABELS, RATES, STRENGTHS, Scenes, samples
from sample_models.scenes.train import label_accuracy, label_loss

FOLDER = Path(sample_models.scenes.__file__).parent
TRUTH = json.loads((FOLDER / "truth.json").read_text())


def alone(*modalities):
    """Known labels that logistic regression on the training data gets right."""
    train, test = samples("train"), samples("test")
    seen, other = (
        np.hstack([part.inputs[m].numpy() for m in modalities]) for part in (train, test)
    )
    right = []
    for label in range(len(LABELS)):
        use, judge = (part.labels[:, label].numpy() >= 0 for part in (train, test))
        model = LogisticRegression(max_iter=500).fit(seen[use], train.labels[use, label].numpy())
        right.append(model.predict(other[judge]) == test.labels[judge, label].numpy())
    return np.concatenate(right).mean()


def test_each_modality_alone_says_what_the_truth_says():
    for modality in STRENGTHS:
        assert alone(modality) == pytest.approx(TRUTH["alone"][modality], abs=TRUTH["tolerance"])
    assert alone(*STRENGTHS) == pytest.approx(0.987, abs=0.001)


def test_labels_are_as_frequent_and_as_plain_as_declared():
    part = samples("train")
    for label, rate in enumerate(RATES):
        known = part.labels[:, label]
        assert (known == 1).double().mean() / (known >= 0).double().mean() == pytest.approx(
            rate, abs=0.03
        )
    assert (part.labels < 0).double().mean().item() == pytest.approx(0.05, abs=0.01)
    # music is told by audio at 2 standard deviations to either side, both labels equally often
    direction = np.linalg.lstsq(
        part.inputs["audio"].numpy(), 2.0 * (part.labels[:, 2] == 1).numpy() - 1, rcond=None
    )[0]
    test = samples("test")
    said = test.inputs["audio"].numpy() @ direction > 0
    use = test.labels[:, 2].numpy() >= 0
    right = (said == (test.labels[:, 2].numpy() == 1))[use].mean()
    assert right == pytest.approx(norm.cdf(2), abs=0.02)


def test_unknown_labels_count_for_nothing():
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0]])
    batch = {"labels": torch.tensor([[1, 0, -1, -1]])}
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert label_loss(logits, batch).tolist() == pytest.approx([expected])
    assert label_accuracy(logits, batch).tolist() == [1.0]
    other = {"labels": torch.tensor([[1, 1, -1, -1]])}
    assert label_accuracy(logits, other).tolist() == [0.5]
    nobody = {"labels": torch.full((1, 4), -1)}
    assert label_loss(logits, nobody).tolist() == [0.0]


def test_splits_are_drawn_apart_and_again_alike():
    first, again = Scenes("test"), Scenes("test")
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.inputs["text"], again.inputs["text"])
    assert not torch.equal(first.inputs["text"], Scenes("train").inputs["text"][:600])
    batch = next(iter(batches("validation", batch_size=3)))
    assert batch["labels"].shape == (3, 4) and batch["id"][0] == "validation-00000"
    assert build()(batch["audio"], batch["image"], batch["text"]).shape == (3, 4)
