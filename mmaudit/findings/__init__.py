"""Findings: what a record means for each modality and for the model as a whole, each with its rule and its evidence.

``find(record)`` asks three questions of every modality (is it read, could it say something alone, is it needed), gives each a
verdict, and compares modalities. Thresholds have names (:class:`Thresholds`) and are overridden in the audit file.
"""

from mmaudit.findings.finding import NEEDED_MEASURES, find
from mmaudit.findings.thresholds import Thresholds, read_thresholds

__all__ = ["NEEDED_MEASURES", "Thresholds", "find", "read_thresholds"]
