"""Who chooses the values of the next set: a grid, a seeded draw, or one of Ray Tune's searchers by name.

A searcher is told of every set it chose how that went, and everything it is told and asked is in the sweep's journal,
in order: a searcher made anew and told the same again stands where the old one stood.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.sweeps.space import Space, Values, active, has_conditions
from lerobot_ray.sweeps.sweep_file import SweepConfig

logger = logging.getLogger(__name__)


class Searcher(Protocol):
    """Sets of values by number, from 0, each asked for once and in order."""

    size: int | None
    """How many there are; None: as many as one asks for."""

    def suggest(self, number: int) -> dict[str, Any] | None:
        """The values of set `number`; None while others must end first, or when there are no more."""

    def reported(self, number: int, *, step: int, value: float) -> None: ...

    def ended(self, number: int, value: float | None) -> None:
        """The set is done; None: it brought no value."""


def build_searcher(sweep: SweepConfig) -> Searcher:
    """ConfigError when a library is missing or the searcher cannot search such a space."""
    kind = sweep.searcher.type
    if kind == "grid":
        return GridSearcher(sweep.space)
    if kind == "random":
        return RandomSearcher(sweep.space, seed=sweep.searcher.seed)
    return TuneSearcher(sweep)


def rounded(value: Any) -> Any:
    """Six digits: what is written down is what is trained with."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


class GridSearcher:
    """All combinations, the last parameter changing fastest. What follows from another parameter is not multiplied."""

    def __init__(self, space: Space) -> None:
        self._sets = list(_combinations(space))
        self.size: int | None = len(self._sets)

    def suggest(self, number: int) -> dict[str, Any] | None:
        return self._sets[number] if number < len(self._sets) else None

    def reported(self, number: int, *, step: int, value: float) -> None: ...

    def ended(self, number: int, value: float | None) -> None: ...


def _combinations(space: Space) -> Iterator[dict[str, Any]]:
    made: list[dict[str, Any]] = [{}]
    for name, branches in space.items():
        made = [
            {**values, **({name: choice} if found is not None else {})}
            for values in made
            for found in [active(branches, values)]
            for choice in _choices(found, values)
        ]
    return iter(made)


def _choices(found: Values | None, values: Mapping[str, Any]) -> tuple[Any, ...]:
    if found is None:
        return (None,)
    return (values.get(found.same_as),) if found.same_as else found.choices or ()


class RandomSearcher:
    """Draws of Ray Tune's distributions. Set `number` depends on the seed and the number alone."""

    size: int | None = None

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, number: int) -> dict[str, Any] | None:
        import numpy as np

        generator = np.random.default_rng([self._seed, number])
        values: dict[str, Any] = {}
        for name, branches in self._space.items():
            found = active(branches, values)
            if found is not None:
                values[name] = values.get(found.same_as) if found.same_as else draw(found, generator)
        return values

    def reported(self, number: int, *, step: int, value: float) -> None: ...

    def ended(self, number: int, value: float | None) -> None: ...


def draw(values: Values, generator: Any) -> Any:
    """One value, by numpy's generator."""
    if values.choices is not None:
        return values.choices[int(generator.integers(len(values.choices)))]
    drawn = values.to_tune().sample(random_state=generator)
    return int(drawn) if values.is_whole else rounded(float(drawn))


class TuneSearcher:
    """One of `ray.tune.search`. Optuna takes conditions too: it is asked parameter by parameter."""

    size: int | None = None

    def __init__(self, sweep: SweepConfig) -> None:
        kind = sweep.searcher.type
        self._metric = sweep.metric
        if kind != "optuna" and has_conditions(sweep.space):
            raise ConfigError(
                f"searcher {kind} takes no parameters that depend on others. Use optuna, random or grid, or drop them."
            )
        self._inner = _optuna(sweep) if kind == "optuna" else _other(kind, sweep)

    def suggest(self, number: int) -> dict[str, Any] | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            suggested = self._inner.suggest(str(number))
        if not isinstance(suggested, Mapping):
            return None
        return {name: _plain(value) for name, value in suggested.items()}

    def reported(self, number: int, *, step: int, value: float) -> None:
        self._inner.on_trial_result(str(number), {self._metric: value, "training_iteration": step})

    def ended(self, number: int, value: float | None) -> None:
        result = None if value is None else {self._metric: value, "training_iteration": 1}
        self._inner.on_trial_complete(str(number), result, error=value is None)


def _plain(value: Any) -> Any:
    return rounded(value.item() if hasattr(value, "item") else value)


def _optuna(sweep: SweepConfig) -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("searcher optuna needs the library: pip install 'lerobot-ray[sweeps]'.") from error
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def ask(trial: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, branches in sweep.space.items():
            found = active(branches, values)
            if found is None:
                continue
            place = branches.index(next(branch for branch in branches if branch.values is found))
            values[name] = (
                values.get(found.same_as) if found.same_as else _ask(trial, f"{name}#{place}" if place else name, found)
            )
        trial.lerobot_ray_values = values
        return {}

    class Search(OptunaSearch):
        """Gives the values under the parameters' own names, whatever they were asked under."""

        def _suggest_from_define_by_run_func(self, func: Any, ot_trial: Any) -> dict[str, Any]:
            func(ot_trial)
            return ot_trial.lerobot_ray_values

        def suggest(self, trial_id: str) -> Any:  # Tune splits names at slashes here, and ours have none
            if trial_id not in self._ot_trials:
                self._ot_trials[trial_id] = self._ot_study.ask()  # type: ignore[attr-defined]
            return self._suggest_from_define_by_run_func(self._space, self._ot_trials[trial_id])

    return Search(ask, metric=sweep.metric, mode=sweep.mode, seed=sweep.searcher.seed)


def _ask(trial: Any, name: str, values: Values) -> Any:
    if values.choices is not None:
        import json

        texts = [json.dumps(choice) for choice in values.choices]  # Optuna takes plain values only
        return values.choices[texts.index(trial.suggest_categorical(name, texts))]
    if values.kind in ("randn", "qrandn"):
        raise ConfigError(f"searcher optuna has no {values.kind}. Use uniform or loguniform for {name}.")
    low, high = values.numbers[:2]
    if values.is_whole:
        top = int(high) if values.kind.startswith("q") else int(high) - 1
        step = int(values.numbers[2]) if len(values.numbers) > 2 and not values.is_log else 1
        return trial.suggest_int(name, int(low), top, log=values.is_log, step=step)
    grid = values.numbers[2] if len(values.numbers) > 2 and not values.is_log else None
    return rounded(trial.suggest_float(name, low, high, log=values.is_log, step=grid))


def _other(kind: str, sweep: SweepConfig) -> Any:
    from ray.tune.search import create_searcher

    space = {name: branches[0].values.to_tune() for name, branches in sweep.space.items()}
    seeds = {"seed": sweep.searcher.seed, "random_state_seed": sweep.searcher.seed, "random_state": sweep.searcher.seed}
    try:
        made = create_searcher(kind, **seeds)
    except (AssertionError, ImportError) as error:
        raise ConfigError(f"searcher {kind} needs a library that is not here: {error}") from error
    except Exception as error:  # a library of another version than Ray Tune expects
        raise ConfigError(f"searcher {kind} cannot be made: {type(error).__name__}: {error}") from error
    made.set_search_properties(sweep.metric, sweep.mode, space)
    return made
