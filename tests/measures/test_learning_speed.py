"""Conditional learning speed by hand."""

import numpy as np
import pytest

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.learning_speed import (
    conditional_learning_speed,
    effective_updates,
    speed_difference,
)


def test_two_steps_of_two_branches():
    crossing = np.array([[0.02, 0.03], [0.005, 0.01]])
    own = np.array([[0.01, 0.005], [0.03, 0.01]])
    speeds = conditional_learning_speed(crossing, own)
    np.testing.assert_allclose(speeds, [[0.301030, 0.522879], [-0.778151, -0.425969]], atol=1e-6)
    np.testing.assert_allclose(speed_difference(speeds), [1.079181, 0.948847], atol=1e-6)
    np.testing.assert_allclose(
        np.log(10) * speed_difference(speeds), [2.484907, 2.184802], atol=1e-6
    )


def test_ratios_are_pooled():
    assert effective_updates(np.array([1.0, 4.0]), np.array([10.0, 1.0])) == pytest.approx(5 / 11)


def test_more_branches_take_the_spread():
    assert speed_difference(np.array([[0.1], [0.5], [-0.2]])).tolist() == [pytest.approx(0.7)]


def test_what_is_undefined():
    assert np.isnan(conditional_learning_speed(np.array([[0.0]]), np.array([[1.0]]))).all()
    with pytest.raises(UndefinedMeasureError):
        effective_updates(np.ones(2), np.zeros(2))
    with pytest.raises(UndefinedMeasureError):
        speed_difference(np.ones((1, 3)))
