"""From traced calls to what is told of them: roles of modules, fusion point, head, parameter groups, and doubts."""

from __future__ import annotations

from torch import nn

from mmaudit.checkpoint.tracing import CallKey, EncoderCall, Trace
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.schema import ModuleRecord, StructureRecord

__all__ = ["Roles"]


class Roles:
    """Turns traced calls into the record: roles, fusion point, head, parameter groups."""

    def __init__(
        self,
        model: nn.Module,
        spec: MaskingSpec,
        first: Trace,
        observed: dict[CallKey, int],
        encoder_calls: list[EncoderCall],
        unknown: list[str],
        sometimes: set[str],
    ) -> None:
        self.sometimes = sometimes
        self.model, self.spec, self.first, self.unknown = model, spec, first, unknown
        self.everything = (1 << len(spec.names)) - 1
        self.encoder_calls = encoder_calls
        self.observed = observed

    def record(self) -> StructureRecord:
        """The stored part of a structure.

        Raises:
            SpecError: If the spec names modules that the model does not have.
        """
        modules = dict(self.model.named_modules())
        labels: dict[str, int] = {}
        counts: dict[str, int] = {}
        for call in self.first.calls:
            labels[call.key[0]] = labels.get(call.key[0], 0) | call.label & self.everything
            counts[call.key[0]] = counts.get(call.key[0], 0) + 1
        parameters = {
            name: self.first.parameters.get(name) for name, _ in self.model.named_parameters()
        }
        head = self._head(modules)
        encoders: dict[str, list[str]] = {name: [] for name in self.spec.names}
        by_module: dict[str, set[int]] = {}
        for encoder in self.encoder_calls:
            if encoder.key[0] == head:  # of a model that ignores all modalities but one
                continue
            encoders[self.spec.names[encoder.modality]].append(encoder.key[0])
            by_module.setdefault(encoder.key[0], set()).add(encoder.modality)
        encoders = {name: list(dict.fromkeys(found)) for name, found in encoders.items()}
        rows = []
        for name, module in modules.items():
            own = [
                p
                for n, p in parameters.items()
                if n == name or n.startswith(f"{name}.") or not name
            ]
            inner = [n for n in counts if n.startswith(f"{name}.")] if name else list(counts)
            if name in self.sometimes:
                label, role = self.everything, "fusion"
            elif name not in counts:
                met = 0
                for bits in own:
                    met |= bits or 0
                touched = inner or any(bits is not None for bits in own)
                role = ("container" if inner else "inside") if touched else "unused"
                label = met & self.everything
            else:
                label = labels[name]
                if name == head:
                    role = "head"
                elif len(by_module.get(name, ())) > 1:
                    role = "shared"
                elif name in by_module:
                    role = "encoder"
                elif not label:
                    role = "constant"
                elif label.bit_count() == 1:
                    role = "inside"
                else:
                    role = "inside" if self._within(name, by_module) else "fusion"
            rows.append(
                ModuleRecord(
                    name=name,
                    type=type(module).__name__,
                    modalities=self._names(label),
                    calls=counts.get(name, 0),
                    role=role,
                    parameters=sum(p.numel() for p in module.parameters()),
                )
            )
        if self.sometimes:
            self.unknown.append(
                f"Called for some samples only, taken to see everything: {', '.join(sorted(self.sometimes)[:6])}."
            )
        idle = [row.name for row in rows if row.role == "unused" and row.parameters]
        if idle:
            self.unknown.append(
                f"Never called on the samples tried: {', '.join(idle[:6])}{', ...' if len(idle) > 6 else ''}."
            )
        self._doubts()
        for modality, part in self.spec.modalities.items():
            encoders[modality] = self._wished(
                modality, part.encoders, encoders[modality], modules, labels
            )
            if not encoders[modality]:
                self.unknown.append(
                    f"No module sees {modality} alone: it has no encoder of its own."
                )
        for asked in (self.spec.head, self.spec.latent):
            if asked is not None and asked not in modules:
                raise SpecError(f"the spec names module '{asked}', which the model does not have.")
        head = self.spec.head or head
        if head is None and len(self.spec.names) > 1:
            self.unknown.append(
                "No linear module comes after the fusion: there is no single latent."
            )
        latent = self.spec.latent or head
        return StructureRecord(
            modules=tuple(rows),
            encoders={name: tuple(found) for name, found in encoders.items()},
            fusion=self._fusion(),
            latent=f"input of {latent}" if latent else None,
            head=head,
            parameter_groups=self._groups(parameters),
        )

    def _within(self, name: str, by_module: dict[str, set[int]]) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:i]) in by_module for i in range(1, len(parts)))

    def _names(self, label: int) -> tuple[str, ...]:
        return tuple(name for m, name in enumerate(self.spec.names) if label >> m & 1)

    def _fusion(self) -> str | None:
        """The first call to end whose outputs depend on more than one modality."""
        mixed = [c for c in self.first.calls if (c.label & self.everything).bit_count() > 1]
        return min(mixed, key=lambda c: c.order).key[0] if mixed else None

    def _head(self, modules: dict[str, nn.Module]) -> str | None:
        """The last linear module whose output depends on all that the model's output depends on."""
        wanted = self.first.label & self.everything
        fitting = [
            c
            for c in self.first.calls
            if isinstance(modules[c.key[0]], nn.Linear) and c.label & self.everything == wanted
        ]
        return max(fitting, key=lambda c: c.order).key[0] if fitting and wanted else None

    def _groups(self, parameters: dict[str, int | None]) -> dict[str, tuple[str, ...]]:
        groups: dict[str, list[str]] = {
            name: [] for name in (*self.spec.names, "shared", "constant", "unused")
        }
        for name, bits in parameters.items():
            if bits is None:
                groups["unused"].append(name)
                continue
            met = self._names(bits)
            groups[met[0] if len(met) == 1 else "shared" if met else "constant"].append(name)
        return {name: tuple(found) for name, found in groups.items() if found}

    def _doubts(self) -> None:
        """Say where operations and perturbation disagree."""
        for m, name in enumerate(self.spec.names):
            if not self.first.label >> m & 1 and not any(
                bits >> m & 1 for bits in self.observed.values()
            ):
                self.unknown.append(f"The output does not depend on {name} at all.")
        hidden = [
            c.key[0]
            for c in self.first.calls
            for m in range(len(self.spec.names))
            if self.observed.get(c.key, 0) >> m & 1
            and not any(label >> m & 1 for label in c.labels)
        ]
        if hidden:
            self.unknown.append(
                f"Modules depend on a modality past torch's operations: {', '.join(dict.fromkeys(hidden))}."
            )

    def _wished(
        self,
        modality: str,
        wished: tuple[str, ...] | None,
        found: list[str],
        modules: dict[str, nn.Module],
        labels: dict[str, int],
    ) -> list[str]:
        if wished is None:
            return found
        m = self.spec.names.index(modality)
        for name in wished:
            if name not in modules:
                raise SpecError(
                    f"modalities.{modality}.encoders names module '{name}', which the model does not have."
                )
            if labels.get(name, 0) & ~(1 << m):
                self.unknown.append(
                    f"The spec calls {name} an encoder of {modality}, but it also sees other modalities."
                )
        return list(wished)
