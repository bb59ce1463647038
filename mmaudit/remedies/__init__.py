"""Training methods against modality imbalance; one method is one file."""

from mmaudit.exceptions import SpecError
from mmaudit.remedies.agm import AGM
from mmaudit.remedies.base import Remedy, RemedyOptions
from mmaudit.remedies.joint import Joint
from mmaudit.remedies.mla import MLA
from mmaudit.remedies.modality_dropout import ModalityDropout
from mmaudit.remedies.ogm_ge import OGM, OGMGE

__all__ = ["REMEDIES", "Remedy", "RemedyOptions", "find_remedy"]

REMEDIES: dict[str, type[Remedy]] = {
    "agm": AGM,
    "ogm_ge": OGMGE,
    "ogm": OGM,
    "mla": MLA,
    "modality_dropout": ModalityDropout,
    "joint": Joint,
}


def find_remedy(key: str) -> type[Remedy]:
    """The remedy of that name.

    Raises:
        SpecError: If there is none.
    """
    if key not in REMEDIES:
        raise SpecError(f"'{key}' is no remedy; there are {', '.join(REMEDIES)}.")
    return REMEDIES[key]
