"""Windows against a slow loop that says what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.windows import delta_offsets, offsets_from_timestamps, window_rows


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    offsets=st.lists(st.integers(-12, 12), min_size=1, max_size=5),
    data=st.data(),
)
def test_window_is_the_clamped_neighbourhood(lengths, offsets, data):
    ends = np.cumsum(lengths)
    anchors = data.draw(st.lists(st.integers(0, int(ends[-1]) - 1), min_size=1, max_size=8))
    episodes = np.searchsorted(ends, anchors, side="right")
    first, last_exclusive = (ends - lengths)[episodes], ends[episodes]
    rows, is_pad = window_rows(np.array(anchors), first, last_exclusive, offsets)
    assert rows.dtype == np.int64
    assert is_pad.dtype == bool
    for i, anchor in enumerate(anchors):
        for j, offset in enumerate(offsets):
            wanted = anchor + offset
            inside = first[i] <= wanted < last_exclusive[i]
            assert is_pad[i, j] == (not inside)
            if inside:
                assert rows[i, j] == wanted
            else:
                assert rows[i, j] == (first[i] if wanted < first[i] else last_exclusive[i] - 1)


@given(
    offsets=st.lists(st.integers(-1000, 1000), min_size=1, max_size=20),
    fps=st.sampled_from([1, 7, 10, 15, 24, 30, 50, 60, 29.97]),
    jitter=st.floats(-0.9e-4, 0.9e-4),
)
def test_seconds_become_the_frames_they_were_made_from(offsets, fps, jitter):
    seconds = [offset / fps + jitter for offset in offsets]
    assert offsets_from_timestamps({"action": seconds}, fps, 1e-4)["action"].tolist() == offsets


@pytest.mark.parametrize("seconds", [[0.05], [0.0, 0.1002], [float("nan")], [], [[0.1]]])
def test_seconds_off_the_grid_are_refused(seconds):
    with pytest.raises(DatasetError, match="'action'"):
        offsets_from_timestamps({"action": seconds}, 10, 1e-4)


def test_policy_indices_go_to_the_features_they_are_about():
    features = ["observation.state", "observation.images.top", "observations", "action", "next.reward", "next.done"]
    assert delta_offsets(features, [-1, 0], range(3), None) == {
        "observation.state": [-1, 0],
        "observation.images.top": [-1, 0],
        "action": [0, 1, 2],
    }
    assert delta_offsets(features, None, None, [0]) == {"next.reward": [0]}
