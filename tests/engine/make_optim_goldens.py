"""Writes tests/engine/goldens/optim.json with LeRobot's optimizers and schedules. Run it under an interpreter that has
lerobot 0.6.1 and diffusers:

    PEER_PYTHON tests/engine/make_optim_goldens.py
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
warnings.simplefilter("ignore")

from lerobot.optim import optimizers, schedulers  # noqa: E402

from tests.engine.optim_cases import OPTIMIZERS, SCHEDULES, STEPS, model, named_groups, train  # noqa: E402


def schedule(kind: str, options: dict, total: int) -> dict:
    config = schedulers.LRSchedulerConfig.get_choice_class(kind)(**options)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = config.build(optimizer, total)
    optimizer.step()
    built.step()
    return {"factors": [built.lr_lambdas[0](step) for step in STEPS], "state": built.state_dict()}


def optimizer(kind: str, options: dict, form: str) -> dict:
    config = optimizers.OptimizerConfig.get_choice_class(kind)(**options)
    network = model()
    built = config.build(named_groups(network, form))
    built = built if isinstance(built, dict) else {"main": built}
    groups = {name: one.state_dict()["param_groups"] for name, one in built.items()}
    train(network, list(built.values()))
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    return {"groups": groups, "weights": weights.tolist()}


def main() -> None:
    versions = {name: importlib.metadata.version(name) for name in ("lerobot", "torch", "diffusers")}
    goldens = {
        "versions": versions | {"python": sys.version.split()[0]},
        "schedules": {name: schedule(*case) for name, case in SCHEDULES.items()},
        "optimizers": {name: optimizer(*case) for name, case in OPTIMIZERS.items()},
    }
    (HERE / "goldens").mkdir(exist_ok=True)
    (HERE / "goldens" / "optim.json").write_text(json.dumps(goldens, indent=1))


if __name__ == "__main__":
    main()
