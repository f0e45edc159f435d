"""What may be tried for one parameter: distributions and lists as text in a sweep file, and parameters with conditions.

    optimizer.lr: loguniform(1e-5, 1e-3)
    batch_size: [8, 16, 32]
    policy.n_action_steps: same_as(policy.chunk_size)
    optimizer.momentum:
      - when: {optimizer.type: sgd}
        values: uniform(0.5, 0.99)

The names are Ray Tune's and mean what they mean there: the upper end of `randint` and `lograndint` is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lerobot_ray.core.errors import ConfigError, nearest

_CALL = re.compile(r"\s*([a-z_]+)\s*\((.*)\)\s*", re.DOTALL)
_SIZES = {
    "uniform": (2,),
    "quniform": (3,),
    "loguniform": (2,),
    "qloguniform": (3,),
    "randint": (2,),
    "qrandint": (3,),
    "lograndint": (2,),
    "qlograndint": (3,),
    "randn": (2,),
    "qrandn": (3,),
}
"""Tune's distributions -> how many numbers they take."""
LISTS = ("linspace", "logspace")
_WHOLE = ("randint", "qrandint", "lograndint", "qlograndint")
KNOWN = (*_SIZES, *LISTS, "choice", "same_as")


@dataclass(frozen=True)
class Values:
    """What may be tried: a list, or a distribution over an interval."""

    text: str
    """As written."""
    choices: tuple[Any, ...] | None = None
    kind: str = ""
    """Of a distribution: Tune's name for it."""
    numbers: tuple[float, ...] = ()
    same_as: str = ""
    """Takes the value of this other parameter."""

    @property
    def is_log(self) -> bool:
        return "log" in self.kind

    @property
    def is_whole(self) -> bool:
        return self.kind in _WHOLE

    def samples(self) -> list[Any]:
        """Values that stand for all: each of a list; the ends of an interval and one that is no round number."""
        if self.choices is not None:
            return list(self.choices)
        if self.kind in ("randn", "qrandn"):
            mean, deviation = self.numbers[:2]
            return [mean, mean + 0.987 * deviation]
        low, high = self.numbers[:2]
        if self.is_whole:
            return [int(low), int(high) - (0 if self.kind.startswith("q") else 1)]
        step = self.numbers[2] if len(self.numbers) > 2 else (high - low) * 0.37123
        return [low, low + step, high]

    def to_tune(self) -> Any:
        """The same as an object of Ray Tune's."""
        from ray import tune

        if self.choices is not None:
            return tune.choice(list(self.choices))
        numbers: list[Any] = [int(number) for number in self.numbers] if self.is_whole else list(self.numbers)
        return getattr(tune, self.kind)(*numbers)


@dataclass(frozen=True)
class Branch:
    """Values, and the values of other parameters under which they count."""

    values: Values
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def holds(self, others: Mapping[str, Any]) -> bool:
        return all(others.get(name) in wanted for name, wanted in self.when.items())


Space = Mapping[str, tuple[Branch, ...]]
"""Parameter -> its branches; the first that holds counts, and where none does the parameter is left alone."""


def active(branches: tuple[Branch, ...], others: Mapping[str, Any]) -> Values | None:
    """What may be tried for a parameter, given the values of those before it."""
    return next((branch.values for branch in branches if branch.holds(others)), None)


def has_conditions(space: Space) -> bool:
    return any(branch.when or branch.values.same_as for branches in space.values() for branch in branches)


def read_space(raw: Any, *, file: str) -> dict[str, tuple[Branch, ...]]:
    """The parameters of a sweep file. ConfigError names the parameter and says what was expected."""
    if not isinstance(raw, Mapping) or not raw:
        raise ConfigError(
            f"{file}: parameters is missing or empty. Name what to sweep by its flag, for example "
            "optimizer.lr: loguniform(1e-5, 1e-3)."
        )
    space: dict[str, tuple[Branch, ...]] = {}
    for given, value in raw.items():
        name = str(given).removeprefix("--")
        where = f"{file}: parameters.{name}"
        branches = _branches(value, where)
        for branch in branches:
            for other in (*branch.when, *([branch.values.same_as] if branch.values.same_as else [])):
                if other not in space:
                    near = nearest(other, space)
                    hint = f" Did you mean {near}?" if near else ""
                    raise ConfigError(f"{where} depends on {other}, which is no parameter above it.{hint}")
            _check_condition(branch, space, where)
        space[name] = branches
    return space


def _check_condition(branch: Branch, space: Space, where: str) -> None:
    for other, wanted in branch.when.items():
        possible = [choice for one in space[other] for choice in (one.values.choices or ())]
        never = [value for value in wanted if possible and value not in possible]
        if never:
            raise ConfigError(f"{where}: {other} is never {never[0]!r}; it is one of {possible}.")


def _branches(value: Any, where: str) -> tuple[Branch, ...]:
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "values" in item for item in value):
        return tuple(_branch(item, where) for item in value)
    return (Branch(read_values(value, where=where)),)


def _branch(item: Mapping[str, Any], where: str) -> Branch:
    if unknown := sorted(set(item) - {"when", "values"}):
        raise ConfigError(f"{where}: {unknown[0]!r} is not known here. A branch has `when` and `values`.")
    when = item.get("when") or {}
    if not isinstance(when, Mapping):
        raise ConfigError(f"{where}: when must name parameters and their values, such as {{optimizer.type: sgd}}.")
    wanted = {str(name): tuple(value) if isinstance(value, list) else (value,) for name, value in when.items()}
    return Branch(read_values(item["values"], where=where), wanted)


def read_values(value: Any, *, where: str) -> Values:
    """A list, a distribution as text, or a single value, which is then the same in all trials."""
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"{where} is an empty list: there is nothing to try.")
        return Values(str(value), choices=tuple(value))
    match = _CALL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and value.split("(")[0].strip() in KNOWN:
            raise ConfigError(f"{where}={value} is not finished. Write it as {value.split('(')[0].strip()}(…).")
        return Values(str(value), choices=(value,))
    name, inside = match.groups()
    if name == "same_as":
        return Values(value, same_as=inside.strip().removeprefix("--"))
    if name == "choice":
        from lerobot_ray.config.text import read_yaml

        return read_values(
            read_yaml(inside if inside.strip().startswith("[") else f"[{inside}]", name=where), where=where
        )
    return _distribution(name, inside, value, where)


def _distribution(name: str, inside: str, text: str, where: str) -> Values:
    if name not in (*_SIZES, *LISTS):
        near = nearest(name, KNOWN)
        raise ConfigError(
            f"{where}={text}: there is no distribution {name}. "
            + (f"Did you mean {near}?" if near else f"Known: {', '.join(KNOWN)}.")
        )
    try:
        numbers = tuple(float(part) for part in inside.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{where}={text}: {name} takes numbers.") from None
    wanted = (3,) if name in LISTS else _SIZES[name]
    if len(numbers) not in wanted:
        raise ConfigError(f"{where}={text}: {name} takes {wanted[0]} numbers, got {len(numbers)}.")
    if name in ("randn", "qrandn"):
        if numbers[1] <= 0:
            raise ConfigError(f"{where}={text}: the standard deviation must be more than 0.")
        return Values(text, kind=name, numbers=numbers)
    low, high = numbers[:2]
    if low >= high:
        raise ConfigError(f"{where}={text}: the lower end must be below the upper one.")
    if "log" in name and low <= 0:
        raise ConfigError(f"{where}={text}: a logarithmic range begins above 0.")
    if name in _WHOLE and any(number != int(number) for number in numbers):
        raise ConfigError(f"{where}={text}: {name} takes whole numbers.")
    if name in LISTS:
        return Values(text, choices=_spaced(name, low, high, numbers[2], f"{where}={text}"))
    return Values(text, kind=name, numbers=numbers)


def _spaced(name: str, low: float, high: float, count: float, where: str) -> tuple[float, ...]:
    import numpy as np

    if count != int(count) or count < 2:
        raise ConfigError(f"{where}: the third number says how many values there are, at least 2.")
    spread = np.geomspace if name == "logspace" else np.linspace
    return tuple(float(f"{value:.6g}") for value in spread(low, high, int(count)))
