"""Writes tests/policies/goldens/ with LeRobot's own policies. Run it under an interpreter that has lerobot 0.6.1:

    PEER_PYTHON tests/policies/make_policy_goldens.py

Weights follow the fill rule of `reference.py`, so they are not stored; of gradients and trained weights a digest is.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
warnings.simplefilter("ignore")

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.factory import get_policy_class, make_policy_config  # noqa: E402

from tests.policies.cases import (  # noqa: E402
    ADAM_EPS,
    BATCH,
    CASES,
    LEARNING_RATE,
    OPTIMIZER_STEPS,
    ROLLOUT_STEPS,
    Case,
    digest,
)
from tests.policies.reference import refill  # noqa: E402

TYPES = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
FULL_SIZE = 64
"""Gradients up to this many numbers are stored whole."""


def build(case: Case):
    inputs = {key: PolicyFeature(TYPES.get(key, FeatureType.VISUAL), shape) for key, shape in case.shapes.items()}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (case.action,))}
    config = make_policy_config(
        case.type, device="cpu", input_features=inputs, output_features=outputs, push_to_hub=False, **case.options
    )
    return get_policy_class(case.type)(config)


def golden(case: Case) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    torch.manual_seed(0)
    policy = build(case)
    parameters = dict(policy.named_parameters())
    found["names"] = np.array(list(parameters))
    found["fresh"] = np.array([digest(parameter) for parameter in parameters.values()])
    shapes = {name: list(tensor.shape) for name, tensor in policy.state_dict().items()}
    found["state_dict"] = np.array(json.dumps(shapes))
    found |= losses_and_actions(policy, case, "float32")
    torch.set_default_dtype(torch.float64)
    try:
        policy.double()
        for module in policy.modules():  # ACT's latent is made in single precision whatever the weights are
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: tuple(tensor.double() for tensor in inputs))
        found |= losses_and_actions(policy, case, "float64")
        found |= gradients(policy, case)
        found |= ten_steps(policy, case)
    finally:
        torch.set_default_dtype(torch.float32)
    return found


def losses_and_actions(policy, case: Case, precision: str) -> dict[str, np.ndarray]:
    refill(policy)
    policy.eval()
    torch.manual_seed(0)
    found = {"eval_loss": policy.forward(case.batch(0))[0].item()}
    if case.type == "act":  # its loss in eval mode draws nothing, so a sample can be asked for its own
        whole = case.batch(0)
        alone = [{key: value[i : i + 1] for key, value in whole.items()} for i in range(BATCH)]
        found["sample_losses"] = [policy.forward(batch)[0].item() for batch in alone]
    policy.reset()
    torch.manual_seed(1)
    found["actions"] = np.stack([policy.select_action(case.observation(i)).numpy() for i in range(ROLLOUT_STEPS)])
    policy.train()
    torch.manual_seed(2)
    loss, logged = policy.forward(case.batch(0))
    found["loss"], found["logged"] = loss.item(), json.dumps(logged or {})
    return {f"{precision}/{name}": np.array(value) for name, value in found.items()}


def gradients(policy, case: Case) -> dict[str, np.ndarray]:
    refill(policy)
    policy.train()
    torch.manual_seed(2)
    policy.forward(case.batch(0))[0].backward()
    named = dict(policy.named_parameters())
    found = {"gradients": np.array([digest(parameter.grad) for parameter in named.values()])}
    for name, parameter in named.items():
        if parameter.numel() <= FULL_SIZE:
            found[f"gradient/{name}"] = parameter.grad.numpy().copy()
    return found


def ten_steps(policy, case: Case) -> dict[str, np.ndarray]:
    refill(policy)
    policy.train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=LEARNING_RATE, eps=ADAM_EPS, weight_decay=1e-2)
    losses = []
    for step in range(OPTIMIZER_STEPS):
        torch.manual_seed(100 + step)
        optimizer.zero_grad()
        loss, _ = policy.forward(case.batch(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    trained = [digest(tensor) for _, tensor in sorted(policy.state_dict().items())]
    return {"losses": np.array(losses), "trained": np.array(trained)}


def main() -> None:
    torch.set_num_threads(1)
    folder = HERE / "goldens"
    for name, case in CASES.items():
        np.savez_compressed(folder / f"{name}.npz", **golden(case))
        print(name)
    versions = {
        package: importlib.metadata.version(package) for package in ("lerobot", "torch", "torchvision", "diffusers")
    }
    (folder / "versions.json").write_text(json.dumps({"python": sys.version.split()[0], **versions}, indent=2) + "\n")


if __name__ == "__main__":
    main()
