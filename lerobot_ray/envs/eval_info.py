"""`eval_info.json`: an evaluation in LeRobot's layout, with what LeRobot has no place for beside it.

per_task    one entry per task: its numbers, and each episode's in lists
per_group   the same numbers by type of environment
overall     over all episodes
episodes    ours: every episode as it was played, failed ones included
evaluation  ours: policy, step, seed, intervals, what else the caller wants to remember
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import EnvError
from lerobot_ray.envs.result import EpisodeResult
from lerobot_ray.envs.summary import Summary, summarise

INFO_NAME = "eval_info.json"


def eval_info(
    results: Sequence[EpisodeResult], *, env_type: str, seconds: float, about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The document. `seconds` is the time it took, `about` goes into `evaluation`."""
    summary = summarise(results)
    tasks = []
    for number, (task, numbers) in enumerate(summary.per_task.items()):
        played = [result for result in results if result.task == task and not result.is_failed]
        metrics = {
            "sum_rewards": [result.sum_reward for result in played],
            "max_rewards": [result.max_reward for result in played],
            "successes": [result.success for result in played],
            "video_paths": [result.video for result in played if result.video],
        }
        tasks.append({"task_group": env_type, "task_id": number, "task": task, "metrics": metrics, **_numbers(numbers)})
    overall = {
        **_numbers(summary.overall),
        "eval_s": seconds,
        "eval_ep_s": seconds / max(1, len(results)),
        "video_paths": [result.video for result in results if result.video],
        "predicted_video_paths": [],
    }
    return {
        "per_task": tasks,
        "per_group": {env_type: _numbers(summary.overall)},
        "overall": overall,
        "episodes": [asdict(result) for result in results],
        "evaluation": dict(about or {}),
    }


def metrics_of(info: Mapping[str, Any]) -> dict[str, float]:
    """What trackers get: LeRobot's names, per task where there are several."""
    overall = info["overall"]
    names = ("pc_success", "avg_sum_reward", "avg_max_reward", "eval_s")
    found = {f"eval/{name}": overall[name] for name in names}
    if len(info["per_task"]) > 1:
        found |= {f"eval/pc_success/{task['task']}": task["pc_success"] for task in info["per_task"]}
    if overall["n_failed"]:
        found["eval/failed_episodes"] = overall["n_failed"]
    return {name: float(value) for name, value in found.items() if value is not None}


def sentence_of(info: Mapping[str, Any]) -> str:
    """The overall result for a person: `46.7 % of 30 episodes succeed (30.2 to 63.9 %)`."""
    overall = info["overall"]
    failed = f", {overall['n_failed']} could not be played" if overall["n_failed"] else ""
    if overall["pc_success"] is None:
        returns = overall["avg_sum_reward"]
        said = f"mean return {returns:.4g}" if returns is not None else "nothing played"
        return f"{said} in {overall['n_episodes']} episodes{failed}"
    low, high = overall["pc_success_interval"]
    return (
        f"{overall['pc_success']:.1f} % of {overall['n_episodes']} episodes succeed ({low:.1f} to {high:.1f} %){failed}"
    )


def save_info(info: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all, so that a file that is there can be trusted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(json.dumps(info, indent=2), encoding="utf-8")
    os.replace(fresh, path)


def load_info(path: Path) -> dict[str, Any]:
    """EnvError when the file does not hold an evaluation."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        assert {"overall", "per_task"} <= info.keys()
    except (ValueError, AssertionError, AttributeError) as error:
        raise EnvError(f"{path} does not hold an evaluation: {error}.") from error
    return info


def results_of(info: Mapping[str, Any]) -> list[EpisodeResult]:
    """The episodes of a document of ours."""
    names = {field.name for field in fields(EpisodeResult)}
    return [
        EpisodeResult(**{name: value for name, value in episode.items() if name in names})
        for episode in info.get("episodes", ())
    ]


def _numbers(summary: Summary) -> dict[str, Any]:
    numbers = asdict(summary)
    if summary.pc_success_interval is not None:
        numbers["pc_success_interval"] = list(summary.pc_success_interval)
    return numbers
