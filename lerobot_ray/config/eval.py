"""How a policy is evaluated in an environment, during training or by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot_ray.config.marks import OURS
from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class EvalConfig:
    """Rollouts of the policy. They run in actors of their own, while training goes on."""

    n_episodes: int = 50
    """Episodes per evaluation. Results do not depend on how many run at once."""
    batch_size: int = 0
    """Environments played side by side in one actor; 0: two per CPU of the actor."""
    use_async_envs: bool = True
    """Step those environments in processes of their own."""
    recording: bool = False
    """Also write the episodes as a LeRobot dataset."""
    recording_repo_id: str | None = None
    """Push that dataset to this repository."""
    recording_private: bool = False
    """Make that repository private."""
    videos: int = field(default=4, metadata=OURS)
    """Film the first so many episodes of each task."""
    num_actors: int = field(default=1, metadata=OURS)
    """Rollout actors that share the episodes."""
    resources_per_actor: dict[str, float] | None = field(default=None, metadata=OURS)
    """What a rollout actor reserves, e.g. {"CPU": 1, "GPU": 0.25}; null: one CPU."""
    max_in_flight: int = field(default=1, metadata=OURS)
    """Evaluations at once during training; further checkpoints wait in order, none is lost."""

    def __post_init__(self) -> None:
        for name in ("n_episodes", "num_actors", "max_in_flight"):
            if getattr(self, name) < 1:
                raise ConfigError(f"eval.{name}={getattr(self, name)} must be at least 1.")
        if self.batch_size < 0:
            raise ConfigError(f"eval.batch_size={self.batch_size} is negative; 0 means by the number of CPUs.")
        if self.videos < 0:
            raise ConfigError(f"eval.videos={self.videos} is negative; 0 films none.")
        for resource, amount in (self.resources_per_actor or {}).items():
            if amount < 0:
                raise ConfigError(f"eval.resources_per_actor asks for {amount:g} {resource}.")
        if self.recording_repo_id and not self.recording:
            raise ConfigError("eval.recording_repo_id is set, but nothing is recorded. Add --eval.recording=true.")
