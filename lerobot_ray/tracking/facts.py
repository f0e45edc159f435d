"""What a report wants to know about the samples of a run, as plain JSON values."""

from __future__ import annotations

from typing import Any

from lerobot_ray.data.episodes import Selection

MAX_EPISODES_LISTED = 20_000


def selection_facts(selection: Selection) -> dict[str, Any]:
    """How many episodes and samples a run trains on, and which: the list is left out for very large datasets."""
    facts: dict[str, Any] = {"num_samples": selection.num_samples, "num_episodes": len(selection.episodes)}
    if len(selection.episodes) <= MAX_EPISODES_LISTED:
        facts["episodes"] = selection.episodes.tolist()
        facts["episode_samples"] = selection.lengths.tolist()
    return facts
