"""What every policy's configuration has in common: LeRobot's fields, in the order LeRobot writes them.

A policy adds its own fields in a subclass registered under its type. The classes live in `policies/`, one import path
each in the table below; this module never imports them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lerobot_ray.config.choice import LazyChoice
from lerobot_ray.config.optim import OptimizerConfig, SchedulerConfig
from lerobot_ray.core.types import ACTION, OBS_STATE, FeatureType, PolicyFeature

NATIVE = {
    "act": "lerobot_ray.policies.act.config:ACTConfig",
    "diffusion": "lerobot_ray.policies.diffusion.config:DiffusionConfig",
}
"""Policy type -> import path of its config class."""

_LEROBOT = "lerobot, which brings it: pip install 'lerobot-ray[lerobot]'"
IN_LEROBOT: dict[str, str] = dict.fromkeys(
    [
        *("eo1", "evo1", "fastwam", "gaussian_actor", "groot", "lingbot_va", "molmoact2", "multi_task_dit", "pi0"),
        *("pi0_fast", "pi05", "smolvla", "tdmpc", "vla_jepa", "vqbet", "wall_x", "xvla"),
    ],
    _LEROBOT,
)
"""Policy types that LeRobot 0.6.1 registers and this package trains through it."""


@dataclass
class PolicyConfig(LazyChoice, ABC):
    """One policy: what goes in and out, where it came from, where it goes, and the options of its type.

    Mutable, because policies and plugins fill in features and derived sizes after construction. Subclasses add fields
    with defaults, register with `@PolicyConfig.register_subclass("name")`, and define the abstract members.
    """

    section: ClassVar[str] = "policy"
    builtin: ClassVar[Mapping[str, str]] = NATIVE
    elsewhere: ClassVar[Mapping[str, str]] = IN_LEROBOT
    entry_point_group: ClassVar[str] = "lerobot_ray.policies"
    plugin_prefix: ClassVar[str] = "lerobot_policy_"
    bridge: ClassVar[str] = "lerobot_ray.policies.lerobot_bridge:find_config_class"
    _choice_registry: ClassVar[dict[str, Any]] = {}

    n_obs_steps: int = 1
    """Observation steps the policy looks at, the current one included."""
    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    """What the policy reads, by dataset key; empty: taken from the dataset."""
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    """What the policy predicts; always taken from the dataset when training."""
    device: str | None = None
    """Where it runs: cpu, cuda, mps; null: the best there is."""
    use_amp: bool = False
    """Train under autocast in the device's usual half precision; `accelerator.mixed_precision` says which one."""
    use_peft: bool = False
    """The folder at `pretrained_path` holds an adapter, not a whole model."""
    push_to_hub: bool = True
    """Publish the trained policy as `repo_id` when training ends. Nothing is pushed without a `repo_id`."""
    repo_id: str | None = None
    """Model repository on the Hub, `user/name`."""
    private: bool | None = None
    """Whether a repository created for this run is private; null: the account's default."""
    tags: list[str] | None = None
    """Extra tags for the model card."""
    license: str | None = None
    """License named on the model card; null: apache-2.0."""
    pretrained_path: str | None = None
    """Folder or repository the weights start from; null: fresh weights. `policy.path` sets it."""
    pretrained_revision: str | None = None
    """Branch, tag or commit of `pretrained_path` on the Hub; a training step's tag finds that checkpoint."""

    @property
    def type(self) -> str:
        """The name this policy is registered under."""
        return self.get_choice_name(type(self))

    @property
    def robot_state_feature(self) -> PolicyFeature | None:
        """The input named exactly `observation.state`."""
        feature = (self.input_features or {}).get(OBS_STATE)
        return feature if feature is not None and feature.type is FeatureType.STATE else None

    @property
    def env_state_feature(self) -> PolicyFeature | None:
        """The first input of type ENV."""
        return next((f for f in (self.input_features or {}).values() if f.type is FeatureType.ENV), None)

    @property
    def image_features(self) -> dict[str, PolicyFeature]:
        """The cameras among the inputs, in order."""
        return {key: f for key, f in (self.input_features or {}).items() if f.type is FeatureType.VISUAL}

    @property
    def action_feature(self) -> PolicyFeature | None:
        """The output named exactly `action`."""
        feature = (self.output_features or {}).get(ACTION)
        return feature if feature is not None and feature.type is FeatureType.ACTION else None

    @property
    @abstractmethod
    def observation_delta_indices(self) -> list[int] | None:
        """Frames around the anchor that each observation key spans; None: the anchor alone, without a time axis."""

    @property
    @abstractmethod
    def action_delta_indices(self) -> list[int] | None:
        """Frames around the anchor that each action key spans."""

    @property
    @abstractmethod
    def reward_delta_indices(self) -> list[int] | None:
        """Frames around the anchor that `next.reward` spans."""

    @abstractmethod
    def get_optimizer_preset(self) -> OptimizerConfig:
        """The optimizer this policy is known to train well with."""

    @abstractmethod
    def get_scheduler_preset(self) -> SchedulerConfig | None:
        """The learning-rate schedule that goes with it; None: constant."""

    @abstractmethod
    def validate_features(self) -> None:
        """Raises PolicyError when the features are not ones this policy can use. Called once they are filled in."""
