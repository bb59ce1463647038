"""Which method a structure and its masks allow: the fastest that may be right, with the reason against faster ones."""

from dataclasses import replace

import pytest
import torch

from mmaudit.checkpoint.structure import EncoderCall, Structure
from mmaudit.evidence.method import STEP_DOWN, constant_when_empty, first_method
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.schema import StructureRecord

KNOWN = Structure(StructureRecord(), encoder_calls=(EncoderCall(("enc", 0), 0),))


def spec(mask="zero"):
    return MaskingSpec(modalities={"a": {"inputs": "0", "mask": mask}, "b": "1"})


@pytest.mark.parametrize(
    ("structure", "mask", "method", "reason"),
    [
        (KNOWN, "zero", "packed", None),
        (KNOWN, "drop", "full passes", "mask 'drop' of a changes how the model is called"),
        (replace(KNOWN, fallback="it cannot be traced"), "zero", "full passes", "it cannot be traced"),
        (replace(KNOWN, encoder_calls=()), "zero", "full passes", "no module sees one modality alone"),
        (replace(KNOWN, rows_matter="samples mix"), "zero", "unpacked", "samples mix"),
        (
            replace(KNOWN, encoder_calls=(replace(KNOWN.encoder_calls[0], packable=False),)),
            "zero",
            "unpacked",
            "what module 'enc' returns has no dimension that runs over samples",
        ),
    ],
)  # fmt: skip
def test_the_fastest_method_that_may_be_right(structure, mask, method, reason):
    assert first_method(spec(mask), structure) == (method, reason)


def test_every_step_down_ends_in_full_passes():
    method = "packed"
    for _ in STEP_DOWN:
        method = STEP_DOWN[method]
    assert method == "full passes" and method not in STEP_DOWN


@pytest.mark.parametrize(
    ("structure", "mask", "constant"),
    [
        (KNOWN, "zero", True),
        (KNOWN, "noise", False),
        (replace(KNOWN, rows_matter="samples mix"), "zero", False),
        (replace(KNOWN, context=("lengths",)), "zero", False),
        (replace(KNOWN, context_read=True), "zero", False),
        (replace(KNOWN, record=StructureRecord(stochastic=True)), "zero", False),
    ],
)
def test_one_sample_speaks_for_all_only_where_nothing_tells_them_apart(structure, mask, constant):
    batch = in_memory_batch([torch.ones(4, 2), torch.ones(4, 3)], spec(mask), torch.device("cpu"))
    assert constant_when_empty(structure, batch) is constant
