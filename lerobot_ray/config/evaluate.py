"""An evaluation on its own, `python -m lerobot_ray.evaluate`: `lerobot-eval`'s flags, and a list of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lerobot_ray.config import schema
from lerobot_ray.config.decode import decode
from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.config.files import read_config_file
from lerobot_ray.config.flags import Flags, lay_over, read, read_flags
from lerobot_ray.config.marks import OURS, unused
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.parse import chosen_kinds
from lerobot_ray.config.ray import RayConfig
from lerobot_ray.config.sources import find_config_file
from lerobot_ray.core.errors import ConfigError, LerobotRayError

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class EvaluateConfig:
    """Policies played in an environment."""

    env: EnvConfig
    """The environment; left out: the one that the policy's training run names."""
    output_dir: Path | None = None
    """Where results go; null: outputs/eval/<date>/<time>_<job_name>."""
    job_name: str | None = None
    """Name of the evaluation; null: the environment's type."""
    seed: int | None = 1000
    """Episode n is played with this seed plus n, whichever actor plays it; null counts as 0."""
    rename_map: dict[str, str] = field(default_factory=dict)
    """Environment's key -> policy's key, to fit a policy to other camera names."""
    trust_remote_code: bool = field(
        default=False, metadata=unused("environments come from installed packages, never as code from the Hub")
    )
    """Part of LeRobot's."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    actors: int | None = field(default=None, metadata=OURS)
    """Short for `eval.num_actors`."""
    ray: RayConfig = field(default_factory=RayConfig, metadata=OURS)

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ConfigError(f"actors={self.actors} must be at least 1.")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed={self.seed} is negative.")

    @property
    def num_actors(self) -> int:
        return self.actors or self.eval.num_actors


@dataclass(frozen=True)
class EvaluateCommand:
    """What a command line of `evaluate` says."""

    config: EvaluateConfig
    paths: tuple[str, ...]
    """Policies: folders, checkpoints, whole runs, repositories of the Hub."""
    policy_flags: Flags = field(default_factory=dict)
    """Settings of the policies that the command line replaces, named without their section."""


def parse_evaluate(argv: Sequence[str]) -> EvaluateCommand:
    """The evaluation that a command line describes. ConfigError, in one line, when it describes none."""
    flags = read_flags(argv)
    policy_flags = {path[1:]: flags.pop(path) for path in [path for path in flags if path[0] == "policy"]}
    paths = _paths(policy_flags.pop(("path",), None))
    config_path = flags.pop(("config_path",), None)
    tree: dict[str, Any] = {}
    file_origin = Origin()
    if config_path is not None:
        file = find_config_file(str(config_path))
        tree, file_origin = read_config_file(file)
        known = {*EvaluateConfig.__dataclass_fields__}
        tree = {name: value for name, value in tree.items() if name in known - {"output_dir", "job_name"}}
    if "env" not in tree or tree["env"] is None:
        tree["env"] = _env_of_training(paths[0]) or {}
    lay_over(tree, flags)
    if not tree["env"]:
        raise ConfigError("no environment. Give --env.type=reach (or another type).")
    known_names = [*schema.names(EvaluateConfig, chosen=chosen_kinds(tree, EvaluateConfig)), "policy.path"]
    config = decode(EvaluateConfig, tree, origin=replace(file_origin, flags=flags, known=known_names))
    return EvaluateCommand(config, paths, policy_flags)


def default_eval_dir(config: EvaluateConfig, now: datetime) -> Path:
    """Where results go when nobody says: LeRobot's place."""
    return Path("outputs/eval") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{config.job_name or config.env.type}"


def _paths(given: Any) -> tuple[str, ...]:
    value = read(given)
    if not value:
        raise ConfigError(
            "no policy. Give --policy.path=<policy folder, checkpoint, run folder or repository>, or a list of them."
        )
    return tuple(str(path) for path in value) if isinstance(value, list) else (str(value),)


def _env_of_training(path: str) -> Mapping[str, Any] | None:
    """The environment in the `train_config.json` of a policy that is on this machine."""
    if not Path(path).exists():
        return None
    try:
        values, _ = read_config_file(find_config_file(path))
    except LerobotRayError:
        return None
    return values.get("env")
