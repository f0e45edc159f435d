from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.report_page.thin import envelope, smoothed

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400)


@given(values, st.integers(5, 60))
def test_no_peak_is_lost_and_the_bins_are_few(values, max_points):
    value = np.array(values)
    thin = envelope(np.arange(len(value)) * 3, value, max_points)
    assert len(thin.step) <= max_points or thin.is_exact
    assert thin.high.max() == value.max()
    assert thin.low.min() == value.min()
    slack = 1e-9 * np.abs(value).max() + 1e-12
    assert (thin.low <= thin.mean + slack).all()
    assert (thin.mean <= thin.high + slack).all()
    assert (np.diff(thin.step) > 0).all()
    assert thin.step[-1] == 3 * (len(value) - 1)


def test_uneven_steps_leave_no_empty_bin():
    step = np.concatenate([np.arange(300), np.arange(10_000, 10_300)])
    thin = envelope(step, step.astype(float), 100)
    assert (thin.low <= thin.high).all()
    assert thin.high[-1] == 10_299


def test_what_is_not_finite_is_left_out():
    thin = envelope(np.arange(4), np.array([np.nan, 1.0, np.inf, 2.0]))
    assert thin.step.tolist() == [1, 3]
    assert len(envelope(np.arange(2), np.full(2, np.nan)).step) == 0


@given(values, st.integers(1, 50))
def test_running_means_stay_within_the_values_and_keep_a_constant(values, window):
    value = np.array(values)
    smooth = smoothed(value, window)
    slack = 1e-6 * np.abs(value).max() + 1e-9
    assert (smooth >= value.min() - slack).all()
    assert (smooth <= value.max() + slack).all()
    assert smoothed(np.full(30, 2.5), window) == pytest.approx(np.full(30, 2.5))


def test_running_means_do_not_lag():
    ramp = np.arange(200.0)
    assert smoothed(ramp, 31) == pytest.approx(ramp)


def test_running_means_bridge_gaps():
    assert smoothed(np.array([1.0, np.nan, 3.0]), 3)[1] == 2.0
    assert np.isnan(smoothed(np.full(5, np.nan))).all()
