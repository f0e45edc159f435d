"""What optimizers are set to, apart from what they remember: to go on from another run's state with one's own settings.

A checkpoint brings its learning rate along, in the optimizer's groups and in the schedule's base rates. Who continues
it with other settings, as population based training does, puts them back after loading.
"""

from __future__ import annotations

from typing import Any

from lerobot_ray.engine.learner import Learner

_STATE = ("params", "name")
Rates = dict[str, list[dict[str, Any]]]
"""Optimizer -> the settings of each of its groups."""


def rates_of(learner: Learner) -> Rates:
    """The settings of a learner nothing was loaded into: `lr` is the rate before the schedule."""
    return {
        name: [
            {
                **{key: value for key, value in group.items() if key not in _STATE},
                "lr": group.get("initial_lr", group["lr"]),
            }
            for group in optimizer.param_groups
        ]
        for name, optimizer in learner.optimizers.items()
    }


def set_rates(learner: Learner, rates: Rates) -> None:
    """Put settings in place of the loaded ones. The schedule stays where it is and scales the new rates."""
    for name, optimizer in learner.optimizers.items():
        schedule = learner.schedules.get(name)
        for number, (group, own) in enumerate(zip(optimizer.param_groups, rates[name], strict=True)):
            loaded_base = group.get("initial_lr", group["lr"])
            factor = group["lr"] / loaded_base if loaded_base else 1.0
            group.update(own)
            group["lr"] = own["lr"] * factor
            if schedule is not None:
                group["initial_lr"] = own["lr"]
                schedule.base_lrs[number] = own["lr"]
