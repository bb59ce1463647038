"""What an audit needs to know: which inputs belong to which modality, how each is made absent, how the model is called.

``MaskingSpec`` is enough for a model and a batch in memory; ``AuditSpec`` (``audit.yaml``) adds the files and the data.
Everything is declarative; import strings (``package.module:callable``) are the owner's own code. All faults of a file are
reported at once, each with its path and what would have been allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mmaudit.exceptions import SpecError
from mmaudit.masking.evidence_spec import BranchesSpec, ProbeSpec, ReferencesSpec, SecondMaskSpec
from mmaudit.masking.mask_spec import (
    CustomMask,
    FillMask,
    ImportString,
    MaskSpec,
    NamedMask,
    NoiseMask,
    Strict,
    ValuePath,
)
from mmaudit.masking.reading import checkpoint_paths, fault_sentences, load_yaml
from mmaudit.typing import OutputKind, TaskName

__all__ = [
    "AuditSpec",
    "BranchesSpec",
    "CallSpec",
    "CustomMask",
    "DataSpec",
    "ExpectedSpec",
    "FactorySpec",
    "FillMask",
    "MaskSpec",
    "MaskingSpec",
    "ModalitySpec",
    "NamedMask",
    "NoiseMask",
    "OutputSpec",
    "ProbeSpec",
    "ReferencesSpec",
    "SecondMaskSpec",
    "SourceSpec",
    "read_spec",
]

_MOST_MODALITIES = 12


class ModalitySpec(Strict):
    """One modality: its inputs, how each is masked and, where the automatic map is to be overruled, its modules."""

    inputs: dict[str, ValuePath]
    """Name -> path in the batch. A single path may be given instead of a mapping."""
    mask: dict[str, MaskSpec] = Field(default_factory=dict)
    """Input -> mask; a single mask may be given for all of them. Left out: ``zero``."""
    present: ValuePath | None = None
    """Path to a boolean per sample; where false, the sample has no such modality and its input counts as masked."""
    encoders: tuple[str, ...] | None = None
    latent: str | None = None
    head: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            value = {"inputs": value}
        if isinstance(value, (list, tuple)):
            value = {"inputs": value}
        if not isinstance(value, Mapping):
            return value
        value = dict(value)
        inputs = value.get("inputs")
        if isinstance(inputs, (str, int)) and not isinstance(inputs, bool):
            path = str(inputs)
            value["inputs"] = {_leaf(path): path}
        elif isinstance(inputs, (list, tuple)):
            value["inputs"] = {_leaf(str(path)): str(path) for path in inputs}
        names = list(value["inputs"]) if isinstance(value.get("inputs"), Mapping) else []
        mask = value.get("mask", "zero")
        per_input = isinstance(mask, Mapping) and bool(mask) and all(key in names for key in mask)
        if not per_input:
            value["mask"] = dict.fromkeys(names, mask)
        else:
            value["mask"] = {name: mask.get(name, "zero") for name in names}
        if isinstance(value.get("encoders"), str):
            value["encoders"] = (value["encoders"],)
        return value

    @field_validator("inputs")
    @classmethod
    def _some_input(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("a modality needs at least one input")
        return value

    @model_validator(mode="after")
    def _masks_something(self) -> ModalitySpec:
        if all(mask.kind == "keep" for mask in self.mask.values()):
            raise ValueError(
                "all inputs have mask 'keep': masking this modality would change nothing"
            )
        return self


class CallSpec(Strict):
    """How ``forward`` is called: paths in the batch, by position and by keyword. ``batch`` is the whole batch."""

    args: tuple[ValuePath, ...] = ()
    kwargs: dict[str, ValuePath] = Field(default_factory=dict)


class OutputSpec(Strict):
    """Where the class scores are in what the model returns, and what they are."""

    path: ValuePath | None = None
    """Path in the returned value, e.g. ``logits`` or ``0``; left out: the returned tensor itself."""
    kind: OutputKind = "logits"
    """``one_logit``: one number per sample, positive for class 1. ``values``: the numbers that a regression predicts; there it
    need not be said."""


class MaskingSpec(Strict):
    """Modalities, masks, and how to call a model and read its outputs.

    Args:
        modalities: Name -> :class:`ModalitySpec`, a path, or its mapping; 1 to 12 of them. Their order is kept everywhere.
        target: Path of the labels in the batch: integers in ``[0, K)``, or names listed in ``classes``; for ``segments`` ``(n, T)``
            integers, negative where there is none; for ``multilabel`` ``(n, L)`` zeros and ones; for ``regression`` numbers,
            ``(n,)`` or ``(n, D)``.
        task: ``multiclass``, ``binary``, ``segments`` (outputs ``(n, T, K)``), ``multilabel`` or ``regression``.
        classes: Names of the classes (of the labels, of the predicted numbers), in order.
        group: Path of a column whose equal values belong together (patient, clip, speaker); resampled as one.
        ids: Path of the sample ids; left out: running numbers.
        call: How ``forward`` is called; left out: inputs by the names of its parameters, else in order.
        outputs: Where the class scores are, and what they are.
        batching: ``keep`` leaves the user's batches whole, for models whose samples influence each other; ``auto`` finds out.
        latent: Module whose input is the latent; left out: found.
        head: The last linear module; left out: found.
        references: Models of single modalities, and without single modalities, to compare with.
        probe: How linear probes are fitted.
        branches: Branches and cross-modal modules, where the model has such.
        second_mask: What findings are checked under beside the masks of the modalities; ``off`` leaves it out.
        thresholds: Of the findings, by name (``mmaudit.findings.Thresholds``).

    Raises:
        SpecError: Through :func:`read_spec`; constructing it directly raises pydantic's ``ValidationError``.

    Example:
        >>> spec = MaskingSpec(modalities={"audio": "batch.0", "image": {"inputs": "1", "mask": {"constant": 0.5}}}, target="2")
        >>> list(spec.modalities), str(spec.modalities["image"].mask["1"])
        (['audio', 'image'], 'constant 0.5')
    """

    modalities: dict[str, ModalitySpec]
    target: ValuePath | None = None
    task: TaskName = "multiclass"
    classes: tuple[str, ...] | None = None
    group: ValuePath | None = None
    ids: ValuePath | None = None
    call: CallSpec | None = None
    outputs: OutputSpec = OutputSpec()
    batching: Literal["auto", "keep"] = "auto"
    latent: str | None = None
    head: str | None = None
    references: ReferencesSpec = ReferencesSpec()
    probe: ProbeSpec = ProbeSpec()
    branches: BranchesSpec | None = None
    second_mask: SecondMaskSpec = SecondMaskSpec()
    thresholds: dict[str, float] = Field(default_factory=dict)

    @field_validator("modalities")
    @classmethod
    def _number_of_modalities(cls, value: dict[str, ModalitySpec]) -> dict[str, ModalitySpec]:
        if not 1 <= len(value) <= _MOST_MODALITIES:
            way = (
                f": exact coalitions end at {_MOST_MODALITIES} (they are 2**M); put inputs that belong together into one"
                " modality, several under its 'inputs'"
                if value
                else "; expected at least one"
            )
            raise ValueError(f"{len(value)} modalities{way}")
        return value

    @field_validator("modalities")
    @classmethod
    def _plain_names(cls, value: dict[str, ModalitySpec]) -> dict[str, ModalitySpec]:
        for name in value:
            # Coalitions are written audio+image; these words mean sets of modalities and classes in tables.
            if (
                not name.strip()
                or "+" in name
                or name in ("none", "rest", "all")
                or not name.isprintable()
            ):
                raise ValueError(
                    f"'{name}' cannot name a modality; expected a printable name without '+', and none of: none, rest, all"
                )
        return value

    @field_validator("modalities")
    @classmethod
    def _own_inputs(cls, value: dict[str, ModalitySpec]) -> dict[str, ModalitySpec]:
        owners: dict[str, str] = {}
        for name, modality in value.items():
            for key, path in modality.inputs.items():
                if modality.mask[key].kind == "keep":
                    continue
                owner = owners.setdefault(path.removeprefix("batch."), name)
                if owner != name:
                    raise ValueError(
                        f"'{owner}' and '{name}' both take the input '{path}', so that hiding one hides the other; expected inputs of"
                        " their own (mask: keep for what both only look at)"
                    )
        return value

    @model_validator(mode="before")
    @classmethod
    def _values_of_regression(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("task") != "regression":
            return value
        outputs = value.get("outputs", {})
        if isinstance(outputs, OutputSpec) and "kind" not in outputs.model_fields_set:
            outputs = {"path": outputs.path}
        if isinstance(outputs, Mapping) and "kind" not in outputs:
            return {**value, "outputs": {**outputs, "kind": "values"}}
        return value

    @model_validator(mode="after")
    def _kind_of_task(self) -> MaskingSpec:
        kind = self.outputs.kind
        if (kind == "values") != (self.task == "regression"):
            raise ValueError(
                f"outputs.kind '{kind}' does not fit task '{self.task}': 'values' are what a regression predicts, all others are"
                " scores of classes or labels"
            )
        return self

    @field_validator("classes", mode="before")
    @classmethod
    def _class_names(cls, value: Any) -> Any:
        return tuple(str(name) for name in value) if isinstance(value, (list, tuple)) else value

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in order."""
        return tuple(self.modalities)

    @property
    def always_given(self) -> tuple[str, ...]:
        """Paths of a batch that ``call`` hands to the model and no modality has: they are the same in every coalition."""
        if self.call is None:
            return ()
        own = {path for part in self.modalities.values() for path in part.inputs.values()}
        own = {path.removeprefix("batch.") for path in own} | {"batch"}
        handed = (*self.call.args, *self.call.kwargs.values())
        return tuple(path for path in handed if path.removeprefix("batch.") not in own)

    def coalition(self, index: int) -> frozenset[str]:
        """The set of present modalities behind an index of the coalition axis."""
        return frozenset(name for m, name in enumerate(self.modalities) if index >> m & 1)


class FactorySpec(Strict):
    """A callable of the owner's own code and its keyword arguments."""

    factory: ImportString
    args: dict[str, Any] = Field(default_factory=dict)


class SourceSpec(Strict):
    """Where samples come from: a factory that returns a DataLoader or an iterable of batches, or a file of arrays."""

    factory: ImportString | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    file: Path | None = None
    """``.npz`` or ``.parquet``; a batch is a mapping from column to rows."""
    columns: dict[str, str] | None = None
    """Name in the batch -> array in the file; left out: all arrays under their own names."""
    rows: str | None = None
    """``start:stop`` or ``start:stop:step``, as in a Python slice; left out: all rows."""
    batch_size: int = Field(default=64, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"file": value} if value.endswith((".npz", ".parquet")) else {"factory": value}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> SourceSpec:
        if (self.factory is None) == (self.file is None):
            raise ValueError("expected exactly one of 'factory' and 'file'")
        if self.file is not None and self.file.suffix not in (".npz", ".parquet"):
            raise ValueError(f"'{self.file.name}' is neither .npz nor .parquet")
        return self

    @field_validator("rows")
    @classmethod
    def _slice(cls, value: str | None) -> str | None:
        if value is not None:
            parts = value.split(":")
            if len(parts) not in (2, 3) or not all(
                p.strip().lstrip("-").isdigit() or not p.strip() for p in parts
            ):
                raise ValueError("expected 'start:stop' or 'start:stop:step', for example '0:1000'")
        return value


class DataSpec(Strict):
    """The splits. Only ``test`` is audited; ``train`` is asked for by masks and measures that need it."""

    test: SourceSpec
    train: SourceSpec | None = None
    validation: SourceSpec | None = None


class ExpectedSpec(Strict):
    """The plain score the model is known to reach; an audit that does not reach it stops before measuring anything.

    The score is the accuracy, of a regression R2 (``{R2: 0.8}`` is the same as ``{accuracy: 0.8}``).
    """

    accuracy: float = Field(ge=0, le=1)
    tolerance: float = Field(default=0.02, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "R2" in value and "accuracy" not in value:
            value = {("accuracy" if key == "R2" else key): item for key, item in value.items()}
        return {"accuracy": value} if isinstance(value, (int, float)) else value


class AuditSpec(MaskingSpec):
    """``audit.yaml``: a :class:`MaskingSpec` with the model, its checkpoint and the data.

    Args:
        model: Factory that builds the module the weights go into; the audit file's own directory is importable. Left out where
            the checkpoint holds the whole model (a Hugging Face directory, ONNX, formats that have to be trusted).
        checkpoint: File, sharded index or directory; or sub-module -> file. Left out: the weights are those that the factory
            gives; a file that names it and leaves it blank is refused.
        weights: Which weights of the checkpoint: the model's, or their exponential moving average.
        data: Splits.
        expected: Plain score that the model is known to reach.
        title: What to call the subject in the report.
        seed: Of everything that is drawn.
        strip_prefix: Prefix of the checkpoint's keys to remove; left out: known wrappers' prefixes are found and named.
        directory: Folder that factories are imported from and that paths of data begin at; left out: that of the audit file.
            The checkpoint's path begins at the audit file's in any case.
        lineage: Where the model comes from, for the record; ``mmaudit retrain`` writes it.
    """

    model: FactorySpec | None = None
    checkpoint: Path | dict[str, Path] | None = None
    weights: Literal["model", "ema"] = "model"
    data: DataSpec
    expected: ExpectedSpec | None = None
    title: str | None = None
    seed: int = Field(default=0, ge=0)
    strip_prefix: str | None = None
    directory: Path | None = None
    lineage: dict[str, str] = Field(default_factory=dict)

    @property
    def factory(self) -> FactorySpec:
        """What is under ``model``, for what has to build the model anew.

        Raises:
            SpecError: If nothing is: the checkpoint is the model.
        """
        if self.model is None:
            raise SpecError(
                "the audit file names no factory under 'model', and a training has to build the model anew;"
                " 'mmaudit convert CHECKPOINT --out DIR' drafts one."
            )
        return self.model

    @property
    def label(self) -> str:
        """What to call the model: the title, else what it is built by, else where it lies."""
        return self.title or (self.model.factory if self.model else str(self.checkpoint))

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        return checkpoint_paths(value)

    @field_validator("model", mode="before")
    @classmethod
    def _short_model(cls, value: Any) -> Any:
        return {"factory": value} if isinstance(value, str) else value

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        if isinstance(value, str) or (
            isinstance(value, Mapping) and ({"factory", "file"} & set(value))
        ):
            return {"test": value}
        return value


def read_spec(
    source: Path | str | Mapping[str, Any] | MaskingSpec, kind: type[MaskingSpec] = AuditSpec
) -> MaskingSpec:
    """Read and check a spec.

    Args:
        source: A YAML file, a mapping, or a spec (returned as it is).
        kind: ``AuditSpec`` or ``MaskingSpec``.

    Raises:
        SpecError: With every fault, one a line: path, what came, what is allowed.
    """
    if isinstance(source, MaskingSpec):
        return source
    name = "spec"
    if not isinstance(source, Mapping):
        if not isinstance(source, (str, Path)):
            raise SpecError(
                f"a {type(source).__name__} is no spec; expected a MaskingSpec, a mapping or a YAML file"
            )
        path = Path(source)
        name = path.name
        source = load_yaml(path)
        # In Python None says what it means; a blank line of a file is one that somebody forgot to fill in.
        if "checkpoint" in source and source["checkpoint"] is None:
            raise SpecError(
                f"{name}: 'checkpoint' is blank; write the path of the weights there, or take the line out to audit the model"
                " with the weights that its factory gives it."
            )
    try:
        return kind.model_validate(dict(source))
    except ValidationError as error:
        faults = fault_sentences(error, kind)
        head = f"{name}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise SpecError("\n".join([head, *(f"  {fault}" for fault in faults)])) from None


def _leaf(path: str) -> str:
    return path.rsplit(".", 1)[-1]
