"""Ways to be called, to answer and to be wrapped; kinds of numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.evidence.zoo_rows import (
    CLASSES,
    HIDDEN,
    PAIR,
    Pair,
    Registry,
    integers,
    normal,
    vectors,
)

__all__ = ["ROWS"]

ROWS = Registry()
WHOLE_BATCH = {"call": {"args": ["batch"]}}


@ROWS.row(spec=WHOLE_BATCH, **PAIR)
class DictInput(Pair):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["a"], batch["v"])


@ROWS.row(spec={"call": {"kwargs": {"audio": "a", "video": "batch.v"}}}, **PAIR)
class KeywordInput(Pair):
    def forward(self, *, audio: Tensor, video: Tensor) -> Tensor:
        return super().forward(audio, video)


@ROWS.row(spec={"call": {"kwargs": {"a": "a", "v": "v"}}}, **PAIR)
class AnyKeywords(Pair):
    def forward(self, **inputs: Tensor) -> Tensor:
        return super().forward(inputs["a"], inputs["v"])


@ROWS.row(**PAIR)
class NamesOutOfOrder(Pair):
    """Without a call in the spec, the names of the parameters decide."""

    def forward(self, v: Tensor, a: Tensor) -> Tensor:
        return super().forward(a, v)


@ROWS.row(**PAIR)
class OtherNames(Pair):
    """Without a call in the spec and without names in common, the order decides."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return super().forward(first, second)


def pair_of_tensors(size: int) -> tuple[Tensor, ...]:
    return tuple(vectors(size).values())


@ROWS.row(
    batch=pair_of_tensors,
    modalities={"a": "batch.0", "v": 1},
    spec={"call": {"args": ["0", "1"]}},
    **PAIR,
)
class TupleBatch(Pair):
    pass


@ROWS.row(
    batch=lambda size: [pair_of_tensors(size)[:2], torch.zeros(size)],
    modalities={"a": "0.0", "v": "0.1"},
    spec={"call": {"args": ["0"]}},
    **PAIR,
)
class TupleArgument(Pair):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        first, second = pair
        return super().forward(first, second)


def nested(size: int) -> dict[str, Any]:
    flat = vectors(size)
    return {"inputs": [{"audio": {"wave": flat["a"], "rate": 8000}}, {"video": flat["v"]}]}


@ROWS.row(
    batch=nested,
    modalities={"a": "inputs.0.audio.wave", "v": "inputs.1.video"},
    spec=WHOLE_BATCH,
    **PAIR,
)
class NestedInput(Pair):
    def forward(self, batch: dict[str, Any]) -> Tensor:
        audio, video = batch["inputs"]
        return super().forward(
            audio["audio"]["wave"] * (audio["audio"]["rate"] / 8000), video["video"]
        )


@dataclass(frozen=True)
class Clip:
    a: Tensor
    v: Tensor
    name: str = "clip"


@ROWS.row(batch=lambda size: Clip(vectors(size)["a"], vectors(size)["v"]), spec=WHOLE_BATCH, **PAIR)
class DataclassInput(Pair):
    def forward(self, clip: Clip) -> Tensor:
        return super().forward(clip.a, clip.v)


class Sample(NamedTuple):
    a: Tensor
    v: Tensor


@ROWS.row(batch=lambda size: Sample(*pair_of_tensors(size)[:2]), spec=WHOLE_BATCH, **PAIR)
class NamedTupleInput(Pair):
    def forward(self, sample: Sample) -> Tensor:
        return super().forward(sample.a, sample.v)


@ROWS.row(spec={"outputs": {"path": "scores.logits"}}, **PAIR)
class DictOutput(Pair):
    def forward(self, a: Tensor, v: Tensor) -> dict[str, Any]:
        return {"loss": None, "scores": {"logits": super().forward(a, v), "sum": a.sum()}}


@ROWS.row(spec={"outputs": {"path": "1"}}, **PAIR)
class TupleOutput(Pair):
    def forward(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.enc_a(a), super().forward(a, v)


@dataclass
class Scores:
    loss: Tensor | None
    logits: Tensor


@ROWS.row(spec={"outputs": {"path": "logits"}}, **PAIR)
class ObjectOutput(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Scores:
        return Scores(None, super().forward(a, v))


@ROWS.row(spec={"task": "binary", "outputs": {"kind": "one_logit"}}, **PAIR)
class OneLogitFlat(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2 * HIDDEN, 1)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a, v).squeeze(1)


@ROWS.row(spec={"task": "binary", "outputs": {"kind": "one_logit"}}, **PAIR)
class OneLogitColumn(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2 * HIDDEN, 1)


@ROWS.row(spec={"outputs": {"kind": "probabilities"}}, **PAIR)
class Probabilities(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a, v).softmax(1)


@ROWS.row(spec={"outputs": {"kind": "log_probabilities"}}, **PAIR)
class LogProbabilities(Pair):
    """A product of experts."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        experts = (super(LogProbabilities, self).forward(a * on, v * (1 - on)) for on in (0, 1))
        return sum(expert.log_softmax(1) for expert in experts).log_softmax(1)


@ROWS.row(
    batch=lambda size: {"a": integers(70, 0, 256, size, 6), "v": integers(71, 0, 2, size, 5) == 1},
    **PAIR,
)
class IntegersAndBooleans(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a / 255, v.float())


@ROWS.row(
    batch=lambda size: {"a": integers(72, 0, 256, size, 6).byte(), "v": normal(73, size, 5)}, **PAIR
)
class BytesCentred(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a.float().sub(128).div(64), v)


@ROWS.row(
    batch=lambda size: {k: x.double() for k, x in vectors(size).items()}, **PAIR, tolerance=1e-9
)
class Float64(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.double()


@ROWS.row(
    batch=lambda size: {k: x.bfloat16() for k, x in vectors(size).items()}, **PAIR, tolerance=0.03
)
class BFloat16(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.bfloat16()


@ROWS.row(**PAIR, tolerance=0.03)
class AutocastInside(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(a, v).float()


@ROWS.row(**PAIR)
def compiled() -> Any:
    return torch.compile(Pair(), backend="eager")


@ROWS.row(**PAIR)
def data_parallel() -> nn.Module:
    return nn.DataParallel(Pair())


@ROWS.row(**PAIR)
def hooked_by_its_owner() -> nn.Module:
    """Hooks of the owner change what goes into one encoder and what comes out of another."""
    model = Pair()
    model.enc_a.register_forward_hook(lambda module, inputs, output: 2 * output + 1)
    model.enc_v.register_forward_pre_hook(lambda module, inputs: (inputs[0] - 1,))
    return model


@ROWS.row()
def plain_function() -> Callable[[Tensor, Tensor], Tensor]:
    """No module in sight: the weights are in a closure."""
    w, u = torch.randn(6, CLASSES), torch.randn(5, CLASSES)
    return lambda a, v: torch.tanh(a @ w) * torch.tanh(v @ u) + a @ w / 3


@ROWS.row()
def bound_method() -> Callable[..., Tensor]:
    return Pair().eval().forward


def with_company(size: int) -> dict[str, Any]:
    return {
        **vectors(size),
        "speaker": integers(76, 0, 4, size),
        "temperature": torch.tensor(0.7),
        "mode": "plain",
        "table": normal(77, 5, 2 * HIDDEN),
    }


@ROWS.row(
    batch=with_company,
    spec={"call": {"args": ["a", "v", "speaker", "temperature"], "kwargs": {"mode": "mode"}}},
    **PAIR,
)
class InputsOfNoModality(Pair):
    """One entry per sample, a number for all of them, and a word."""

    def __init__(self) -> None:
        super().__init__()
        self.speakers = nn.Embedding(4, CLASSES)

    def forward(
        self, a: Tensor, v: Tensor, speaker: Tensor, temperature: Tensor, mode: str
    ) -> Tensor:
        sign = 1 if mode == "plain" else -1
        return sign * super().forward(a, v) / temperature + self.speakers(speaker)


@ROWS.row(
    batch=with_company,
    spec={"call": {"args": ["a", "v", "table"]}},
    encoders=PAIR["encoders"],
    unused=("head",),
    samples_interact=None,
)
class TableAsLongAsTheBatch(Pair):
    """Five prototypes as an input: with five samples they look like one per sample."""

    def forward(self, a: Tensor, v: Tensor, table: Tensor) -> Tensor:
        return torch.cat([self.enc_a(a), self.enc_v(v)], 1) @ table.T / 3


@ROWS.row(**PAIR)
class AuxiliaryInTraining(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Any:
        logits = super().forward(a, v)
        return (logits, self.enc_a(a)) if self.training else logits


def equal_widths(size: int) -> dict[str, Tensor]:
    return {"a": normal(78, size, 6), "v": normal(79, size, 6)}


class EqualWidths(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_v = nn.Linear(6, HIDDEN)


@ROWS.row(batch=equal_widths, **PAIR)
class NamesOutOfOrderEqualWidths(EqualWidths):
    """Nothing fails where the two are mixed up."""

    def forward(self, v: Tensor, a: Tensor) -> Tensor:
        return super().forward(a, v)


def views(size: int) -> dict[str, Tensor]:
    whole = normal(70, size, 12)
    return {"a": whole[:, :6], "v": whole[:, 6:]}


@ROWS.row(batch=views, **PAIR)
class ViewsOfOneTensor(EqualWidths):
    """Both inputs lie in one storage."""


def same_twice(size: int) -> dict[str, Tensor]:
    return dict.fromkeys(("a", "v"), normal(70, size, 6))


@ROWS.row(batch=same_twice, **PAIR)
class SameTensorTwice(EqualWidths):
    pass


@ROWS.row(
    batch=lambda size: {"a": normal(70, 1, 6).expand(size, 6), "v": normal(71, size, 6)}, **PAIR
)
class ExpandedInput(EqualWidths):
    """All samples share the memory of one."""


@ROWS.row(
    batch=lambda size: {"a": torch.complex(*normal(70, 2, size, 6)), "v": normal(71, size, 5)},
    **PAIR,
)
class ComplexInput(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a.real * a.imag, v)


@ROWS.row(
    batch=lambda size: {**vectors(size), "gain": [1 + i / 10 for i in range(size)]},
    spec=WHOLE_BATCH,
    encoders=PAIR["encoders"],
    head="head",
    samples_interact=None,
)
class NumbersInAList(Pair):
    """One Python number per sample, which no one can cut or repeat as a tensor."""

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return super().forward(batch["a"], batch["v"]) * torch.tensor(batch["gain"])[:, None]


class ModelOutput(OrderedDict[str, Tensor]):
    """Keys that are attributes as well."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@ROWS.row(
    batch=lambda size: {
        "input_ids": integers(70, 1, 20, size, 6),
        "attention_mask": torch.ones(size, 6, dtype=torch.long),
        "pixel_values": normal(71, size, 1, 4, 4),
        "labels": integers(72, 0, CLASSES, size),
    },
    modalities={
        "text": {
            "inputs": ["input_ids", "attention_mask"],
            "mask": {"input_ids": {"token": 0}, "attention_mask": "keep"},
        },
        "image": {"inputs": "pixel_values"},
    },
    spec={"outputs": {"path": "logits"}, "target": "labels"},
    encoders={"text": ("text",), "image": ("vision",)},
    head="head",
)
class ManyOptionalArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = nn.EmbeddingBag(20, HIDDEN, mode="sum")
        self.vision = nn.Sequential(
            nn.Conv2d(1, HIDDEN, 2, 2), nn.Flatten(), nn.Linear(4 * HIDDEN, HIDDEN)
        )
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_loss: bool | None = None,
    ) -> ModelOutput:
        text = self.text(input_ids, per_sample_weights=attention_mask / 6)
        image = self.vision(pixel_values)
        return ModelOutput(logits=self.head(torch.tanh(text) * image), image_embeds=image)


@ROWS.row(head="head")
class CompiledEncoder(Pair):
    """Only a part is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a = torch.compile(self.enc_a, backend="eager")
