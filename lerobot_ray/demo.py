"""`make demo`: from nothing to a dataset that was written, checked and looked at, and a policy that has learnt from it.

A scripted expert touches targets with a small arm; its demonstrations become a LeRobot dataset with real video. The
next steps are the ones of any project, each by the command a user would type, printed before it runs. At the end the
policy acts, before and after training: where the target is, the picture alone says.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CAMERA = "observation.images.top"
TASK = "touch the red disc"
FPS = 10
REPO_ID = "demo/reach"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    root, output_dir, evaluation = args.dir / "dataset", args.dir / "run", args.dir / "evaluation"
    step(f"{args.episodes} demonstrations of a scripted expert -> {root}")
    record(root, episodes=args.episodes, image_hw=(args.pixels, args.pixels))
    for folder in (output_dir, evaluation):
        shutil.rmtree(folder, ignore_errors=True)
    train = train_flags(root, output_dir, steps=args.steps, pixels=args.pixels)
    for command in (
        ["dataset", "validate", str(root)],
        ["dataset", "preview", str(root), "--out", str(args.dir / "preview.html"), "--episodes", "0,1,2"],
        ["train", *train],
    ):
        code = run(command)
        if code:
            return code
    step(f"The policy as it was before the first step -> {args.dir / 'untrained'}")
    save_untrained(train, args.dir / "untrained")
    policies = [str(args.dir / "untrained"), str(output_dir / "checkpoints" / "last" / "pretrained_model")]
    code = run(
        [
            "evaluate",
            f"--policy.path={json.dumps(policies)}",
            *env_flags(args.pixels),
            f"--eval.n_episodes={args.eval_episodes}",
            "--actors=2",
            f"--output_dir={evaluation}",
        ]
    )
    if code:
        return code
    step("Look at")
    print(f"the dataset   {args.dir / 'preview.html'}")
    print(f"the run       {output_dir / 'report.html'}")
    print(f"the episodes  {evaluation / 'evaluation.html'}")
    print(f"a video       {next(iter(sorted(evaluation.glob('step_*/videos/*/*.mp4'))), '')}")
    print(f"MLflow        .venv/bin/mlflow ui --backend-store-uri sqlite:///{output_dir.resolve()}/mlflow.db")
    print(f"the policy    {output_dir / 'checkpoints' / 'last' / 'pretrained_model'}")
    before, after = json.loads((evaluation / "eval_info.json").read_text())["policies"]
    step(f"It touches the disc in {success(before)} of new episodes before training, in {success(after)} after it")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lerobot_ray.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("demo"), help="where everything goes (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=300, help="demonstrations (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=64, help="height and width of the camera (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=50, help="episodes at the end (default: %(default)s)")
    return parser.parse_args(argv)


def env_flags(pixels: int) -> list[str]:
    """The environment the demonstrations come from."""
    return ["--env.type=reach", f"--env.observation_height={pixels}", f"--env.observation_width={pixels}"]


def train_flags(root: Path, output_dir: Path, *, steps: int, pixels: int) -> list[str]:
    """A small ACT, played now and then while it learns, with an audit of every sample it saw."""
    policy = {
        "type": "act",
        "pretrained_backbone_weights": "null",
        "use_vae": "false",  # the expert is of one mind, there is nothing for a latent to tell
        "dropout": 0.0,
        "chunk_size": 10,
        "n_action_steps": 5,
        "dim_model": 128,
        "n_heads": 4,
        "dim_feedforward": 512,
        "n_encoder_layers": 2,
        "optimizer_lr": 1e-4,  # a ResNet from scratch with frozen norms goes blind at much more
        "optimizer_lr_backbone": 1e-4,
    }
    schedule = {"type": "diffuser", "name": "cosine", "num_warmup_steps": 50}
    run = {"output_dir": output_dir, "steps": steps, "batch_size": 16, "log_freq": 25, "save_freq": 0, "audit": "true"}
    dataset = {"repo_id": REPO_ID, "root": root}
    evaluation = {"env_eval_freq": -(-steps // 4), "eval.n_episodes": 20, "eval.videos": 2}
    return [
        *(f"--policy.{name}={value}" for name, value in policy.items()),
        *(f"--scheduler.{name}={value}" for name, value in schedule.items()),
        *(f"--dataset.{name}={value}" for name, value in dataset.items()),
        *(f"--{name}={value}" for name, value in (run | evaluation).items()),
        *env_flags(pixels),
    ]


def save_untrained(flags: Sequence[str], folder: Path) -> None:
    """The policy folder of a run's step 0: the weights it begins with, and its processors."""
    import torch

    from lerobot_ray.checkpoint.save import write_policy_folder
    from lerobot_ray.checkpoint.snapshot import named_weights
    from lerobot_ray.config.parse import parse_train_config
    from lerobot_ray.on_ray.plan_run import plan_run
    from lerobot_ray.on_ray.run_samples import open_dataset
    from lerobot_ray.policies.registry import build_policy

    config = parse_train_config(flags)
    setup = plan_run(config, open_dataset(config), world_size=1, device="cpu")
    torch.manual_seed(setup.seed)
    policy = build_policy(setup.config.policy, dataset_stats=setup.stats)
    shutil.rmtree(folder, ignore_errors=True)
    write_policy_folder(
        folder,
        {name: tensor.detach() for name, tensor in named_weights(policy).items()},
        config=setup.config,
        policy_config=setup.config.policy,
        processors=(setup.preprocessor, setup.postprocessor),
    )


def success(numbers: Mapping[str, Any]) -> str:
    low, high = numbers["pc_success_interval"]
    return f"{numbers['pc_success']:.0f} % ({low:.0f} to {high:.0f} %)"


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
