"""What only the command line needs: how a command ends, progress, drafting, previewing, inspecting."""

from __future__ import annotations
