"""Reference models of every modality, from an audit file: what could be said from each alone, and what without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmaudit.evidence.collecting import Progress
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.references import WITHOUT
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import AuditSpec, ProbeSpec, ReferencesSpec
from mmaudit.masking.writing import audit_file_text
from mmaudit.report.store import write_bytes_atomic, write_json_atomic, write_text_atomic
from mmaudit.training import Recipe, TrainingStep
from mmaudit.training.faults import setting_faults
from mmaudit.training.opening import Opened, home_of, open_training, trainable_spec
from mmaudit.training.samples import open_samples
from mmaudit.unimodal import UnimodalResult, given_outputs, train_unimodal

__all__ = ["path_from", "train_references"]

SUMMARY = "unimodal.json"


def train_references(
    audit_file: Path | str,
    *,
    out: Path | str,
    modalities: Sequence[str] | None = None,
    without: bool = False,
    recipe: Recipe | Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int = 0,
    trust: bool = False,
    progress: Progress | None = None,
) -> dict[str, UnimodalResult]:
    """Train the reference model of each modality: its own encoder, re-initialised, with a linear head.

    Args:
        audit_file: Of the multimodal model; it has to name training data.
        out: Folder; ``<modality>/model.safetensors`` and ``<modality>/audit.yaml`` hold a model, ``unimodal.json`` the figures.
            An audit file that names this folder under ``references`` is audited beside these models.
        modalities: Which; all where left out.
        without: Also train the model without each of them: the whole network, re-initialised, with the modality masked; in
            ``without-<modality>``.
        recipe: How to train; a :class:`~mmaudit.training.Recipe` or some of its fields.
        resume: Go on with what was begun in ``out``.
        device: Where to run; left out, a GPU if there is one.
        workers: Processes that load data.
        trust: Load a checkpoint that runs code when it is loaded; what is written here needs no trust.
        progress: Told how far it is: stage, done, total.

    Returns:
        Modality (or ``without-<modality>``) -> model, files and accuracy on the test data with its interval.

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
        raise SpecError(f"recipe: {setting_faults(error, Recipe.model_fields)}") from None
    if spec.model is None:
        raise SpecError(
            f"{source.name} names no factory under 'model', which builds the network that is to be trained anew."
        )
    if without and len(spec.names) == 1:
        raise SpecError(f"{spec.names[0]} is the only modality: a model without it sees nothing.")
    processes = Processes(device)
    opened = open_training(source, spec, seed=recipe.seed, trust=trust)
    test = open_samples(spec.data.test, spec, directory=home_of(source, spec))
    found: dict[str, UnimodalResult] = {}
    wanted = [(name, False) for name in chosen] + [(name, True) for name in chosen if without]
    for name, left_out in wanted:
        key = f"{WITHOUT}{name}" if left_out else name
        stage = f"Training (without {name})" if left_out else f"Training ({name})"

        def tell(step: TrainingStep, stage: str = stage) -> None:
            if progress is not None:
                progress(stage, step.step, step.steps)

        with kept_heap():
            found[key] = train_unimodal(
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
                out=out / key / "training",
                without=left_out,
                resume=resume,
                device="cpu" if processes.device.type == "cpu" else "auto",
                workers=workers,
                progress=tell,
            )
        if processes.main:
            _publish(out / key, found[key], source, spec, opened)
    if processes.main:
        write_json_atomic(
            out / SUMMARY,
            {
                "audit_file": str(source),
                "recipe": recipe.model_dump(mode="json"),
                "modalities": _figures(found.values(), opened, without=False),
                "without": _figures(found.values(), opened, without=True),
            },
        )
    processes.wait()
    return found


def path_from(audit_file: Path | str, out: Path | str) -> Path:
    """How an audit file names a folder: from where its data paths begin, if the folder lies there.

    Args:
        audit_file: The file.
        out: The folder.
    """
    source, there = Path(audit_file).resolve(), Path(out).resolve()
    home = home_of(source, trainable_spec(source))
    return there.relative_to(home) if there.is_relative_to(home) else there


def _figures(
    results: Iterable[UnimodalResult], opened: Opened, *, without: bool
) -> dict[str, dict[str, Any]]:
    """Modality -> what is written down of its model."""
    return {
        result.modality: {
            "accuracy": result.accuracy.model_dump(mode="json"),
            "own_encoder": result.own_encoder,
            "notes": [*opened.notes, *result.notes],
        }
        for result in results
        if result.without == without
    }


def _publish(
    folder: Path, result: UnimodalResult, source: Path, spec: AuditSpec, opened: Opened
) -> None:
    """Weights, and an audit file that loads them."""
    modalities = {
        name: part.model_copy(update={"encoders": None, "latent": None, "head": None})
        for name, part in spec.modalities.items()
    }
    which = f"without {result.modality}" if result.without else f"{result.modality} alone"
    assert spec.model is not None
    changed = spec.model_copy(
        update={
            "model": result.factory(spec),
            "checkpoint": Path("model.safetensors"),
            "weights": "model",
            "title": f"{spec.label}, {which}",
            "call": opened.task.spec.call,
            "outputs": given_outputs(spec.task),
            "modalities": modalities,
            "expected": None,
            "strip_prefix": None,
            "references": ReferencesSpec(),
            "probe": ProbeSpec(),
            "branches": None,
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
            f"Written by mmaudit: what the model of {source.name} could say "
            f"{'' if result.without else 'from '}{which}.",
        ),
    )
