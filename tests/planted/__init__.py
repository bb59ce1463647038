"""Planted models: many, varied, with known verdicts."""
