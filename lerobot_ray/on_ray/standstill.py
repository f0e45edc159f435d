"""Which rank keeps the others waiting, from the last sign of life of each."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lerobot_ray.on_ray.pulse import BEAT_EVERY_S, FETCHING, STARTING, Beat

NAMED_AFTER_S = 40.0
SILENT_AFTER_S = 4 * BEAT_EVERY_S


class Signs:
    """The last sign of each rank of the newest start. `standstill` says who keeps the others waiting, once a step."""

    def __init__(self) -> None:
        self._start = ""
        self._latest: dict[int, tuple[Beat, float]] = {}
        self._said: tuple[str, int] | None = None

    def add(self, beat: Beat) -> None:
        if beat.start != self._start:
            self._start, self._latest = beat.start, {}
        self._latest[beat.rank] = (beat, time.monotonic())

    def standstill(self) -> str:
        """One line when no rank has moved for `NAMED_AFTER_S` and one is to blame; empty otherwise, and when said."""
        now = time.monotonic()
        text = who_is_waited_for([(beat, now - arrived) for beat, arrived in self._latest.values()])
        if not text:
            return ""
        about = (self._start, min(beat.step for beat, _ in self._latest.values()))
        if about == self._said:
            return ""
        self._said = about
        return text


def who_is_waited_for(signs: Sequence[tuple[Beat, float]]) -> str:
    """`signs`: each rank's last and its age in seconds. Empty while anything moves or nobody can be blamed."""
    if len(signs) < 2 or min(beat.for_s + age for beat, age in signs) < NAMED_AFTER_S:
        return ""
    if all(beat.doing in (FETCHING, STARTING) for beat, _ in signs):
        return ""  # nothing arrives for anyone: the stream says so itself
    silent = [(beat, age) for beat, age in signs if age > SILENT_AFTER_S]
    if len(silent) == len(signs):
        return ""  # they are all gone: Ray Train starts them again
    waiting = [beat for beat, _ in signs if beat.is_in_collective]
    blamed = silent or [(beat, age) for beat, age in signs if not beat.is_in_collective]
    if not waiting and not silent:
        return ""  # all compute: a long step, not a standstill
    if not blamed:
        steps = ", ".join(f"rank {beat.rank} in step {beat.step} at {beat.where or '?'}" for beat, _ in signs)
        return f"all ranks wait for each other, as when the network between them is broken: {steps}."
    return " ".join(_described(beat, age) for beat, age in sorted(blamed, key=lambda sign: sign[0].rank))


def _described(beat: Beat, age_s: float) -> str:
    for_s = beat.for_s + age_s
    if age_s > SILENT_AFTER_S:
        what = f"it has given no sign of life for {age_s:.0f} s"
    else:
        what = f"{beat.doing} for {for_s:.0f} s" + (f", at {beat.where}" if beat.where else "")
    return f"rank {beat.rank} ({beat.process}) keeps the others waiting in step {beat.step}: {what}."
