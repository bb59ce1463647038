"""Pictures of tensors in characters."""

from __future__ import annotations

import numpy as np
import pytest

from mmaudit.command_line.pictures import pictures, plane, statistics


def test_an_input_and_its_mask_share_one_scale():
    whole, masked = pictures(np.array([[0.0, 1.0], [1.0, 0.0]]), np.full((2, 2), 0.5))
    assert whole == ["  ██", "██  "] and masked == ["▒▒▒▒", "▒▒▒▒"]


def test_large_planes_become_block_means():
    array = np.zeros((100, 280))
    array[:, 140:] = 1
    (drawn,) = pictures(array)
    assert drawn == [" " * 14 + "█" * 14] * 10


@pytest.mark.parametrize(
    "shape",
    [(0,), (), (1,), (5,), (1, 5), (3, 4), (1, 7, 5), (2, 3, 4, 5), (200, 3), (3, 200), (1000,)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, bool, np.complex64])
def test_every_shape_and_type_is_drawn_in_bounds(shape, dtype):
    array = np.ones(shape, dtype)
    (drawn,) = pictures(array)
    assert drawn and len(drawn) <= 10 and all(0 < len(line) <= 28 for line in drawn)
    assert statistics(array)


def test_what_is_not_finite_is_a_dot_and_is_counted():
    values = np.array([0.0, np.nan, 1.0, np.inf])
    assert pictures(values) == [["▁·█·"]]
    assert statistics(values) == "min 0  mean 0.5  max 1  2 not finite"


def test_plane_says_which_part_it_is():
    assert plane(np.zeros((3, 16, 8, 9)))[1] == "[1] of 3, [8] of 16"
    assert plane(np.zeros((8, 9, 3)))[1] == "mean of channels"
    assert plane(np.zeros((1, 8, 9)))[1] == ""
