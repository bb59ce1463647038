"""Findings read records and nothing else: no torch, no engine."""

from __future__ import annotations

import subprocess
import sys


def test_findings_load_no_torch():
    code = (
        "import sys, mmaudit.findings; "
        "print([m for m in sys.modules if m == 'torch' or m.startswith(('mmaudit.evidence', 'mmaudit.measures'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
