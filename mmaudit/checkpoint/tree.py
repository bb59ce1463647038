"""A structure as text: the module tree with the modality behind each module."""

from __future__ import annotations

from mmaudit.report.schema import ModuleRecord, StructureRecord

__all__ = ["structure_tree"]


def structure_tree(record: StructureRecord) -> str:
    """The tree, then fusion point, latent, head, parameter groups, and what could not be determined.

    Children of a module that sees one modality are folded into it: they see the same.
    """
    lines = []
    folded: list[str] = []
    for module in record.modules:
        if any(module.name.startswith(f"{name}.") for name in folded):
            continue
        if module.role in ("encoder", "unused"):
            folded.append(module.name)
        lines.append(_line(module))
    width = max((len(left) for left, _ in lines), default=0)
    text = [f"{left:<{width}}  {right}".rstrip() for left, right in lines]
    text.append("")
    for title, value in (
        ("fusion", record.fusion),
        ("latent", record.latent),
        ("head", record.head),
    ):
        text.append(f"{title:<12}{value if value else 'none found'}")
    for group, names in record.parameter_groups.items():
        text.append(
            f"{'parameters' if group == next(iter(record.parameter_groups)) else '':<12}{group}: {_some(names)}"
        )
    text += [f"! {sentence}" for sentence in record.unknown]
    return "\n".join(text)


def _line(module: ModuleRecord) -> tuple[str, str]:
    depth = module.name.count(".") + 1 if module.name else 0
    name = module.name.rsplit(".", 1)[-1] or "(model)"
    seen = " + ".join(module.modalities) if module.modalities else "-"
    calls = f", {module.calls} calls" if module.calls > 1 else ""
    return (
        f"{'  ' * depth}{name} ({module.type})",
        f"<- {seen:<24} {module.role}{calls}, {module.parameters:,} parameters",
    )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"{len(names)} ({shown}{', ...' if len(names) > 4 else ''})"
