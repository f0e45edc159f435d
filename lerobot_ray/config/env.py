"""Environments a policy can be evaluated in, by name, and what varies in each. `envs/` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lerobot_ray.config.choice import LazyChoice
from lerobot_ray.core.types import FeatureType, PolicyFeature

IN_LEROBOT = (
    *("aloha", "pusht", "gym_manipulator", "libero", "libero_plus", "metaworld", "robocasa", "vlabench"),
    *("isaaclab_arena", "robotwin", "robomme"),
)
"""Environment types that LeRobot 0.6.1 knows; the others stay out of files it reads."""

ELSEWHERE: dict[str, str] = dict.fromkeys(
    (name for name in IN_LEROBOT if name not in ("aloha", "pusht")),
    "an adapter that is not part of this package. If it is registered with gymnasium, use env.type=gym with its id as "
    "env.task; to train without rollouts, use --env=null",
)
"""Environment types that are known by name but not driven here -> what to do."""


@dataclass(frozen=True)
class EnvConfig(LazyChoice):
    """An environment. Its observations are renamed to dataset keys by `features_map`."""

    section: ClassVar[str] = "env"
    elsewhere: ClassVar[Mapping[str, str]] = ELSEWHERE
    entry_point_group: ClassVar[str] = "lerobot_ray.envs"
    _choice_registry: ClassVar[dict[str, Any]] = {}
    builder: ClassVar[str] = ""
    """Import path `module:function` of what builds the environment: (this config) -> gymnasium.Env."""

    task: str | None = None
    """Which task, or the gymnasium id; several with commas between them."""
    fps: int = 30
    """Steps per second of simulated time; the frame rate of videos."""
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    """What the environment gives and takes, by its own keys."""
    features_map: dict[str, str] = field(default_factory=dict)
    """Environment key -> dataset key, e.g. {"agent_pos": "observation.state"}."""
    max_parallel_tasks: int = 1
    """Tasks of a suite played at once."""
    disable_env_checker: bool = True
    """Leave out gymnasium's own checks of the environment."""

    @property
    def type(self) -> str:
        """The name this environment is registered under."""
        return self.get_choice_name(type(self))

    def get_env_processors(self) -> tuple[Any, Any] | None:
        """What observations pass before the policy's preprocessor (a batch in, a batch out), and actions after its
        postprocessor (a tensor in, a tensor out); None: nothing. LeRobot's name for the hook."""
        return None


def for_lerobot(env: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The environment as LeRobot's file may name it: null where LeRobot does not know it."""
    return env if env is not None and env.get("type") in IN_LEROBOT else None


def _action(size: int) -> PolicyFeature:
    return PolicyFeature(FeatureType.ACTION, (size,))


def _state(size: int) -> PolicyFeature:
    return PolicyFeature(FeatureType.STATE, (size,))


def _add_features(env: EnvConfig, features: Mapping[str, PolicyFeature]) -> None:
    """Adds what follows from other fields, as LeRobot does when it builds the same config."""
    object.__setattr__(env, "features", {**env.features, **features})


@EnvConfig.register_subclass("reach")
@dataclass(frozen=True)
class ReachEnvConfig(EnvConfig):
    """Built in: a planar arm with a camera touches a coloured target. Needs nothing to be installed."""

    builder: ClassVar[str] = "lerobot_ray.envs.make:build_reach"

    task: str | None = "reach"
    fps: int = 10
    features: dict[str, PolicyFeature] = field(default_factory=lambda: {"action": _action(2), "agent_pos": _state(2)})
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "pixels": "observation.images.top",
            "environment_state": "observation.environment_state",
        }
    )
    episode_length: int = 60
    """Steps after which an episode ends without success."""
    obs_type: str = "pixels_agent_pos"
    """pixels_agent_pos, or environment_state_agent_pos: the target's place in numbers, no camera."""
    observation_height: int = 96
    """Rows of the camera."""
    observation_width: int = 96
    """Columns of the camera."""

    def __post_init__(self) -> None:
        shape = (self.observation_height, self.observation_width, 3)
        if self.obs_type == "pixels_agent_pos":
            _add_features(self, {"pixels": PolicyFeature(FeatureType.VISUAL, shape)})
        elif self.obs_type == "environment_state_agent_pos":
            _add_features(self, {"environment_state": PolicyFeature(FeatureType.ENV, (2,))})


@EnvConfig.register_subclass("gym")
@dataclass(frozen=True)
class GymEnvConfig(EnvConfig):
    """Any environment registered with gymnasium: its id as `task` (`package:Id-v0` imports the package first)."""

    builder: ClassVar[str] = "lerobot_ray.envs.make:build_registered"

    episode_length: int | None = None
    """Steps after which an episode ends; null: what the environment was registered with."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of `gymnasium.make`."""


@EnvConfig.register_subclass("pusht")
@dataclass(frozen=True)
class PushtEnvConfig(EnvConfig):
    """PushT, from the package gym-pusht."""

    builder: ClassVar[str] = "lerobot_ray.envs.make:build_pusht"

    task: str | None = "PushT-v0"
    fps: int = 10
    features: dict[str, PolicyFeature] = field(default_factory=lambda: {"action": _action(2), "agent_pos": _state(2)})
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "environment_state": "observation.environment_state",
            "pixels": "observation.image",
        }
    )
    episode_length: int = 300
    """Steps after which an episode ends without success."""
    obs_type: str = "pixels_agent_pos"
    """pixels_agent_pos or environment_state_agent_pos."""
    render_mode: str = "rgb_array"
    """gymnasium's render mode."""
    visualization_width: int = 384
    """Columns of a video."""
    visualization_height: int = 384
    """Rows of a video."""
    observation_height: int = 384
    """Rows of the camera."""
    observation_width: int = 384
    """Columns of the camera."""

    def __post_init__(self) -> None:
        shape = (self.observation_height, self.observation_width, 3)
        if self.obs_type == "pixels_agent_pos":
            _add_features(self, {"pixels": PolicyFeature(FeatureType.VISUAL, shape)})
        elif self.obs_type == "environment_state_agent_pos":
            _add_features(self, {"environment_state": PolicyFeature(FeatureType.ENV, (16,))})


@EnvConfig.register_subclass("aloha")
@dataclass(frozen=True)
class AlohaEnvConfig(EnvConfig):
    """Two simulated ALOHA arms, from the package gym-aloha."""

    builder: ClassVar[str] = "lerobot_ray.envs.make:build_aloha"

    task: str | None = "AlohaInsertion-v0"
    fps: int = 50
    features: dict[str, PolicyFeature] = field(default_factory=lambda: {"action": _action(14)})
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "top": "observation.image.top",
            "pixels/top": "observation.images.top",
        }
    )
    episode_length: int = 400
    """Steps after which an episode ends without success."""
    obs_type: str = "pixels_agent_pos"
    """pixels_agent_pos or pixels."""
    observation_height: int = 480
    """Rows of the camera."""
    observation_width: int = 640
    """Columns of the camera."""
    render_mode: str = "rgb_array"
    """gymnasium's render mode."""

    def __post_init__(self) -> None:
        shape = (self.observation_height, self.observation_width, 3)
        if self.obs_type == "pixels":
            _add_features(self, {"top": PolicyFeature(FeatureType.VISUAL, shape)})
        elif self.obs_type == "pixels_agent_pos":
            _add_features(self, {"agent_pos": _state(14), "pixels/top": PolicyFeature(FeatureType.VISUAL, shape)})
