"""Optimizers and schedules that `make_optim_goldens.py` builds with LeRobot and the tests build with this package."""

from __future__ import annotations

from typing import Any

import torch

STEPS = (0, 1, 2, 5, 7, 10, 19, 20, 50, 99, 100)
"""Optimizer steps at which the factors are compared."""

_DECAY = {"num_warmup_steps": 10, "num_decay_steps": 60, "peak_lr": 1e-4, "decay_lr": 2.5e-6}
SCHEDULES: dict[str, tuple[str, dict[str, Any], int]] = {
    "cosine_decay": ("cosine_decay_with_warmup", _DECAY, 100),
    "cosine_decay_shortened": ("cosine_decay_with_warmup", _DECAY, 40),
    "cosine_decay_without_warmup": ("cosine_decay_with_warmup", {**_DECAY, "num_warmup_steps": 0}, 100),
    "vqbet": ("vqbet", {"num_warmup_steps": 5, "num_vqvae_training_steps": 20}, 100),
    "vqbet_cycles": ("vqbet", {"num_warmup_steps": 5, "num_vqvae_training_steps": 20, "num_cycles": 1.5}, 100),
    "constant_with_warmup": ("constant_with_warmup", {"num_warmup_steps": 10}, 100),
    "cosine_annealing": ("cosine_annealing_with_warmup", {"num_warmup_steps": 10}, 100),
    "cosine_annealing_all_warmup": ("cosine_annealing_with_warmup", {"num_warmup_steps": 100}, 50),
    "diffuser_cosine": ("diffuser", {"num_warmup_steps": 10, "name": "cosine"}, 100),
    "diffuser_cosine_without_warmup": ("diffuser", {"num_warmup_steps": 0, "name": "cosine"}, 100),
    "diffuser_linear": ("diffuser", {"num_warmup_steps": 10, "name": "linear"}, 100),
    "diffuser_constant": ("diffuser", {"name": "constant"}, 100),
    "diffuser_constant_with_warmup": ("diffuser", {"num_warmup_steps": 7, "name": "constant_with_warmup"}, 100),
}

_GROUPS = {"actor": {"lr": 1e-3}, "critic": {"betas": [0.8, 0.9], "weight_decay": 0.1}}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "adam": ("adam", {"lr": 1e-2, "betas": (0.95, 0.999), "weight_decay": 1e-3}, "parameters"),
    "adamw": ("adamw", {"lr": 1e-2, "weight_decay": 0.1}, "groups"),
    "sgd": ("sgd", {"lr": 1e-2, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}, "groups"),
    "xvla": ("xvla-adamw", {"lr": 1e-2, "soft_prompt_lr_scale": 0.5}, "names"),
    "xvla_warmup": ("xvla-adamw", {"lr": 1e-2, "soft_prompt_warmup_lr_scale": 0.01}, "names"),
    "multi_adam": ("multi_adam", {"lr": 1e-2, "optimizer_groups": _GROUPS}, "dict"),
}


class Network(torch.nn.Module):
    """Three layers, named so that X-VLA's rules apply to them."""

    def __init__(self) -> None:
        super().__init__()
        self.vlm = torch.nn.Linear(2, 3)
        self.soft_prompts = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.soft_prompts(torch.tanh(self.vlm(x)))))


def model() -> Network:
    network = Network()
    for i, parameter in enumerate(network.parameters()):
        values = torch.arange(parameter.numel(), dtype=torch.float32)
        parameter.data = (((values * 7 + i * 3) % 11) / 11 - 0.5).reshape(parameter.shape)
    return network


def named_groups(network: Network, form: str) -> Any:
    """The parameters in the form a policy's `get_optim_params` may return."""
    body, head = [*network.vlm.parameters(), *network.soft_prompts.parameters()], list(network.head.parameters())
    return {
        "parameters": network.parameters(),
        "groups": [{"params": body}, {"params": head, "lr": 1e-3}],
        "names": dict(network.named_parameters()),
        "dict": {"actor": body, "critic": head},
    }[form]


def train(network: Network, optimizers: list[torch.optim.Optimizer], steps: int = 5) -> None:
    for step in range(steps):
        loss = network(torch.tensor([[1.0, -2.0], [0.5, step / 10]])).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
