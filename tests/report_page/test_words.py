from __future__ import annotations

import pytest

from lerobot_ray.report_page import words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.31416, "0.3142"),
        (25_650, "25,650"),
        (1e-5, "1e-5"),
        (3.14e-5, "3.14e-5"),
        (float("nan"), "not finite"),
        (150.0, "150"),
    ],
)
def test_short(value, said):
    assert words.short(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "12 ms"),
        (45, "45 s"),
        (200, "3 min 20 s"),
        (3599, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (274_000, "3 d 4 h"),
    ],
)
def test_duration(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (0.0004, "< 0.1 %"), (0.004, "0.4 %"), (0.07, "7 %"), (0.9999, "99.9 %"), (1, "100 %")],
)
def test_percent(share, said):
    assert words.percent(share) == said


def test_axis_and_counts():
    assert [words.on_axis(value) for value in (0, 2500, 1_500_000, 5e-6, 0.05)] == ["0", "2.5k", "1.5M", "5e-6", "0.05"]
    assert words.count(1, "step") == "1 step"
    assert words.count(12_000, "step") == "12,000 steps"
    assert words.size(1_234_567) == "1.23 MB"
