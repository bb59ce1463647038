"""What may be asked of a retraining from the app: a remedy by name and bounded numbers, nothing else.

No path, no import string and no free text is among the settings, so that none can reach a job from a browser. This says
without torch what the remedies themselves check again.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmaudit.checkpoint.wording import shown
from mmaudit.jobs.errors import JobError

__all__ = ["OFFERS", "Offer", "Setting", "Settings", "check_settings"]

LEARNING_RATE = (1e-6, 1.0)


class Settings(BaseModel):
    """What every retraining can be told.

    Args:
        epochs: Passes over the training data, 1 to 200.
        lr: Learning rate, 1e-6 to 1.
        batch_size: Samples per step, 1 to 4096.
        seed: Of data order and everything random, 0 to 2**31 - 1.
        start: From the ``checkpoint``'s weights, or from ``scratch``.
        control: Also train plainly with the same budget, to compare with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=1, le=200, title="Epochs")] = 10
    lr: Annotated[float, Field(ge=LEARNING_RATE[0], le=LEARNING_RATE[1], title="Learning rate")] = (
        1e-3
    )
    batch_size: Annotated[int, Field(ge=1, le=4096, title="Batch size")] = 64
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, title="Seed")] = 0
    start: Annotated[Literal["checkpoint", "scratch"], Field(title="Start from")] = "checkpoint"
    control: Annotated[bool, Field(title="Also train a control")] = False

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the remedy itself."""
        own = self.model_dump()
        return {name: own[name] for name in own if name not in Settings.model_fields}

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings of the training."""
        return {name: getattr(self, name) for name in ("epochs", "lr", "batch_size", "seed")}


class _AGM(Settings):
    alpha: Annotated[float, Field(ge=0, le=10, title="Strength (alpha)")] = 1.0


class _OGMGE(Settings):
    alpha: Annotated[float, Field(ge=0, le=5, title="Strength (alpha)")] = 0.8


class _OGM(Settings):
    alpha: Annotated[float, Field(ge=0, le=5, title="Strength (alpha)")] = 0.8


class _MLA(Settings):
    hgm: Annotated[bool, Field(title="Head-gradient modification")] = True


class _ModalityDropout(Settings):
    p: Annotated[float, Field(ge=0, le=0.9, title="Probability of dropping a modality")] = 0.3


@dataclass(frozen=True)
class Setting:
    """One setting, as a form shows it.

    Attributes:
        name: Its key.
        title: What to call it.
        kind: ``integer``, ``number``, ``choice`` or ``switch``.
        default: Value where nothing is said.
        least: Smallest value of a number.
        most: Largest value of a number.
        choices: What a choice may be.
    """

    name: str
    title: str
    kind: Literal["integer", "number", "choice", "switch"]
    default: int | float | str | bool
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """A remedy that can be asked for.

    Attributes:
        id: Key in ``mmaudit.remedies.REMEDIES``.
        title: Its name.
        sentence: What it does.
        settings: Its settings and their bounds.
    """

    id: str
    title: str
    sentence: str
    settings: type[Settings]

    @property
    def form(self) -> tuple[Setting, ...]:
        """The settings in the order of a form, those of the remedy first."""
        fields = {name: _setting(name, self.settings) for name in self.settings.model_fields}
        own = [name for name in fields if name not in Settings.model_fields]
        return tuple(fields[name] for name in [*own, *Settings.model_fields])


OFFERS: dict[str, Offer] = {
    offer.id: offer
    for offer in (
        Offer(
            "agm",
            "AGM",
            "Slows a modality down while it is ahead of the others and speeds it up while it lags, for any kind of fusion.",
            _AGM,
        ),
        Offer(
            "ogm_ge",
            "OGM-GE",
            "Shrinks the gradients of the stronger modality's encoder and adds noise that keeps its exploration.",
            _OGMGE,
        ),
        Offer(
            "ogm",
            "OGM",
            "Shrinks the gradients of the stronger modality's encoder, without added noise.",
            _OGM,
        ),
        Offer(
            "mla",
            "MLA",
            "Trains one modality after the other through a shared head, so that none drowns another.",
            _MLA,
        ),
        Offer(
            "modality_dropout",
            "Modality dropout",
            "Masks modalities at random while training, so that each has to do without the others now and then.",
            _ModalityDropout,
        ),
        Offer(
            "joint",
            "Joint training",
            "Plain training with the same budget: the control that every remedy is compared with.",
            Settings,
        ),
    )
}


def check_settings(remedy: object, settings: object) -> Settings:
    """The settings of a remedy, complete and inside their bounds.

    Args:
        remedy: Key of :data:`OFFERS`.
        settings: Mapping from setting to value; what is left out takes its default.

    Raises:
        JobError: If the remedy is unknown, or a setting is unknown, of another type or out of bounds; all faults at once.

    Example:
        >>> check_settings("agm", {"alpha": 2.0}).options
        {'alpha': 2.0}
    """
    offer = OFFERS.get(remedy) if isinstance(remedy, str) else None
    if offer is None:
        raise JobError(f"'{shown(remedy)}' is no remedy on offer; there are {', '.join(OFFERS)}")
    if not isinstance(settings, Mapping):
        raise JobError(
            f"expected settings as a mapping from name to value, found {type(settings).__name__}"
        )
    try:
        return offer.settings.model_validate(dict(settings))
    except ValidationError as error:
        faults = list(dict.fromkeys(_fault(fault, offer) for fault in error.errors()))
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise JobError(f"settings of {offer.id}: {'; '.join(faults[:3])}{more}") from None


def _setting(name: str, settings: type[Settings]) -> Setting:
    field = settings.model_fields[name]
    schema = settings.model_json_schema()["properties"][name]
    title = field.title or name
    if "enum" in schema:
        return Setting(name, title, "choice", field.default, choices=tuple(schema["enum"]))
    if schema["type"] == "boolean":
        return Setting(name, title, "switch", field.default)
    return Setting(name, title, schema["type"], field.default, schema["minimum"], schema["maximum"])


def _fault(fault: Any, offer: Offer) -> str:
    name = shown(fault["loc"][0] if fault["loc"] else "settings", 40)
    if name not in offer.settings.model_fields:
        near = difflib.get_close_matches(name, list(offer.settings.model_fields), 1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        allowed = ", ".join(offer.settings.model_fields)
        return f"unknown setting '{name}'{hint} (allowed: {allowed})"
    setting = _setting(name, offer.settings)
    came = shown(repr(fault["input"]), 40)
    if setting.kind == "choice":
        return f"{name} is {came}, expected {' or '.join(setting.choices)}"
    if setting.kind == "switch":
        return f"{name} is {came}, expected true or false"
    what = "a whole number" if setting.kind == "integer" else "a number"
    return f"{name} is {came}, expected {what} from {setting.least:g} to {setting.most:.10g}"
