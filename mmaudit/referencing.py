"""Reference models of every modality, from an audit file: what could be said from each alone, by the same encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmaudit.evidence.collecting import Progress
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.processes import Processes
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import AuditSpec, OutputSpec
from mmaudit.masking.writing import audit_file_text
from mmaudit.report.store import write_bytes_atomic, write_json_atomic, write_text_atomic
from mmaudit.training import Recipe, TrainingStep
from mmaudit.training.opening import Opened, home_of, open_training, trainable_spec
from mmaudit.training.samples import open_samples
from mmaudit.unimodal import UnimodalResult, train_unimodal

__all__ = ["train_references"]

SUMMARY = "unimodal.json"


def train_references(
    audit_file: Path | str,
    *,
    out: Path | str,
    modalities: Sequence[str] | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, UnimodalResult]:
    """Train the reference model of each modality: its own encoder, re-initialised, with a linear head.

    Args:
        audit_file: Of the multimodal model; it has to name training data.
        out: Folder; ``<modality>/model.safetensors`` and ``<modality>/audit.yaml`` hold a model, ``unimodal.json`` the figures.
        modalities: Which; all where left out.
        recipe: How to train; a :class:`~mmaudit.training.Recipe` or some of its fields.
        resume: Go on with what was begun in ``out``.
        device: Where to run; left out, a GPU if there is one.
        workers: Processes that load data.
        progress: Told how far it is: stage, done, total.

    Returns:
        Modality -> model, files and accuracy on the test data with its interval.

    Raises:
        MMAuditError: One of its children, with a sentence that says what was expected, what came and what to do.
    """
    source, out = Path(audit_file).resolve(), Path(out)
    spec = trainable_spec(source)
    chosen = tuple(modalities) if modalities is not None else spec.names
    unknown = [name for name in chosen if name not in spec.names]
    if unknown:
        raise SpecError(f"'{unknown[0]}' is no modality; there are {', '.join(spec.names)}.")
    try:
        if not isinstance(recipe, Recipe):
            recipe = Recipe(**{"seed": spec.seed, **dict(recipe or {})})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise SpecError(f"recipe: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    processes = Processes(device)
    opened = open_training(source, spec, seed=recipe.seed)
    test = open_samples(spec.data.test, spec, directory=home_of(source, spec))
    found: dict[str, UnimodalResult] = {}
    for name in chosen:
        stage = f"Training ({name})"

        def tell(step: TrainingStep, stage: str = stage) -> None:
            if progress is not None:
                progress(stage, step.step, step.steps)

        with kept_heap():
            found[name] = train_unimodal(
                opened.model,
                opened.task,
                name,
                recipe,
                train_data=opened.train.data,
                validation_data=opened.validation.data,
                test_data=test.data,
                collate={
                    "train": opened.train.collate,
                    "validation": opened.validation.collate,
                    "test": test.collate,
                },
                example=opened.example,
                out=out / name / "training",
                resume=resume,
                device="cpu" if processes.device.type == "cpu" else "auto",
                workers=workers,
                progress=tell,
            )
        if processes.main:
            _publish(out / name, found[name], source, spec, opened)
    if processes.main:
        write_json_atomic(
            out / SUMMARY,
            {
                "audit_file": str(source),
                "recipe": recipe.model_dump(mode="json"),
                "modalities": {
                    name: {
                        "accuracy": result.accuracy.model_dump(mode="json"),
                        "own_encoder": result.own_encoder,
                        "notes": [*opened.notes, *result.notes],
                    }
                    for name, result in found.items()
                },
            },
        )
    processes.wait()
    return found


def _publish(
    folder: Path, result: UnimodalResult, source: Path, spec: AuditSpec, opened: Opened
) -> None:
    """Weights, and an audit file that loads them."""
    modalities = {
        name: part.model_copy(update={"encoders": None, "latent": None, "head": None})
        for name, part in spec.modalities.items()
    }
    changed = spec.model_copy(
        update={
            "model": result.factory(spec),
            "checkpoint": Path("model.safetensors"),
            "title": f"{spec.title or spec.model.factory}, {result.modality} alone",
            "call": opened.task.spec.call,
            "outputs": OutputSpec(),
            "modalities": modalities,
            "expected": None,
            "strip_prefix": None,
            "latent": None,
            "head": None,
            "directory": home_of(source, spec),
        }
    )
    write_bytes_atomic(folder / "model.safetensors", result.training.weights.read_bytes())
    write_text_atomic(
        folder / "audit.yaml",
        audit_file_text(
            changed,
            f"Written by mmaudit: what the model of {source.name} could say from {result.modality} alone.",
        ),
    )
