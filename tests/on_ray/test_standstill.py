"""The rank that the others wait for is named, and nobody is when the run moves or merely takes its time."""

from __future__ import annotations

import sys
import threading

import pytest

from lerobot_ray.on_ray.pulse import FETCHING, SAVING, TRAINING, Beat, Pulse, place_of
from lerobot_ray.on_ray.standstill import NAMED_AFTER_S, SILENT_AFTER_S, Signs, who_is_waited_for

LONG = NAMED_AFTER_S + 5


def sign(rank: int, doing: str = TRAINING, *, for_s: float = LONG, where: str = "", waits: bool = False) -> Beat:
    return Beat("a", rank, f"host{rank}, process 1{rank}", 7, doing, for_s, where, waits)


WAITS = sign(0, where="train (loop.py:70)", waits=True)


@pytest.mark.parametrize(
    ("signs", "wanted"),
    [
        ([(WAITS, 1), (sign(1, where="forward (model.py:3)"), 1)], ["rank 1", "process 11", "forward (model.py:3)"]),
        ([(WAITS, 1), (sign(1, FETCHING), 1)], ["rank 1", "waiting for samples"]),
        ([(WAITS, 1), (sign(1, SAVING), 1)], ["rank 1", "saving"]),
        ([(WAITS, 1), (sign(1, for_s=1), LONG)], ["rank 1", "no sign of life"]),
        ([(WAITS, 1), (sign(1, waits=True), 1), (sign(2), 1)], ["rank 2"]),
        ([(WAITS, 1), (sign(1, waits=True), 1)], ["all ranks wait for each other", "loop.py:70"]),
        ([(WAITS, 1), (sign(1, for_s=2), 1)], []),  # it moves
        ([(sign(0), 1), (sign(1), 1)], []),  # a long step
        ([(sign(0, FETCHING), 1), (sign(1, FETCHING), 1)], []),  # the stream says so itself
        ([(sign(0), SILENT_AFTER_S + 1), (sign(1), SILENT_AFTER_S + 1)], []),  # all gone: started again
        ([(WAITS, 1)], []),
    ],
)
def test_who_is_waited_for(signs, wanted):
    text = who_is_waited_for(signs)
    assert bool(text) == bool(wanted)
    assert all(part in text for part in wanted)
    assert "rank 0 (" not in text


def test_it_is_said_once_and_signs_of_an_earlier_start_are_forgotten():
    signs = Signs()
    for beat in (WAITS, sign(1)):
        signs.add(beat)
    assert "rank 1" in signs.standstill()
    assert signs.standstill() == ""
    signs.add(Beat("b", 0, "host0", 7, TRAINING, LONG, "", True))
    assert signs.standstill() == ""


def test_a_pulse_says_what_its_thread_does(monkeypatch):
    monkeypatch.setattr("lerobot_ray.on_ray.pulse.LOOK_AFTER_S", -1.0)
    beats, seen = [], threading.Event()

    def post(beat):
        beats.append(beat)
        if "test_a_pulse_says" in beat.where:
            seen.set()

    monkeypatch.setattr("lerobot_ray.on_ray.pulse.BEAT_EVERY_S", 0.01)
    with Pulse("a", 3, "host", step=5, post=post) as pulse:
        assert seen.wait(30)
        assert list(pulse.while_fetching([1, 2])) == [1, 2]
        pulse.at(SAVING, step=6)
        sign = pulse.sign()
    assert (beats[0].rank, beats[0].step, sign.step, sign.doing) == (3, 5, 6, SAVING)
    assert not beats[0].is_in_collective


def test_a_pulse_is_felt_at_once(monkeypatch):
    """A process may freeze before its second sign is due, and is named for the first."""
    arrived = threading.Event()
    monkeypatch.setattr("lerobot_ray.on_ray.pulse.BEAT_EVERY_S", 600.0)
    with Pulse("a", 3, "host", step=5, post=lambda _: arrived.set()):
        assert arrived.wait(60)


@pytest.mark.parametrize(
    ("file", "function", "waits"),
    [
        ("/x/torch/distributed/c10d.py", "barrier", True),
        ("/x/torch/autograd/graph.py", "_engine_run_backward", True),
        ("/x/lerobot_ray/engine/finite.py", "_judge", True),
        ("/x/policy.py", "forward", False),
    ],
)
def test_where_a_thread_waits_for_others(file, function, waits):
    names = {"sys": sys}
    exec(compile(f"def {function}():\n    return sys._getframe()\nframe = {function}()", file, "exec"), names)
    assert place_of(names["frame"]) == (f"{function} ({file}:2)", waits)


def test_the_functions_that_wait_for_a_device_are_there():
    from lerobot_ray.engine import finite, meters, step
    from lerobot_ray.on_ray.pulse import _DEVICE_FUNCTIONS

    found = [(finite, finite.FiniteWatch._judge), (meters, meters.Meters.window), (step, step.move)]
    for (file, name), (module, function) in zip(_DEVICE_FUNCTIONS, found, strict=True):
        assert module.__file__.endswith(file)
        assert function.__name__ == name
