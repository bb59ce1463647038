"""Rows and columns of every task, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, hamming_loss, log_loss, r2_score

import mmaudit
from mmaudit.evidence.classification import Classification, MultiLabel, Segments, label_scores
from mmaudit.evidence.regression import Regression
from mmaudit.evidence.scoring import task_scores, value_function
from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.batches import Batch
from mmaudit.masking.spec import MaskingSpec, OutputSpec
from mmaudit.measures.mono_modal_response import mono_modal_responses
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.report.tables import read_chunks
from tests.tasks import SPEC, Two, batches, everything, inputs


def batch(targets, groups=None):
    n = len(targets)
    present = {"audio": np.ones(n, bool), "image": np.ones(n, bool)}
    return Batch(0, 0, None, [f"s{i}" for i in range(n)], np.asarray(targets), groups, present, n)


def table(report):
    chunks = list(read_chunks(report.table("coalitions")))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


class TestRows:
    def test_segments_without_a_label_are_none(self):
        rows = Segments("logits").rows(batch(np.array([[0, -1, 2], [-1, -1, -1], [1, 0, -1]])))
        assert rows.ids == ["s0#0", "s0#2", "s2#0", "s2#1"]
        assert rows.groups == ["s0", "s0", "s2", "s2"]
        assert rows.target.tolist() == rows.truth.tolist() == [0, 2, 1, 0]

    def test_labels_are_cells(self):
        rows = MultiLabel("logits").rows(batch(np.array([[0, 1], [-1, 1]], np.int8), ["g", "h"]))
        assert rows.ids == ["s0#0", "s0#1", "s1#1"] and rows.groups == ["g", "g", "h"]
        assert rows.target.tolist() == [0, 1, 1] and rows.truth.tolist() == [0, 1, 1]

    def test_one_number_is_the_sample_itself(self):
        rows = Regression().rows(batch(np.array([[1.5], [np.nan], [2.5]])))
        assert rows.ids == ["s0", "s2"] and rows.groups == [None, None]
        assert rows.truth.tolist() == [1.5, 2.5]

    def test_several_numbers_belong_together(self):
        rows = Regression().rows(batch(np.array([[1.0, 2.0], [np.nan, 4.0]])))
        assert rows.ids == ["s0#0", "s0#1", "s1#1"] and rows.groups == ["s0", "s0", "s1"]

    def test_another_number_of_parts(self):
        value = Segments("logits")
        rows = value.rows(batch(np.zeros((2, 3), int)))
        with pytest.raises(ModelError, match="4 outputs for each sample where the target has 3"):
            value.judged(torch.zeros(1, 2, 4, 5), rows)
        with pytest.raises(ModelError, match="2 outputs for each sample where the target has 1"):
            Regression().judged(torch.zeros(1, 2, 2), Regression().rows(batch(np.ones((2, 1)))))


class TestScores:
    def test_multilabel_against_scikit_learn(self):
        rng = np.random.default_rng(0)
        logits, truth = rng.normal(size=(50, 6)) * 3, rng.integers(0, 2, (50, 6))
        value = MultiLabel("logits")
        rows = value.rows(batch(truth))
        found = value.judged(value.scores(torch.tensor(logits))[None], rows)
        assert found["correct"].mean() == pytest.approx(1 - hamming_loss(truth, logits > 0))
        chance = 1 / (1 + np.exp(-logits))
        losses = [log_loss(truth[:, k], chance[:, k], labels=[0, 1]) for k in range(6)]
        assert -found["loglik"].mean() == pytest.approx(np.mean(losses))
        assert found["confidence"][:, 0] == pytest.approx(np.maximum(chance, 1 - chance).ravel())

    @pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
    def test_labels_by_probability_are_the_same_labels(self, kind):
        z = torch.tensor([[-30.0, -2.0, 0.0, 3.0]], dtype=torch.float64)
        p = torch.sigmoid(z)
        given = p if kind == "probabilities" else p.log()
        assert MultiLabel(kind).scores(given)[0].tolist() == pytest.approx(z[0].tolist(), rel=1e-9)

    def test_a_certain_label_stays_finite(self):
        found = MultiLabel("probabilities").scores(torch.tensor([[0.0, 1.0]]))
        assert torch.isfinite(found).all() and found[0, 0] < -80 and found[0, 1] > 80

    def test_segments_against_scikit_learn(self):
        rng = np.random.default_rng(1)
        logits, truth = rng.normal(size=(20, 7, 4)), rng.integers(-1, 4, (20, 7))
        value = Segments("logits")
        rows = value.rows(batch(truth))
        found = value.judged(value.scores(torch.tensor(logits))[None], rows)
        known = truth >= 0
        assert found["correct"].mean() == pytest.approx(
            accuracy_score(truth[known], logits.argmax(-1)[known])
        )
        chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        assert -found["loglik"].mean() == pytest.approx(
            log_loss(truth[known], chance[known], labels=range(4))
        )

    def test_one_logit_per_segment(self):
        value = Segments("one_logit")
        scores = value.scores(torch.tensor([[2.0, -1.0]]))
        assert scores.tolist() == [[[0.0, 2.0], [0.0, -1.0]]]

    @pytest.mark.parametrize(
        ("value", "output", "said"),
        [
            (Classification("logits"), torch.zeros(3, 4, 5), "task segments"),
            (Segments("logits"), torch.zeros(3, 4), r"\(n, T, K\)"),
            (Segments("logits", classes=4), torch.zeros(3, 2, 5), "5 class scores where 4"),
            (MultiLabel("logits"), torch.zeros(3, 2, 5), r"expects \(n, L\)"),
            (MultiLabel("logits", classes=2), torch.zeros(3, 4), "4 outputs .* where 2 labels"),
            (MultiLabel("probabilities"), torch.full((3, 2), 1.5), "are they logits"),
            (MultiLabel("log_probabilities"), torch.full((3, 2), 1.5), "are they logits"),
            (Regression(), torch.zeros(3, 2, 1), r"expects \(n,\) or \(n, D\)"),
            (Regression(classes=3), torch.zeros(3, 2), "2 numbers .* where 3"),
        ],
    )
    def test_refused(self, value, output, said):
        with pytest.raises(ModelError, match=said):
            value.scores(output)

    def test_labels_that_look_like_probabilities(self):
        value = MultiLabel("logits")
        value.scores(torch.rand(5, 3))
        assert "look like probabilities" in value.warning

    def test_gradients_flow_through_the_same_scores(self):
        for task, kind, output in (
            ("multiclass", "probabilities", torch.rand(4, 3).softmax(1)),
            ("segments", "logits", torch.randn(4, 5, 3)),
            ("multilabel", "probabilities", torch.rand(4, 3)),
            ("regression", "values", torch.randn(4)),
        ):
            spec = MaskingSpec(modalities={"a": "a"}, task=task, outputs=OutputSpec(kind=kind))
            output = output.requires_grad_()
            found = task_scores(output, spec.outputs, task)
            assert torch.allclose(found.double(), value_function(spec).scores(output))
            found.sum().backward()
            assert output.grad is not None

    def test_in_words(self):
        assert Segments("logits").said(torch.eye(2), ["x", "y"]) == ("x, y", None)
        assert Segments("logits").told(np.array([1, -1]), None) == "1, –"
        labels = MultiLabel("logits")
        assert labels.said(torch.tensor([1.0, -1.0, 2.0]), ["x", "y", "z"]) == ("x, z", None)
        assert labels.told(np.zeros(3), None) == "none"
        assert Regression().told(np.array([1.23456, np.nan]), None) == "1.235, –"
        name, sure = Classification("logits").said(torch.tensor([0.0, 0.0, 9.0]), None)
        assert name == "2" and sure > 0.99


class TestResponses:
    def test_a_regression_by_hand(self):
        # phi(none) = 10, a alone 12, b alone 11, both 15: a adds (2 + 4) / 2 = 3, b (1 + 3) / 2 = 2.
        scores = torch.tensor([10.0, 12.0, 11.0, 15.0], dtype=torch.float64).view(4, 1, 1)
        rows = Regression().rows(batch(np.array([[14.0]])))
        found = Regression().columns(scores, rows, shapley_matrix(2))
        assert found["response_prediction_exact"].tolist() == [[13.0, 12.0]]
        assert found["response_loglik_exact"].tolist() == [[-1.0, -4.0]]
        # With phi(none) = 0 the responses add up to 15: a (12 + 4) / 2 = 8, b (11 + 3) / 2 = 7.
        assert found["response_prediction_zero"].tolist() == [[8.0, 7.0]]
        assert found["response_loglik_zero"].tolist() == [[-36.0, -49.0]]
        assert found["response_size"].tolist() == [[3.0, 2.0]]
        assert found["loglik"].tolist() == [[-16.0, -4.0, -9.0, -1.0]]

    def test_responses_add_up_to_the_prediction(self):
        rng = np.random.default_rng(2)
        scores = torch.tensor(rng.normal(size=(8, 5, 2)))
        rows = Regression().rows(batch(rng.normal(size=(5, 2))))
        found = Regression().columns(scores, rows, shapley_matrix(3))
        whole, empty = scores[-1].flatten().numpy(), scores[0].flatten().numpy()
        added = found["response_prediction_exact"] - empty[:, None]
        assert added.sum(1) == pytest.approx(whole - empty)
        assert found["response_prediction_zero"].sum(1) == pytest.approx(whole)

    def test_what_changes_nothing_is_no_response(self):
        scores = torch.full((4, 1, 1), 1e6, dtype=torch.float64)
        scores[2:] += 0.05  # below float32 rounding at this size, then well above
        rows = Regression().rows(batch(np.array([[1e6]])))
        sizes = Regression().columns(scores, rows, shapley_matrix(2))["response_size"]
        assert sizes.tolist() == [[0.0, 0.0]]
        scores[2:] += 5
        assert Regression().columns(scores, rows, shapley_matrix(2))["response_size"][0, 1] > 5

    def test_labels_are_binary_decisions(self):
        rng = np.random.default_rng(3)
        z, truth = rng.normal(size=(4, 6, 3)), rng.integers(0, 2, (6, 3))
        value = MultiLabel("logits")
        rows = value.rows(batch(truth))
        found = value.columns(torch.tensor(z), rows, shapley_matrix(2))
        both = np.stack([np.zeros((4, 18)), z.reshape(4, 18)], -1)
        for rule in ("exact", "zero"):
            responses = mono_modal_responses(both, rule)
            assert (found[f"response_prediction_{rule}"] == responses.argmax(-1).T).all()
        assert (found["truth"] == truth.ravel()).all()


class TestAudits:
    """Whole audits, against plain calls and scikit-learn."""

    def test_regression_of_one_number(self):
        data, model = inputs(230), Two(1)
        y = everything(model, data)[3][:, 0] + 0.3 * torch.randn(230)
        report = mmaudit.audit(
            model, batches({**data, "y": y}, 50), {**SPEC, "task": "regression"}, device="cpu"
        )
        outputs = everything(model, data)[:, :, 0].double().numpy()
        for name, output in zip(("none", "audio", "image", "audio+image"), outputs, strict=True):
            found = report.estimate("coalitions", coalition=name)
            assert found.value == pytest.approx(r2_score(y.double(), output), abs=1e-6)
            errors = report.estimate("coalitions", coalition=name, score="negative squared error")
            assert errors.value == pytest.approx(-((y.numpy() - output) ** 2).mean(), rel=1e-5)
        assert report.data.groups is None and report.classes == ("0",)
        assert report.task == "regression" and report.score.value is not None
        assert report.accuracy.undefined and "R2" in repr(report)
        assert "R2" in report.summary()[0]

    def test_regression_of_several_numbers_in_different_units(self):
        data, model = inputs(150), Two(3)
        with torch.no_grad():
            model.head.weight.mul_(torch.tensor([[1.0], [100.0], [1.0]]))
            model.head.bias.copy_(torch.tensor([0.0, 5.0, 1e6]))
        y = everything(model, data)[3] + torch.tensor([0.2, 40.0, 0.3]) * torch.randn(150, 3)
        report = mmaudit.audit(
            model,
            batches({**data, "y": y}, 64),
            {**SPEC, "task": "regression", "classes": ["x", "y", "z"]},
            device="cpu",
        )
        whole = everything(model, data)[3].double()
        assert report.score.value == pytest.approx(r2_score(y.double(), whole), abs=1e-6)
        for k, name in enumerate("xyz"):
            one = report.estimate("coalitions", coalition="audio+image", **{"class": name})
            assert one.value == pytest.approx(r2_score(y[:, k].double(), whole[:, k]), abs=1e-6)
        assert report.data.groups == 150 and report.data.group_column == "sample"
        assert report.score.groups == 150 and report.score.n == 450

    def test_multilabel_with_unknown_labels(self, tmp_path):
        data, model = inputs(120), Two(4)
        y = (everything(model, data)[3] + 0.5 * torch.randn(120, 4) > 0).float()
        y[:7, 2], y[9] = -1, float("nan")
        report = mmaudit.audit(
            model,
            batches({**data, "y": y}, 50),
            {**SPEC, "task": "multilabel"},
            device="cpu",
            out=tmp_path / "audit",
            store_logits=True,
        )
        known = (y >= 0).numpy()
        said = (everything(model, data) > 0).numpy()
        for c, name in enumerate(("none", "audio", "image", "audio+image")):
            right = (said[c] == y.numpy())[known]
            assert report.estimate("coalitions", coalition=name).value == pytest.approx(
                right.mean()
            )
        assert report.data.class_counts == tuple(known.sum(0).tolist())
        assert report.data.groups == 119 and report.data.samples == 120
        assert any("1 of 120 samples have no label" in note.text for note in report.notes)
        found = table(report)
        assert set(found["truth"]) == {0, 1} and found["logits"].shape == (known.sum(), 4)
        frame = report.to_frame("samples")
        assert len(frame) == known.sum() and "truth" in frame

    def test_segments_and_padding(self):
        data, model = inputs(90, 6), Two(3)
        y = everything(model, data)[3].argmax(-1)
        y[:, 4:][torch.arange(90) % 3 == 0] = -100
        spec = {**SPEC, "task": "segments"}
        report = mmaudit.audit(model, batches({**data, "y": y}, 32), spec, device="cpu")
        assert report.score.value == 1.0 and report.score.n == int((y >= 0).sum())
        assert report.score.groups == report.data.groups == 90
        # More padding makes no other data.
        more = {name: torch.cat([v, torch.zeros_like(v[:, :2])], 1) for name, v in data.items()}
        padded = torch.cat([y, torch.full((90, 2), -1)], 1)
        again = mmaudit.audit(model, batches({**more, "y": padded}, 32), spec, device="cpu")
        assert again.data.fingerprint == report.data.fingerprint
        assert again.measures["contributions"].rows == report.measures["contributions"].rows

    def test_not_finite_where_nothing_is_asked(self):
        data, model = inputs(60, 4), Two(3)
        y = torch.zeros(60, 4, dtype=torch.long)
        y[:, 3] = -1
        data["audio"][:, 3] = float("inf")
        data["audio"][5, 0] = float("inf")
        report = mmaudit.audit(
            model, batches({**data, "y": y}, 32), {**SPEC, "task": "segments"}, device="cpu"
        )
        assert report.evidence.nonfinite == 1 and report.evidence.nonfinite_samples == ("s5",)
        assert report.data.groups == 59 and report.score.n == 59 * 3

    def test_a_group_of_the_users(self):
        data, model = inputs(80), Two(2)
        y = torch.randn(80, 2)
        clip = [f"c{i // 4}" for i in range(80)]
        report = mmaudit.audit(
            model,
            batches({**data, "y": y, "clip": clip}, 32),
            {**SPEC, "task": "regression", "group": "clip"},
            device="cpu",
        )
        assert report.data.groups == 20 and report.data.group_column == "clip"

    def test_a_target_that_does_not_vary(self):
        data, model = inputs(60), Two(2)
        y = torch.randn(60, 2)
        y[:, 1] = 3.25
        spec = {**SPEC, "task": "regression", "classes": ["moves", "stands"]}
        report = mmaudit.audit(model, batches({**data, "y": y}, 32), spec, device="cpu")
        whole = everything(model, data)[3]
        assert report.score.value == pytest.approx(
            r2_score(y[:, 0].double(), whole[:, 0].double()), abs=1e-6
        )
        flat = report.estimate("coalitions", coalition="none", **{"class": "stands"})
        assert "the target is the same" in flat.undefined
        assert any("stands does not vary" in note.text for note in report.notes)
        y[:, 0] = -1.0
        report = mmaudit.audit(model, batches({**data, "y": y}, 32), spec, device="cpu")
        assert "the target is the same" in report.score.undefined
        assert report.measures["contributions"].rows[0].estimate.undefined
        assert not report.failures

    @pytest.mark.parametrize(
        ("task", "y", "said"),
        [
            ("segments", torch.full((20, 4), -100), "none of the 20 samples has a label"),
            ("multilabel", torch.full((20, 3), -1), "none of the 20 samples has a label"),
            ("regression", torch.full((20, 3), float("nan")), "none of the 20 samples has a label"),
        ],
    )
    def test_no_label_anywhere(self, task, y, said):
        data, model = inputs(20, 4 if task == "segments" else None), Two(3)
        with pytest.raises(DataError, match=said):
            mmaudit.audit(
                model, batches({**data, "y": y}, 32), {**SPEC, "task": task}, device="cpu"
            )

    def test_batches_and_chunks_change_nothing(self, monkeypatch):
        data, model = inputs(70), Two(3)
        y = torch.randn(70, 3)
        spec = {**SPEC, "task": "regression"}
        one = mmaudit.audit(model, batches({**data, "y": y}, 70), spec, device="cpu")
        monkeypatch.setattr("mmaudit.evidence.collecting._SCORES_BYTES", 1000)
        other = mmaudit.audit(model, batches({**data, "y": y}, 16), spec, device="cpu")
        assert one.data.fingerprint == other.data.fingerprint
        for row, same in zip(
            one.measures["contributions"].rows, other.measures["contributions"].rows, strict=True
        ):
            assert row.estimate.value == pytest.approx(same.estimate.value, abs=1e-6)


class TestExpected:
    def spec(self, expected):
        return mmaudit.AuditSpec.model_validate(
            {**SPEC, "task": "regression", "data": "m:f", "expected": expected}
        )

    def test_it_is_r2_of_a_regression(self):
        data, model = inputs(100), Two(2)
        y = everything(model, data)[3] + 0.2 * torch.randn(100, 2)
        whole = r2_score(y, everything(model, data)[3])
        loaded = batches({**data, "y": y}, 32)
        mmaudit.audit(model, loaded, self.spec({"R2": whole, "tolerance": 1e-4}), device="cpu")
        with pytest.raises(ModelError, match="R2 is 0.* where the spec expects 0.2"):
            mmaudit.audit(model, loaded, self.spec({"R2": 0.2}), device="cpu")

    def test_a_target_that_does_not_vary(self):
        data, model = inputs(40), Two(1)
        loaded = batches({**data, "y": torch.ones(40)}, 32)
        with pytest.raises(DataError, match="the target is the same in all samples"):
            mmaudit.audit(model, loaded, self.spec(0.5), device="cpu")


def test_label_scores_are_the_logits_themselves():
    z = torch.randn(3, 2)
    assert label_scores(z, "logits") is z
    assert label_scores(z[:, 0], "one_logit").shape == (3, 1)
