from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.report_page.scale import Scale, log_ticks, ticks, value_scale, wants_log


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9), st.integers(2, 10))
def test_ticks_are_few_and_inside(low, span, about):
    high = low + span
    if high - low < abs(low) * 1e-9:
        return
    marks = ticks(low, high, about)
    assert len(marks) <= about + 1
    slack = 1e-6 * (high - low) + 1e-11
    assert all(low - slack <= mark <= high + slack for mark in marks)


def test_ticks_are_round():
    assert ticks(0, 20_000, 8) == [0, 2500, 5000, 7500, 10_000, 12_500, 15_000, 17_500, 20_000]
    assert ticks(0.83, 1.02, 4) == [0.85, 0.9, 0.95, 1.0]
    assert log_ticks(0.08, 8) == [0.1, 0.2, 0.5, 1, 2, 5]
    assert log_ticks(1e-9, 1e3) == [1e-8, 1e-6, 1e-4, 1e-2, 1, 100]


def test_places_go_from_end_to_end_and_stop_there():
    scale = Scale(0, 10, 100, 0)
    assert scale.place(np.array([-5, 0, 5, 10, 20])).tolist() == [100, 100, 50, 0, 0]
    assert Scale(0.01, 1, 0, 100, is_log=True).place(0.1) == pytest.approx(50)


def test_a_logarithm_is_for_positive_values_over_a_wide_range():
    assert wants_log(np.geomspace(0.01, 10, 100))
    assert not wants_log(np.linspace(1, 10, 100))
    assert not wants_log(np.append(np.geomspace(0.01, 10, 100), 0.0))
    assert not wants_log(np.append(np.linspace(1, 2, 200), 1e6)), "one spike is no range"
    assert not wants_log(np.array([np.nan, np.nan, np.nan]))


def test_a_spike_does_not_flatten_the_curve():
    values = np.append(np.linspace(1, 2, 500), 1e6)
    assert value_scale(values, 0, 1, is_log=False).high < 5


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0], [-1.0], [np.nan], [1e-30, 1e30]])
def test_any_values_make_a_scale(values):
    values = np.array(values)
    for is_log in (False, bool(len(values)) and values.min() > 0):
        scale = value_scale(values, 200, 0, is_log=is_log)
        assert scale.high > scale.low
        assert np.isfinite(scale.place(np.array([scale.low, scale.high]))).all()
        scale.ticks(4)
