"""Tiny training runs for tests: their command lines, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.data.audit_check import load_audit
from lerobot_ray.train import fetch_from_elsewhere

TINY_ACT = [
    "--policy.type=act",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=4",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=32",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.latent_dim=4",
    "--policy.pretrained_backbone_weights=null",
    "--policy.device=cpu",
]


def command(root: Path, output_dir: Path, *flags: str) -> list[str]:
    """The arguments of a tiny run on the dataset at `root`."""
    own = {flag.split("=")[0] for flag in flags}
    usual = [
        "--dataset.repo_id=tests/toy",
        f"--dataset.root={root}",
        f"--output_dir={output_dir}",
        *TINY_ACT,
        "--batch_size=4",
        "--steps=12",
        "--log_freq=1",
        "--save_freq=8",
        "--audit=true",
        "--mlflow.enable=false",
    ]
    return [*(flag for flag in usual if flag.split("=")[0] not in own), *flags]


def command_of_diffusion(root: Path, output_dir: Path, *flags: str) -> list[str]:
    """The same with another policy, which has none of ACT's flags."""
    usual = [flag for flag in command(root, output_dir) if not flag.startswith("--policy.")]
    return [*usual, "--policy.type=diffusion", "--policy.device=cpu", *flags]


def save_untrained(arguments: list[str], step: int) -> Path:
    """A checkpoint as a run with these arguments saves it, though nothing was trained."""
    from lerobot_ray.checkpoint.commit import new_checkpoint
    from lerobot_ray.checkpoint.save import write_snapshot
    from lerobot_ray.checkpoint.snapshot import take_snapshot
    from lerobot_ray.engine.optim import build_optimizers
    from lerobot_ray.engine.schedule import build_schedules
    from lerobot_ray.engine.state import TrainState
    from lerobot_ray.on_ray.plan_run import plan_run
    from lerobot_ray.on_ray.run_samples import open_dataset
    from lerobot_ray.on_ray.saving import run_record
    from lerobot_ray.policies.registry import build_policy

    config = parse_train_config(arguments)
    setup = plan_run(config, open_dataset(config), world_size=1, device="cpu")
    policy = build_policy(setup.config.policy, dataset_stats=setup.stats)
    optimizers = build_optimizers(config.optimizer, policy.get_optim_params())
    state = TrainState(step, step * setup.global_batch)
    snapshot = take_snapshot(
        policy=policy,
        optimizers=optimizers,
        schedules=build_schedules(config.scheduler, optimizers, config.steps),
        ema=None,
        record=run_record(setup, setup.order, state, world_size=1),
        rank=0,
    )
    assert snapshot is not None
    with new_checkpoint(setup.output_dir, step, total_steps=config.steps) as folder:
        write_snapshot(
            snapshot,
            folder,
            config=setup.config,
            policy_config=setup.config.policy,
            preprocessor=setup.preprocessor,
            postprocessor=setup.postprocessor,
        )
    return checkpoint(setup.output_dir, step)


REFUSALS = """
import json, sys
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.on_ray.trainer import run
import ray
for name, arguments in json.loads(sys.stdin.read()).items():
    try:
        run(parse_train_config(arguments))
        said = "not refused"
    except LerobotRayError as error:
        said = str(error)
    print("RESULT " + json.dumps([name, said, ray.is_initialized()]))
"""


def refusals(cases: dict[str, list[str]]) -> dict[str, tuple[str, bool]]:
    """What each command line is told, and whether Ray was started. One process for all: importing torch takes long."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSALS], input=json.dumps(cases), text=True, capture_output=True, check=False
    )
    said = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert [name for name, _, _ in said] == [*cases], done.stderr
    return {name: (text, has_ray) for name, text, has_ray in said}


def run_here(arguments: list[str]) -> int:
    """The run on the Ray that this process is connected to."""
    from lerobot_ray.on_ray.trainer import train

    return train(parse_train_config(arguments, fetch=fetch_from_elsewhere))


def run_in_one_start(cases: dict[str, list[str]], *, num_workers: int) -> None:
    """The runs one after another in the same training processes: starting those takes longer than a tiny run.

    A run into the folder of an earlier one continues its newest checkpoint, as after a restart.
    """
    import ray

    from lerobot_ray.on_ray.board import start_board
    from lerobot_ray.on_ray.cluster import Workers
    from lerobot_ray.on_ray.fit import torch_trainer
    from lerobot_ray.on_ray.run_samples import open_dataset
    from lerobot_ray.on_ray.trainer import settle, with_absolute_paths

    workers = Workers(count=num_workers, fewest=num_workers, use_gpu=False, resources={"CPU": 0.5})
    configs = [with_absolute_paths(parse_train_config(arguments)) for arguments in cases.values()]
    setups = [settle(config, open_dataset(config), workers, None) for config in configs]
    board = start_board()
    arguments = [{"setup": setup, "board": board} for setup in setups]
    loop, folder, ray_config = train_one_after_another, setups[0].output_dir, configs[0].ray
    torch_trainer(loop, {"runs": arguments}, workers, folder=folder, config=ray_config, max_failures=0).fit()
    assert ray.get(board.fatal.remote()) is None


def train_one_after_another(arguments) -> None:
    """In a training process."""
    from lerobot_ray.on_ray.worker import train_worker

    for run in arguments["runs"]:
        train_worker(run)


def start_apart(arguments: list[str], log: Path, *, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """The run as a user starts it: a process of its own, which starts a Ray of its own."""
    command = [sys.executable, "-m", "lerobot_ray.train", *arguments]
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment)


def wait_until(condition: Callable[[], object], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def training_workers(of: int | None = None) -> list[int]:
    """The training processes that descend from this process, or from another."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            if process.name().startswith("ray::RayTrainWo"):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def decoder_pids() -> list[int]:
    """The decode actors of this machine."""
    return [
        p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::MapWorker")
    ]


def kill_training_workers() -> list[int]:
    """SIGKILL to every training process that descends from this process."""
    killed = []
    for process in training_workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            killed.append(process)
    return killed


@contextlib.contextmanager
def beside(act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `act` runs in a thread; what it raises is raised at the end."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(act)
        yield
        done.result()


def starts(output_dir: Path) -> list[int]:
    """The step each start of the workers began at."""
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [entry["step"] for entry in lines if entry.get("event") == "start"]


def reached(output_dir: Path, step: int) -> bool:
    """Whether a run has logged this step."""
    return (output_dir / "metrics.jsonl").exists() and max(losses(output_dir), default=0) >= step


def checkpoint(output_dir: Path, step: int) -> Path:
    return output_dir / "checkpoints" / f"{step:06d}"


def weights(output_dir: Path, step: int) -> dict[str, np.ndarray]:
    return load_file(checkpoint(output_dir, step) / "pretrained_model" / "model.safetensors")


def assert_same_run(one: Path, other: Path, *, step: int) -> None:
    """The same parameters to the last bit, after the same samples in the same order."""
    mine, theirs = weights(one, step), weights(other, step)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not np.array_equal(mine[name], theirs[name])] == []
    assert np.array_equal(*(samples(path) for path in (one, other)))


def samples(output_dir: Path) -> np.ndarray:
    """(stream index, step, episode, frame) of every sample trained on, as the audit proves it."""
    rows = load_audit(output_dir).rows
    return np.stack([rows[name].to_numpy() for name in ("stream_index", "step", "episode", "frame")])


def losses(output_dir: Path) -> dict[int, float]:
    """Step -> loss; of a step trained twice, the last."""
    found = {}
    for line in (output_dir / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "train/loss" in entry:
            found[entry["step"]] = entry["train/loss"]
    return found
