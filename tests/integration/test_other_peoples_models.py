"""Audits of whole projects from their audit files, every number against brute force."""

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import mmaudit
from mmaudit.measures import MEASURES
from tests.integration import models
from tests.integration.brute_force import differing_rows, outputs_of_all_coalitions
from tests.integration.shared_data import shared_file

VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
QUICK = {
    "replicates": 100,
    "measures": [key for key in MEASURES if key not in ("information", "competition")],
}


def written(folder, **spec):
    path = folder / "audit.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def test_seven_files_over_graph_encoders(tmp_path):
    torch.manual_seed(0)
    model = models.omics_graphs().eval()
    parts = ("E1", "E2", "E3", "C1", "C2", "C3", "C")
    for part in parts:
        torch.save(model.get_submodule(part).state_dict(), tmp_path / f"{part}.pth")
    names = tuple(models.OMICS)
    arguments = ["x1", "adj1", "x2", "adj2", "x3", "adj3"]
    path = written(
        tmp_path,
        model="tests.integration.models:omics_graphs",
        checkpoint={part: f"{part}.pth" for part in parts},
        data="tests.integration.models:omics_batches",
        target="label",
        modalities={name: name for name in names},
        call={"args": arguments},
    )
    report = mmaudit.audit(path, **QUICK)

    def call(model, batch, present):
        zeros = {name: torch.zeros_like(batch[name]) for name in names if name not in present}
        return model(*[zeros.get(name, batch[name]) for name in arguments])

    batches = models.omics_batches()
    outputs = outputs_of_all_coalitions(model, batches, names, call)
    wrong, compared = differing_rows(report, outputs, batches[0]["label"], names)
    assert not wrong
    assert compared > 150
    assert len(report.subject.files) >= len(parts)
    assert report.subject.structure.encoders == {f"x{n}": (f"E{n}", f"C{n}") for n in (1, 2, 3)}
    assert report.evidence.method == "unpacked"


@pytest.mark.parametrize("mask", ["zero", "mean"])
@pytest.mark.parametrize("wrapped", ["model.", "module.", "safetensors"])
def test_six_views_from_arrays(tmp_path, mask, wrapped):
    archive = np.load(shared_file("mfeat/mfeat.npz"))
    order = np.random.default_rng(0).permutation(2000)
    rows = {name: archive[name][order].astype(np.float32) for name in VIEWS}
    np.savez(tmp_path / "data.npz", digit=archive["y"][order], **rows)
    sizes = {name: rows[name].shape[1] for name in VIEWS}
    train = {name: torch.from_numpy(rows[name][:1600]) for name in VIEWS}
    test = {name: torch.from_numpy(rows[name][1600:]) for name in VIEWS}
    labels = torch.from_numpy(archive["y"][order])
    torch.manual_seed(0)
    model = models.six_views(sizes)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(25):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(**train), labels[:1600]).backward()
        optimiser.step()
    model.eval()
    if wrapped == "safetensors":
        checkpoint = "weights.safetensors"
        save_file(model.state_dict(), tmp_path / checkpoint)
    else:
        checkpoint = "last.ckpt"
        weights = {wrapped + key: value for key, value in model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": weights}, tmp_path / checkpoint)
    columns = {name: name for name in VIEWS} | {"label": "digit"}
    path = written(
        tmp_path,
        model={"factory": "tests.integration.models:six_views", "args": {"sizes": sizes}},
        checkpoint=checkpoint,
        data={
            "test": {"file": "data.npz", "columns": columns, "rows": "1600:", "batch_size": 150},
            "train": {"file": "data.npz", "columns": columns, "rows": ":1600"},
        },
        target="label",
        modalities={name: {"inputs": name, "mask": mask} for name in VIEWS},
        call={"kwargs": {name: name for name in VIEWS}},
    )
    report = mmaudit.audit(path, **QUICK)

    def call(model, batch, present):
        masked = {
            name: torch.zeros_like(value)
            if mask == "zero"
            else train[name].double().mean(0).float().expand_as(value)
            for name, value in batch.items()
        }
        return model(**{name: (batch if name in present else masked)[name] for name in VIEWS})

    outputs = outputs_of_all_coalitions(model, [test], VIEWS, call)
    wrong, compared = differing_rows(report, outputs, labels[1600:], VIEWS)
    assert not wrong
    assert compared > 1300
    assert report.accuracy.value > 0.9
    assert report.evidence.method == "packed"
    noted = [note.text for note in report.notes if note.topic == "loading"]
    assert wrapped == "safetensors" or any(f"'{wrapped}'" in text for text in noted)


@pytest.mark.parametrize("without", ["a column", "values"])
def test_a_modality_that_no_test_sample_has(tmp_path, without):
    archive = np.load(shared_file("tcga_breast/tcga_breast.npz"))
    classes = sorted(set(archive["y_train"]))
    names = ("mrna", "mirna", "protein")

    def standard(name, split):
        train = archive[f"{name}_train"]
        return ((archive[f"{name}_{split}"] - train.mean(0)) / train.std(0)).astype(np.float32)

    train = {name: standard(name, "train") for name in names}
    test = {name: standard(name, "test") for name in names[:2]}
    targets = np.array([classes.index(label) for label in archive["y_test"]])
    unknown = np.full((len(targets), train["protein"].shape[1]), np.nan, np.float32)
    np.savez(tmp_path / "train.npz", label=archive["y_train"], **train)
    given = test if without == "a column" else test | {"protein": unknown}
    np.savez(tmp_path / "test.npz", label=archive["y_test"], **given)
    sizes = {name: value.shape[1] for name, value in train.items()}
    torch.manual_seed(0)
    model = models.six_views(sizes, classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    path = written(
        tmp_path,
        model={
            "factory": "tests.integration.models:six_views",
            "args": {"sizes": sizes, "classes": 3},
        },
        checkpoint="weights.pt",
        data={"test": "test.npz", "train": "train.npz"},
        target="label",
        classes=[str(name) for name in classes],
        modalities={name: name for name in names},
        call={"kwargs": {name: name for name in names}},
    )
    report = mmaudit.audit(path, **QUICK)

    def call(model, batch, present):
        zeros = {name: torch.zeros(len(targets), size) for name, size in sizes.items()}
        known = {name: value for name, value in batch.items() if name in present}
        return model(**zeros | known)

    batch = {name: torch.from_numpy(value) for name, value in test.items()}
    outputs = outputs_of_all_coalitions(model, [batch], names, call)
    present = {name: np.full(len(targets), name != "protein") for name in names}
    wrong, _ = differing_rows(report, outputs, targets, names, present=present)
    # What nobody has is undefined rather than 0.
    assert all("protein" in labels.values() and value == 0 for _, labels, value, *_ in wrong), wrong
    assert report.classes == tuple(classes)
    assert report.data.present == {"mrna": 70, "mirna": 70, "protein": 0}
    rows = report.rows("responses", modality="protein")
    assert rows
    assert all(row.estimate.value is None for row in rows)


@pytest.mark.parametrize("token", [0, 7])
def test_text_and_image_in_batches_padded_apart(tmp_path, token):
    torch.manual_seed(0)
    model = models.text_and_image().eval()
    torch.save({"model": model.state_dict(), "step": 5}, tmp_path / "last.pt")
    names = ("text", "image")
    inputs = {"input_ids": "text.input_ids", "attention_mask": "text.attention_mask"}
    masks = {"input_ids": {"token": token}, "attention_mask": "keep"}
    path = written(
        tmp_path,
        model="tests.integration.models:text_and_image",
        checkpoint="last.pt",
        data="tests.integration.models:padded_batches",
        target="labels",
        modalities={
            "text": {"inputs": inputs, "mask": masks},
            "image": {"inputs": "pixel_values", "mask": {"constant": 0.5}},
        },
        call={"args": ["batch"]},
        outputs={"path": "logits"},
    )
    report = mmaudit.audit(path, **QUICK)

    def call(model, batch, present):
        text = dict(batch["text"])
        if "text" not in present:
            text["input_ids"] = torch.full_like(text["input_ids"], token)
        image = batch["pixel_values"]
        image = image if "image" in present else torch.full_like(image, 0.5)
        return model({"text": text, "pixel_values": image})["logits"]

    batches = models.padded_batches()
    assert len({batch["text"]["input_ids"].shape[1] for batch in batches}) > 1
    outputs = outputs_of_all_coalitions(model, batches, names, call)
    targets = torch.cat([batch["labels"] for batch in batches])
    wrong, _ = differing_rows(report, outputs, targets, names)
    assert not wrong
    assert report.evidence.method == "packed"
