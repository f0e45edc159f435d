"""`make demo`: from nothing to a dataset that was written, checked and looked at, and a policy trained on it.

A scripted expert touches targets with a small arm; its demonstrations become a LeRobot dataset with real video. The
next steps are the ones of any project, each by the command a user would type, printed before it runs.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

CAMERA = "observation.images.top"
TASK = "touch the red disc"
FPS = 10
REPO_ID = "demo/reach"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    root = args.dir / "dataset"
    step(f"{args.episodes} demonstrations of a scripted expert -> {root}")
    record(root, episodes=args.episodes, image_hw=(args.pixels, args.pixels))
    shutil.rmtree(args.dir / "run", ignore_errors=True)
    for command in (
        ["dataset", "validate", str(root)],
        ["dataset", "preview", str(root), "--out", str(args.dir / "preview.html"), "--episodes", "0,1,2"],
        ["train", *train_flags(root, args.dir / "run", steps=args.steps)],
    ):
        code = run(command)
        if code:
            return code
    step("Look at")
    print(f"the dataset   {args.dir / 'preview.html'}")
    print(f"the run       {args.dir / 'run' / 'report.html'}")
    print(f"MLflow        .venv/bin/mlflow ui --backend-store-uri sqlite:///{(args.dir / 'run').resolve()}/mlflow.db")
    print(f"the policy    {args.dir / 'run' / 'checkpoints' / 'last' / 'pretrained_model'}")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lerobot_ray.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("demo"), help="where everything goes (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--steps", type=int, default=400, help="training steps (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=96, help="height and width of the camera")
    return parser.parse_args(argv)


def train_flags(root: Path, output_dir: Path, *, steps: int) -> list[str]:
    """A small ACT, with an audit of every sample it saw."""
    policy = {
        "type": "act",
        "pretrained_backbone_weights": "null",
        "chunk_size": 10,
        "n_action_steps": 10,
        "dim_model": 128,
        "n_heads": 4,
        "dim_feedforward": 512,
        "n_encoder_layers": 2,
        "optimizer_lr": 3e-4,
        "optimizer_lr_backbone": 3e-4,
    }
    run = {"output_dir": output_dir, "steps": steps, "batch_size": 8, "log_freq": 25, "save_freq": 200, "audit": "true"}
    dataset = {"repo_id": REPO_ID, "root": root}
    return [
        *(f"--policy.{name}={value}" for name, value in policy.items()),
        *(f"--dataset.{name}={value}" for name, value in dataset.items()),
        *(f"--{name}={value}" for name, value in run.items()),
    ]


def record(root: Path, *, episodes: int, image_hw: tuple[int, int]) -> None:
    """Write the expert's demonstrations. Some moves are disturbed, so that the data shows how to recover."""
    from tqdm import tqdm

    from lerobot_ray.data.writer import DatasetWriter
    from lerobot_ray.envs.reach import ReachEnv, expert_action

    shutil.rmtree(root, ignore_errors=True)
    joints = ["shoulder.pos", "elbow.pos"]
    features = {
        CAMERA: {"dtype": "video", "shape": (*image_hw, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": joints},
        "action": {"dtype": "float32", "shape": (2,), "names": joints},
    }
    env, disturbance = ReachEnv(image_hw=image_hw), np.random.default_rng(0)
    with DatasetWriter(root, repo_id=REPO_ID, fps=FPS, features=features, robot_type="reach", codec="h264") as writer:
        for seed in tqdm(range(episodes), unit="episode", disable=not sys.stderr.isatty()):
            observation, _ = env.reset(seed=seed)
            ended = False
            while not ended:
                action = expert_action(env.state)
                frame = {CAMERA: observation["pixels"], "observation.state": observation["agent_pos"]}
                writer.add_frame({**frame, "action": action, "task": TASK})
                is_disturbed = disturbance.random() < 0.2
                move = action + disturbance.normal(scale=0.1, size=2) if is_disturbed else action
                observation, _, success, truncated, _ = env.step(move)
                ended = success or truncated
            writer.save_episode()


def run(command: list[str]) -> int:
    """Run one of the package's entry modules here, after saying how it is typed."""
    name, *arguments = command
    step(f"python -m lerobot_ray.{name} {shlex.join(arguments)}")
    return entry(name)(arguments)


def entry(name: str) -> Callable[[list[str]], int]:
    from importlib import import_module

    return import_module(f"lerobot_ray.{name}").main


def step(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
