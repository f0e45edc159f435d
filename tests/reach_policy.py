"""A tiny policy for reach without a camera, and demonstrations for it: rollouts and runs of it take a moment only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.envs.reach import ReachEnv, expert_action

REACH = ["--env.type=reach", "--env.obs_type=environment_state_agent_pos", "--env.episode_length=12"]
TINY = {
    "chunk_size": 4,
    "n_action_steps": 4,
    "dim_model": 16,
    "n_heads": 2,
    "dim_feedforward": 32,
    "n_encoder_layers": 1,
    "n_vae_encoder_layers": 1,
    "latent_dim": 4,
    "pretrained_backbone_weights": None,
    "device": "cpu",
}
STATE, TARGET = "observation.state", "observation.environment_state"


def save_reach_policy(folder: Path, *, seed: int = 0, state_size: int = 2) -> Path:
    """An untrained ACT as a policy folder."""
    from lerobot_ray.policies.act.config import ACTConfig
    from lerobot_ray.policies.registry import build_policy
    from lerobot_ray.processing.defaults import make_default_processors

    config = ACTConfig(**TINY)
    config.input_features = {
        STATE: PolicyFeature(FeatureType.STATE, (state_size,)),
        TARGET: PolicyFeature(FeatureType.ENV, (2,)),
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    torch.manual_seed(seed)
    build_policy(config).save_pretrained(folder)
    one = {"mean": np.zeros(2), "std": np.ones(2)}
    stats = {STATE: {"mean": np.zeros(state_size), "std": np.ones(state_size)}, TARGET: one, "action": one}
    for pipeline in make_default_processors(config, stats, device="cpu"):
        pipeline.save_pretrained(folder)
    return folder


def save_reach_run(folder: Path, steps: tuple[int, ...]) -> Path:
    """A run's folder with a policy of its own at each step."""
    from lerobot_ray.checkpoint.commit import new_checkpoint

    for step in steps:
        with new_checkpoint(folder, step, total_steps=100) as checkpoint:
            save_reach_policy(checkpoint / "pretrained_model", seed=step)
    return folder


def record_reach(root: Path, *, episodes: int = 4) -> Path:
    """The expert's demonstrations, without pictures."""
    from lerobot_ray.data.writer import DatasetWriter

    names = {STATE: ["shoulder", "elbow"], TARGET: ["x", "y"], "action": ["shoulder", "elbow"]}
    features = {key: {"dtype": "float32", "shape": (2,), "names": name} for key, name in names.items()}
    env = ReachEnv(obs_type="environment_state_agent_pos")
    with DatasetWriter(root, repo_id="tests/reach", fps=10, features=features, robot_type="reach") as writer:
        for seed in range(episodes):
            seen, ended = env.reset(seed=seed)[0], False
            while not ended:
                action = expert_action(env.state)
                frame = {STATE: seen["agent_pos"], TARGET: seen["environment_state"].astype(np.float32)}
                writer.add_frame({**frame, "action": action, "task": "touch the disc"})
                seen, _, success, truncated, _ = env.step(action)
                ended = success or truncated
            writer.save_episode()
    return root
