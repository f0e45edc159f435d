"""A run's way to the Hub on the rank that writes its checkpoints. Nothing in here stops training."""

from __future__ import annotations

import logging
from pathlib import Path

from lerobot_ray.checkpoint.carrier import MAX_WAITING
from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.hub.client import scrubbed
from lerobot_ray.hub.preflight import PushPlan
from lerobot_ray.hub.pusher import CheckpointPusher, load_record_of_pushes
from lerobot_ray.on_ray.publish import publish
from lerobot_ray.on_ray.run_setup import RunSetup

logger = logging.getLogger(__name__)


class HubSide:
    """Pushes each checkpoint as it is complete, and the policy at the end. One per start, on rank 0."""

    def __init__(self, setup: RunSetup, plan: PushPlan, *, first_step: int) -> None:
        self._setup, self._plan = setup, plan
        self._pusher = None
        if plan.checkpoints:
            self._pusher = CheckpointPusher(setup.output_dir, plan.repo_id, what=plan.what, known_tags=plan.known_tags)
            for checkpoint in not_pushed(setup, plan, up_to=first_step)[-MAX_WAITING:]:  # an earlier start was cut off
                self._pusher.submit(checkpoint)

    def submit(self, checkpoint: Path) -> None:
        if self._pusher is not None:
            self._pusher.submit(checkpoint)

    def may_remove(self, checkpoint: Path) -> bool:
        """Whether nobody reads this checkpoint any more."""
        return self._pusher is None or not self._pusher.is_needed(checkpoint)

    def finish(self, *, is_done: bool) -> None:
        """Wait for what is on its way; `is_done`: the run has trained all its steps, so publish the policy."""
        if self._pusher is not None:
            self._pusher.finish()
            if summary := self._pusher.summary():
                logger.warning("%s", summary)
        if is_done and self._plan.policy:
            self._publish()

    def abandon(self) -> None:
        """The training process ends with an error; its successor goes on where this one stopped."""
        if self._pusher is not None:
            self._pusher.abandon()

    def _publish(self) -> None:
        setup, repo_id = self._setup, self._plan.repo_id
        checkpoints = complete_checkpoints(setup.output_dir)
        if not checkpoints:  # continued from elsewhere, with nothing left to train
            return
        try:
            publish(
                checkpoints[-1],
                setup.config,
                run_dir=setup.output_dir,
                repo_id=repo_id,
                metadata=setup.spec.metadata,
            )
        except Exception as error:
            logger.warning(
                "the policy is not on the Hub: %s Push it: %s --publish",
                scrubbed(str(error) or type(error).__name__),
                push_command(setup, self._plan),
            )


def push_command(setup: RunSetup, plan: PushPlan) -> str:
    """What a person types to push later."""
    return f"python -m lerobot_ray.push {setup.output_dir} --repo-id={plan.repo_id}"


def not_pushed(setup: RunSetup, plan: PushPlan, *, up_to: int | None = None) -> list[Path]:
    """This run's complete checkpoints that are not known to be on the Hub, oldest first."""
    there = {*load_record_of_pushes(setup.output_dir, plan.repo_id), *plan.known_tags}
    return [path for path in own_checkpoints(setup, up_to=up_to) if path.name not in there]


def own_checkpoints(setup: RunSetup, *, up_to: int | None = None) -> list[Path]:
    """This run's complete checkpoints in its folder, oldest first."""
    is_same_run = setup.resume_from is not None and setup.resume_from.is_relative_to(setup.output_dir)
    foreign: set[str] = set() if is_same_run else {name for name, _ in setup.not_ours}
    return [
        path
        for path in complete_checkpoints(setup.output_dir)
        if path.name not in foreign and (up_to is None or int(path.name) <= up_to)
    ]
