"""From an environment's config to the environment: what is needed is imported here, and missed here.

A config class names its builder in the class variable `builder`, an import path `module:function`. Other packages bring
environments the same way: a subclass of `EnvConfig`, found through an entry point in the group `lerobot_ray.envs`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

import gymnasium

from lerobot_ray.config.env import AlohaEnvConfig, EnvConfig, GymEnvConfig, PushtEnvConfig, ReachEnvConfig
from lerobot_ray.core.errors import EnvError, nearest

OBS_TYPES = ("pixels_agent_pos", "environment_state_agent_pos")


def tasks_of(config: EnvConfig) -> list[EnvConfig]:
    """One config per task: `task` may name several, with commas between them."""
    names = [name.strip() for name in (config.task or "").split(",") if name.strip()]
    if len(set(names)) != len(names):
        raise EnvError(f"env.task={config.task} names a task twice.")
    return [dataclasses.replace(config, task=name) for name in names] or [config]


def build_env(config: EnvConfig) -> gymnasium.Env:
    """The environment, not vectorised. EnvError says what to install, or which id or argument is wrong."""
    if "," in (config.task or ""):
        raise EnvError(f"env.task={config.task} are several tasks; build one at a time (tasks_of).")
    if not config.builder:
        raise EnvError(
            f"{name_of(config)} does not say how it is built. Set the class variable `builder` of "
            f"{type(config).__qualname__} to the import path 'module:function' of (config) -> gymnasium.Env."
        )
    module_name, _, name = config.builder.partition(":")
    try:
        builder = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise EnvError(f"{name_of(config)} is built by {config.builder}, which is not there: {error}.") from error
    env = builder(config)
    if step_limit(env) is None:
        env.close()
        raise EnvError(
            f"{name_of(config)} may go on for ever: it was registered without a limit of steps. Set env.episode_length."
        )
    return env


def name_of(config: EnvConfig) -> str:
    """The environment in a message: `environment pusht (PushT-v0)`."""
    try:
        kind = config.type
    except ValueError:  # its class came here in a pickle, and nothing has registered it in this process
        kind = type(config).__name__
    return f"environment {kind}" + (f" ({config.task})" if config.task not in (None, kind) else "")


def step_limit(env: gymnasium.Env) -> int | None:
    """Steps after which every episode is over, None when nothing says so."""
    for name in ("_max_episode_steps", "max_episode_steps"):  # TimeLimit's, and what environments call their own
        limit = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
        if isinstance(limit, int) and limit > 0:
            return limit
    return env.spec.max_episode_steps if env.spec is not None else None


def build_reach(config: ReachEnvConfig) -> gymnasium.Env:
    from lerobot_ray.envs.reach import ReachEnv

    if config.task != "reach":
        raise EnvError(f"env.type=reach has no task {config.task}; its only one is reach. Leave env.task out.")
    _check_obs_type(config, OBS_TYPES)
    return ReachEnv(
        image_hw=(config.observation_height, config.observation_width),
        max_episode_steps=config.episode_length,
        obs_type=config.obs_type,
    )


def build_pusht(config: PushtEnvConfig) -> gymnasium.Env:
    _check_obs_type(config, OBS_TYPES)
    _import("gym_pusht", extra="pusht", config=config)
    return _make(
        f"gym_pusht/{config.task}",
        config,
        max_episode_steps=config.episode_length,
        obs_type=config.obs_type,
        render_mode=config.render_mode,
        observation_width=config.observation_width,
        observation_height=config.observation_height,
        visualization_width=config.visualization_width,
        visualization_height=config.visualization_height,
    )


def build_aloha(config: AlohaEnvConfig) -> gymnasium.Env:
    _check_obs_type(config, ("pixels_agent_pos", "pixels"))
    _import("gym_aloha", extra="aloha", config=config)
    return _make(
        f"gym_aloha/{config.task}",
        config,
        max_episode_steps=config.episode_length,
        obs_type=config.obs_type,
        render_mode=config.render_mode,
        observation_width=config.observation_width,
        observation_height=config.observation_height,
    )


def build_registered(config: GymEnvConfig) -> gymnasium.Env:
    """Anything that has been registered with gymnasium."""
    if not config.task:
        raise EnvError("env.type=gym needs the environment's id: --env.task=package:Id-v0.")
    package = config.task.partition(":")[0] if ":" in config.task else None
    if package is not None:
        _import(package, extra=None, config=config)
    if config.episode_length is None:
        return _make(config.task, config, **config.kwargs)
    return _make(config.task, config, max_episode_steps=config.episode_length, **config.kwargs)


def _check_obs_type(config: Any, known: tuple[str, ...]) -> None:
    if config.obs_type not in known:
        raise EnvError(f"env.obs_type={config.obs_type} is not one that {config.type} has: {', '.join(known)}.")


def _import(module: str, *, extra: str | None, config: EnvConfig) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        how = f"pip install 'lerobot-ray[{extra}]'" if extra else f"install the package that has the module {module}"
        raise EnvError(f"{name_of(config)} needs {module}, which cannot be imported ({error}): {how}.") from error


def _make(env_id: str, config: EnvConfig, **kwargs: Any) -> gymnasium.Env:
    """`gymnasium.make`, with our words for what can be wrong."""
    bare = env_id.partition(":")[2] or env_id
    try:
        spec = gymnasium.spec(bare)
    except gymnasium.error.Error as error:
        near = nearest(bare, gymnasium.registry)
        hint = f"Did you mean {near}? " if near else ""
        raise EnvError(
            f"gymnasium knows no environment {bare} ({error}). {hint}If a package registers it when it is imported, "
            f"name that too: --env.task=package:{bare}."
        ) from error
    try:
        return gymnasium.make(spec, disable_env_checker=config.disable_env_checker, **_accepted(spec, kwargs, config))
    except (TypeError, gymnasium.error.Error) as error:
        raise EnvError(f"{name_of(config)} cannot be built with {kwargs}: {error}") from error


def _accepted(spec: Any, kwargs: dict[str, Any], config: EnvConfig) -> dict[str, Any]:
    """For environments that can be drawn: render mode rgb_array unless another was asked for."""
    if not isinstance(config, GymEnvConfig) or "render_mode" in {**spec.kwargs, **kwargs}:
        return kwargs
    creator = (
        gymnasium.envs.registration.load_env_creator(spec.entry_point)
        if isinstance(spec.entry_point, str)
        else spec.entry_point
    )
    modes = (getattr(creator, "metadata", None) or {}).get("render_modes", ())
    try:
        takes_mode = "render_mode" in inspect.signature(creator).parameters
    except (TypeError, ValueError):
        takes_mode = False
    return {"render_mode": "rgb_array", **kwargs} if "rgb_array" in modes and takes_mode else kwargs
