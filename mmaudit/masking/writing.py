"""A spec as the text of an audit file."""

from __future__ import annotations

import yaml

from mmaudit.masking.spec import AuditSpec

__all__ = ["audit_file_text"]


def audit_file_text(spec: AuditSpec, head: str) -> str:
    """YAML that reads back as the same spec.

    Args:
        spec: What to write; defaults are left out.
        head: Comment at the top, one line.
    """
    body = spec.model_dump(mode="json", exclude_defaults=True)
    # The kind of a mask is a default of its class, and what tells the classes apart.
    parts = spec.model_dump(mode="json", include={"modalities"}, exclude_none=True)
    body["modalities"] = parts["modalities"]
    return f"# {head}\n" + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
