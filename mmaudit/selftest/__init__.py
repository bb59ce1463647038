"""The self-test: models and data with known answers, audited as a user's are, on the user's own machine.

``run_selftest()`` reports for every estimator its error, for every kind of interval how often it holds the truth, and every verdict
against what was planted.
"""

from mmaudit.selftest.results import SelftestResult
from mmaudit.selftest.running import run_selftest

__all__ = ["SelftestResult", "run_selftest"]
