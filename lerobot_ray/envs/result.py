"""What is left of an episode when it is over. Played elsewhere it compares equal, so it holds no wall time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpisodeResult:
    """One episode: what was played, and what came of it."""

    episode: int
    """Its number in the evaluation."""
    seed: int
    """What the environment was reset with: the evaluation's seed plus the episode's number."""
    task: str
    """The task of the environment it was played in."""
    success: bool | None
    """What the environment said in its last step; None when it has no success signal, or the episode failed."""
    sum_reward: float
    max_reward: float
    """0.0 when there was no step."""
    length: int
    """Steps taken."""
    video: str | None = None
    """Its video, where one was wanted: `length` + 1 pictures."""
    error: str | None = None
    """Why the episode could not be played to its end (the environment crashed, hung, …); None: it was."""

    @property
    def is_failed(self) -> bool:
        """Whether it could not be played to its end. What it holds up to then is no measure of the policy."""
        return self.error is not None
