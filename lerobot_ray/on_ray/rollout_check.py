"""What about rollouts can be refused before anything starts: the environment, the policy in it, the room for actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError, LerobotRayError
from lerobot_ray.envs.fit import check_policy_fits
from lerobot_ray.envs.make import tasks_of
from lerobot_ray.on_ray.evaluated import evaluates
from lerobot_ray.on_ray.evaluation import resources_of

SUCCESS = "eval/pc_success"


def check_rollouts(config: TrainConfig, rename_map: Mapping[str, str]) -> None:
    """LerobotRayError for evaluations during training that could not work. `rename_map` is the preprocessor's."""
    if config.best_metric == SUCCESS and not evaluates(config):
        raise ConfigError(f"best_metric={SUCCESS} comes from rollouts. Add --env.type=… and --env_eval_freq=….")
    if not evaluates(config):
        return
    if not config.save_checkpoint:
        raise ConfigError(
            "rollouts play checkpoints, and save_checkpoint is false. Leave it true (--keep_last=1 keeps only the "
            "newest), or add --env_eval_freq=0."
        )
    assert config.env is not None
    try:
        check_environment(config.env, config.policy, rename_map=rename_map)
    except LerobotRayError as error:
        raise type(error)(f"{error} (To train without rollouts: --env=null or --env_eval_freq=0.)") from error


def check_environment(env: EnvConfig, policy: Any, *, rename_map: Mapping[str, str] | None = None) -> None:
    """Builds every task's environment here and compares it with the policy."""
    for task in tasks_of(env):
        check_policy_fits(task, policy, rename_map=rename_map)


def check_room(config: EvalConfig, nodes: Sequence[Mapping[str, float]]) -> None:
    """ConfigError when no node (its resources) could ever hold a rollout actor."""
    wanted = {name: amount for name, amount in resources_of(config).items() if amount > 0}
    if not nodes or any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    names = sorted({name for node in nodes for name in node if name in wanted or name in ("CPU", "GPU")})
    largest = ", ".join(f"{max(node.get(name, 0) for node in nodes):g} {name}" for name in names)
    asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    raise ConfigError(
        f"a rollout actor with {asked} fits no node; the largest have {largest or 'nothing'}. "
        "Lower --eval.resources_per_actor."
    )
