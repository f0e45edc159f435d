"""A sweep as a file of about ten lines: what is tried, how it is judged, how it is searched, when trials end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lerobot_ray.config.decode import decode
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.text import read_yaml
from lerobot_ray.core.errors import ConfigError, nearest
from lerobot_ray.sweeps.space import Space, read_space

SCHEDULERS = ("none", "asha", "median", "pbt")
OWN_SEARCHERS = ("grid", "random", "optuna")


@dataclass(frozen=True, kw_only=True)
class SearcherConfig:
    """Who chooses the values of the next trial."""

    type: str = "random"
    """grid, random, optuna, or another that Ray Tune has: hyperopt, bohb, zoopt, nevergrad, bayesopt, ax, hebo."""
    seed: int = 0
    """Of what it draws."""


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Who ends trials before their time, or makes them continue others. Steps are optimizer steps."""

    type: Literal["none", "asha", "median", "pbt"] = "none"
    grace_steps: int | None = None
    """asha, median: no trial is stopped before. Null: a tenth of its steps."""
    reduction_factor: float = 3.0
    """asha: of the trials that reach a rung, one in so many goes on."""
    min_trials: int = 3
    """median: so many other trials must have come as far."""
    interval: int | None = None
    """pbt: steps between two looks at the population. Null: a tenth of its steps."""
    quantile: float = 0.25
    """pbt: the share that gives up, and the share it may continue from."""
    resample: float = 0.25
    """pbt: how often a value is drawn anew in place of being nudged by a fifth."""

    def __post_init__(self) -> None:
        for name in ("grace_steps", "interval", "min_trials"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"scheduler.{name}={value} must be at least 1.")
        if self.reduction_factor <= 1:
            raise ConfigError(f"scheduler.reduction_factor={self.reduction_factor:g} must be more than 1.")
        if not 0 < self.quantile <= 0.5:
            raise ConfigError(f"scheduler.quantile={self.quantile:g} must be more than 0 and at most 0.5.")
        if not 0 <= self.resample <= 1:
            raise ConfigError(f"scheduler.resample={self.resample:g} must be between 0 and 1.")


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """Further ends. A trial that meets one ends with a checkpoint."""

    steps: int | None = None
    """Each trial, although its schedule is that of all its `steps`."""
    minutes: float | None = None
    """The whole sweep: running trials are stopped, no others begin."""
    trial_minutes: float | None = None
    """Each trial."""
    value: float | None = None
    """A trial whose metric is this good has done enough."""
    patience: int | None = None
    """A trial whose metric has not got better for so many reports."""

    def __post_init__(self) -> None:
        for name in ("steps", "minutes", "trial_minutes", "patience"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"stop.{name}={value:g} must be more than 0.")


@dataclass(frozen=True, kw_only=True)
class TrialResources:
    """What one trial holds; null: as the training flags say."""

    workers: int | None = None
    """Training processes (--ray.num_workers)."""
    decoders: int | None = None
    """Decode actors of each, one CPU apiece (--num_workers)."""
    per_worker: dict[str, float] | None = None
    """Of each training process, e.g. {"CPU": 1, "GPU": 0.5} (--ray.resources_per_worker)."""

    def __post_init__(self) -> None:
        for name in ("workers", "decoders"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"resources_per_trial.{name}={value} must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """One sweep, apart from the training flags that all its trials share."""

    metric: str
    """eval/loss, train/loss, eval/pc_success, …: a name of metrics.jsonl."""
    mode: Literal["min", "max"]
    num_trials: int | None = None
    """How many sets of values are tried; of a grid, all when nothing is said."""
    max_concurrent: int | None = None
    """Trials at once; null: as many as fit."""
    score: Literal["last", "best"] = "last"
    """Which report of a trial counts when trials are compared."""
    searcher: SearcherConfig = field(default_factory=SearcherConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    resources_per_trial: TrialResources = field(default_factory=TrialResources)
    parameters: Any = None

    def __post_init__(self) -> None:
        if self.num_trials is not None and self.num_trials < 1:
            raise ConfigError(f"num_trials={self.num_trials}: a sweep needs at least one trial.")
        if self.num_trials is None and self.searcher.type != "grid":
            raise ConfigError(f"num_trials is missing: searcher {self.searcher.type} would go on for ever.")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ConfigError(f"max_concurrent={self.max_concurrent} must be at least 1, or left out.")

    @property
    def space(self) -> Space:
        return self.parameters

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that less is better."""
        return 1.0 if self.mode == "min" else -1.0


def load_sweep(path: Path, overrides: Mapping[str, Any] | None = None) -> SweepConfig:
    """The sweep of a file; `overrides` replaces top-level keys. ConfigError says which key, and what was expected."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--sweep={path} cannot be read: {error}.") from error
    raw = read_yaml(text, name=str(path))
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path} is no sweep: expected metric, mode, parameters and so on, one a line.")
    return read_sweep({**raw, **(overrides or {})}, file=str(path))


def read_sweep(raw: Mapping[str, Any], *, file: str) -> SweepConfig:
    values = dict(raw)
    for name in ("metric", "mode"):
        if name not in values:
            example = "eval/loss" if name == "metric" else "min or max"
            raise ConfigError(f"{file}: {name} is missing, for example {name}: {example}.")
    if values["mode"] not in ("min", "max"):
        raise ConfigError(f"{file}: mode={values['mode']}: expected min or max.")
    for name, known in (("searcher", searcher_names()), ("scheduler", SCHEDULERS)):
        values[name] = _named(values.get(name), name, known, file)
    space = read_space(values.pop("parameters", None), file=file)
    config = decode(SweepConfig, {**values, "parameters": None}, origin=Origin(file=file))
    return replace(config, parameters=space)


def searcher_names() -> tuple[str, ...]:
    """Ours, and those Ray Tune has by name."""
    return (*OWN_SEARCHERS, "hyperopt", "bohb", "zoopt", "nevergrad", "bayesopt", "ax", "hebo")


def _named(given: Any, what: str, known: tuple[str, ...], file: str) -> dict[str, Any]:
    """`asha`, or a mapping with `type` and settings."""
    if given is None:
        return {}
    settings = dict(given) if isinstance(given, Mapping) else {"type": given}
    name = settings.setdefault("type", known[0])
    if name not in known:
        near = nearest(str(name), known)
        hint = f"Did you mean {near}?" if near else f"Known: {', '.join(known)}."
        raise ConfigError(f"{file}: there is no {what} {name}. {hint}")
    return settings
