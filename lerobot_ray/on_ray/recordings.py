"""Recorded rollouts of an evaluation: what actors left becomes a dataset per task, pushed where it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.envs.make import tasks_of
from lerobot_ray.envs.record import join_recording
from lerobot_ray.hub.dataset import push_dataset
from lerobot_ray.on_ray.evaluation import EvaluationPlan, task_folder


def keep_recordings(plan: EvaluationPlan, *, say: Callable[[str], None]) -> None:
    """Join and push. What goes wrong is said; the evaluation stands without it."""
    assert plan.recording_dir is not None
    tasks = tasks_of(plan.env)
    for number, env in enumerate(tasks):
        folder = plan.recording_dir / task_folder(env, number)
        given = plan.eval.recording_repo_id
        repo_id = given if given and len(tasks) == 1 else f"{given or 'local/rollouts'}_{folder.name}"
        try:
            count = join_recording(folder, repo_id=repo_id)
            say(f"{plan.name}: {count} episodes recorded in {folder}")
            if given:
                say(f"{plan.name}: pushed to {push_dataset(folder, repo_id, private=plan.eval.recording_private)}")
        except (LerobotRayError, OSError) as error:
            say(f"{plan.name}: the recording in {folder} is not kept as a dataset: {error}")
