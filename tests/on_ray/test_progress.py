"""What the driver says about a run that goes on."""

import io

from lerobot_ray.on_ray.progress import Progress


def test_the_time_left_counts_from_the_checkpoint_a_run_went_back_to():
    """Ten steps of a second each, five minutes to start anew, then a second each again."""
    now, out = [0.0], io.StringIO()
    shown = Progress(100, out=out, clock=lambda: now[0])
    for steps, pause_s in ((range(1, 11), 300.0), (range(8, 12), 0.0)):
        for step in steps:
            shown.numbers(step, {})
            now[0] += 1
        now[0] += pause_s
    assert out.getvalue().splitlines()[-1] == "step 11/100 · 1 min left"
