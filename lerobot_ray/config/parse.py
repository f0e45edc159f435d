"""The command line of a training run: `lerobot-train`'s flags, laid over a config file, to a `TrainConfig`.

Nothing is fetched here: the caller hands in a function that can.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lerobot_ray.config import schema
from lerobot_ray.config.decode import decode, is_choice, members, type_hints
from lerobot_ray.config.files import read_config_file
from lerobot_ray.config.flags import Flags, is_true, lay_over, read, read_flags
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.presets import given_beyond_preset, resolve_optimizer, resolve_scheduler
from lerobot_ray.config.sources import Fetch, Wanted, checkpoint_of, find_config_file, look_up_policy
from lerobot_ray.config.text import Text
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError, LerobotRayError
from lerobot_ray.core.layout import TRAIN_CONFIG_NAME

logger = logging.getLogger(__name__)

_USUAL_IN_LEROBOT = {("dataset.video_backend", "torchcodec")}
"""Values that LeRobot's files hold without anybody having asked for them."""


@dataclass
class Settings:
    """A run's raw settings: a tree of values, and where each came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    flags: Flags = field(default_factory=dict)
    file: Path | None = None
    file_origin: Origin = field(default_factory=Origin)

    @property
    def is_of_saved_run(self) -> bool:
        """Whether the file was written by a run rather than by hand."""
        return self.file is not None and self.file.name == TRAIN_CONFIG_NAME

    @cached_property
    def origin(self) -> Origin:
        """Names settings in messages. Ask for it when the tree is complete: it suggests names of the kinds in it."""
        known = schema.names(TrainConfig, chosen=chosen_kinds(self.tree))
        return replace(self.file_origin, flags=self.flags, known=known)


def parse_train_config(argv: Sequence[str] | None = None, *, fetch: Fetch | None = None) -> TrainConfig:
    """The run that a command line describes. ConfigError, in one line, when it describes none.

    Flags that have no meaning here are accepted, and said so once in the log. `fetch` is asked for what a flag names
    and this machine does not have.
    """
    settings = gather(sys.argv[1:] if argv is None else argv, fetch=fetch)
    config = build(settings)
    for notice in notices(settings):
        logger.warning("%s", notice)
    return config


def gather(argv: Sequence[str], *, fetch: Fetch | None = None) -> Settings:
    """The raw settings of a command line: the file's, the flags laid over them, `policy.path` looked up."""
    flags = read_flags(argv)
    for path in [path for path in flags if path[-1] == "discover_packages_path"]:
        _import_plugin(path, flags.pop(path))
    config_path = flags.pop(("config_path",), None)
    settings = Settings(flags=flags)
    if config_path is not None:
        is_resumed = str(flags.get(("resume",), False)).lower() == "true"
        what: Wanted = "checkpoint" if is_resumed else "config"
        settings.file = find_config_file(str(config_path), fetch=fetch, what=what)
        settings.tree, settings.file_origin = read_config_file(settings.file)
    if settings.is_of_saved_run:  # how that run was started says nothing about this one
        settings.tree.pop("resume", None)
        settings.tree.pop("checkpoint_path", None)
        if not Path(str(config_path)).exists():  # from the Hub: the folder it was saved in is another machine's
            settings.tree.pop("output_dir", None)
    _set_presets_aside(settings, fetch)
    lay_over(settings.tree, flags)
    if isinstance(policy := read(settings.tree.get("policy")), dict):
        own_flags = {path[1:]: text for path, text in flags.items() if path[0] == "policy" and len(path) > 1}
        settings.tree["policy"] = look_up_policy(policy, own_flags, fetch=fetch)
    _note_checkpoint(settings)
    return settings


def build(settings: Settings) -> TrainConfig:
    """The config that raw settings describe, with the policy's presets filled in."""
    tree, origin = dict(settings.tree), settings.origin
    if isinstance(tree.get("policy"), Mapping):
        policy: PolicyConfig = decode(PolicyConfig, tree["policy"], origin=origin, path=("policy",))  # type: ignore[type-abstract]
        tree["policy"] = policy
        if is_true(tree.get("use_policy_training_preset", True)):
            tree["optimizer"] = resolve_optimizer(policy, read(tree.get("optimizer")), origin=origin)
            if read(tree.get("scheduler", {})) is not None:  # null takes the preset's schedule away
                tree["scheduler"] = resolve_scheduler(policy, read(tree.get("scheduler")), origin=origin)
    config = decode(TrainConfig, tree, origin=origin)
    if is_true(settings.flags.get(("policy", "push_to_hub"))) and config.policy and not config.policy.repo_id:
        raise ConfigError("--policy.push_to_hub=true needs a repository. Add --policy.repo_id=<user>/<name>.")
    return config


def chosen_kinds(tree: Mapping[str, Any], kind: type = TrainConfig) -> dict[str, type]:
    """Section -> the class of the kind that raw settings choose there; kinds that cannot be had are left out."""
    chosen = {}
    for name, hint in type_hints(kind).items():
        choice: Any = next((part for part in members(hint) if is_choice(part)), None)
        section = tree.get(name)
        if choice is None or not isinstance(section, Mapping) or section.get("type") is None:
            continue
        try:
            chosen[name] = choice.get_choice_class(str(section["type"]))
        except (LerobotRayError, KeyError):
            continue
    return chosen


def notices(settings: Settings) -> list[str]:
    """One sentence for each setting that was given and changes nothing here."""
    found = []
    for section in schema.sections(TrainConfig):
        for setting in (setting for setting in section.settings if setting.notice):
            path = tuple(setting.name.split("."))
            value = _value_at(settings.tree, path, setting.default)
            if path in settings.flags:
                found.append(f"--{setting.name} has no effect: {setting.notice}.")
            elif value != setting.default and (setting.name, value) not in _USUAL_IN_LEROBOT:
                found.append(f"{settings.file}: {setting.name} has no effect: {setting.notice}.")
    return found


def _set_presets_aside(settings: Settings, fetch: Fetch | None) -> None:
    """Of a file's optimizer and schedule, keeps what its policy's presets do not explain: that is what was given."""
    tree = settings.tree
    saved = {name: tree[name] for name in ("optimizer", "scheduler") if name in tree}
    if not saved or not is_true(tree.get("use_policy_training_preset", True)):
        return
    if len(saved) == 2 and all(value is None for value in saved.values()):
        del tree["optimizer"], tree["scheduler"]  # written before presets were applied
        return
    try:
        raw = look_up_policy(tree.get("policy") or {}, {}, fetch=fetch)
        policy: PolicyConfig = decode(PolicyConfig, raw)  # type: ignore[type-abstract]
    except LerobotRayError:  # reported when the whole is built, unless a flag mends it
        return
    presets = {"optimizer": policy.get_optimizer_preset(), "scheduler": policy.get_scheduler_preset()}
    for name, value in saved.items():
        given = given_beyond_preset(value, presets[name]) if isinstance(value, Mapping) else value
        if given or (given is None and presets[name] is not None):
            tree[name] = given
        else:
            del tree[name]


def _note_checkpoint(settings: Settings) -> None:
    """Says which checkpoint `resume` continues."""
    resume = str(settings.tree.get("resume", False)).lower()
    if resume == "auto" and read(settings.tree.get("output_dir")) is None:
        raise ConfigError("resume=auto continues what output_dir holds. Add --output_dir=<folder>.")
    if resume != "true":
        return
    if settings.file is None or not settings.is_of_saved_run:
        instead = f"{settings.file} is not in one" if settings.file else "there is no --config_path"
        raise ConfigError(
            f"resume=true continues a checkpoint, but {instead}. Give --config_path=<checkpoint or run folder>, "
            "or use --resume=auto to continue whatever output_dir holds."
        )
    settings.tree["checkpoint_path"] = str(checkpoint_of(settings.file))


def _value_at(tree: Any, path: Sequence[str], default: Any) -> Any:
    for key in path:
        tree = tree.get(key, default) if isinstance(tree, Mapping) else default
    return tree


def _import_plugin(path: tuple[str, ...], module: Text) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"--{'.'.join(path)}={module} cannot be imported: {error}.") from error
