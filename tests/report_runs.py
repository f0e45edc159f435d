"""Run folders like those that training leaves, made in a moment: metrics, audit, checkpoints, videos, config.

What writes them is what training writes them with; only the numbers are invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerobot_ray.checkpoint.commit import new_checkpoint
from lerobot_ray.config.encode import encode
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.data.audit import AuditWriter, begin_attempt
from lerobot_ray.data.episodes import Selection
from lerobot_ray.data.order import build_order
from lerobot_ray.tracking.environment import describe_environment
from lerobot_ray.tracking.facts import selection_facts
from lerobot_ray.tracking.jsonl import JsonlTracker
from lerobot_ray.tracking.protocol import Outcome, RunInfo

FINISHED = Outcome()
BEGAN_S = 1_760_000_000.0


@dataclass(frozen=True, kw_only=True)
class RunShape:
    """What kind of run. `cuts` are (step a kill came at, step the next attempt began at, hours between them)."""

    steps: int = 1000
    log_freq: int = 10
    save_freq: int = 250
    global_batch: int = 8
    world_size: int = 2
    episodes: int = 12
    episode_samples: int = 60
    cuts: tuple[tuple[int, int, float], ...] = ()
    has_audit: bool = True
    has_eval: bool = True
    outcome: Outcome | None = FINISHED
    waits: float = 0.05
    """Seconds a step waits for data; a step computes for 0.2 s."""
    seed: int = 0
    name: str = "act_reach"


def make_run(folder: Path, shape: RunShape | None = None) -> Path:
    """Write the run; its folder."""
    shape = shape or RunShape()
    rng = np.random.default_rng(shape.seed)
    config = parse_train_config(
        [
            "--dataset.repo_id=lerobot/reach_pick",
            "--dataset.eval_split=0.1",
            "--policy.type=act",
            f"--output_dir={folder}",
            f"--steps={shape.steps}",
            f"--job_name={shape.name}",
        ]
    )
    lengths = np.full(shape.episodes, shape.episode_samples) + rng.integers(-8, 9, shape.episodes)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    selection = Selection(
        episodes=np.arange(shape.episodes), starts=starts, first_row=starts[:-1], last_row=starts[1:] - 1
    )
    order = build_order("frames", num_samples=selection.num_samples, seed=1, episode_lengths=lengths)
    begins = [(0, 0.0), *((first, hours) for _, first, hours in shape.cuts)]
    ends = [*(at for at, _, _ in shape.cuts), shape.steps]
    clock = _Clock(BEGAN_S)
    for (first, pause_h), end in zip(begins, ends, strict=True):
        clock.now_s += pause_h * 3600
        outcome = shape.outcome if end == shape.steps else None
        facts = {**selection_facts(selection), "parameters": 51_600_000}
        info = RunInfo(
            output_dir=folder,
            name=shape.name,
            config=encode(config),
            total_steps=shape.steps,
            first_step=first,
            samples_seen=first * shape.global_batch,
            world_size=shape.world_size,
            global_batch=shape.global_batch,
            environment={**describe_environment(), "devices": ["Example GPU"], "command": COMMAND},
            facts=facts,
        )
        _attempt(info, shape, end, clock, rng, outcome)
        if shape.has_audit:
            _audit(info, end, order, selection)
    if shape.has_eval:
        _video(folder / "eval" / f"videos_step_{shape.steps}" / "reach_0" / "eval_episode_0.mp4")
    return folder


COMMAND = (
    "lerobot_ray.train --dataset.repo_id=lerobot/reach_pick --policy.type=act --dataset.eval_split=0.1 --audit=true"
)


class _Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def _attempt(
    info: RunInfo, shape: RunShape, end: int, clock: _Clock, rng: np.random.Generator, outcome: Outcome | None
) -> None:
    tracker = JsonlTracker(clock=clock)
    tracker.start(info)
    clock.now_s += 40
    for step in range(info.first_step + shape.log_freq, end + 1, shape.log_freq):
        progress = step / shape.steps
        waited = shape.waits * rng.gamma(2, 0.5) * (4 if 0.42 < progress < 0.5 else 1)
        update = 0.2 * rng.normal(1, 0.03)
        saves = step % shape.save_freq < shape.log_freq and step >= shape.save_freq
        step_s = waited + update + 0.018
        clock.now_s += step_s * shape.log_freq + (3.0 if saves else 0.0)
        loss = (6.0 * np.exp(-9 * progress) + 0.11 + 0.12 / (1 + 8 * progress)) * rng.lognormal(0, 0.16)
        tracker.log(
            {
                "train/loss": loss,
                "train/l1_loss": loss * 0.8,
                "train/kld_loss": loss * 0.02 * rng.lognormal(0, 0.2),
                "train/grad_norm": (40 * np.exp(-5 * progress) + 6) * rng.lognormal(0, 0.35),
                "train/lr": 1e-5 * min(1, progress / 0.05) * (0.5 + 0.5 * np.cos(np.pi * progress)),
                "train/ema_decay": min(0.9999, 1 - (1 + step) ** -0.75),
                "train/step_s": step_s,
                "train/dataloading_s": waited,
                "train/preprocessing_s": 0.008 * rng.normal(1, 0.05),
                "train/update_s": update,
                "train/checkpoint_s": 1.1 / shape.log_freq if saves else 0.0,
                "train/samples_per_s": shape.global_batch / step_s,
                "train/gpu_mem_gb": 21.4 + (0.8 if progress > 0.1 else 0.0),
                "train/mem_gb": 9.0 + 2 * min(1, progress * 5) + rng.normal(0, 0.05),
                "train/epochs": step * shape.global_batch / info.facts["num_samples"],
                "train/samples": step * shape.global_batch,
                "train/skipped_steps": 0.0,
            },
            step=step,
        )
        if saves:
            at = step - step % shape.save_freq
            held_out = (3.5 * np.exp(-8 * progress) + 0.24 + 0.09 * progress**2) * rng.normal(1, 0.02)
            tracker.log({"eval/loss": held_out, "eval/ema_loss": held_out * 0.93}, step=at)
            if shape.has_eval:
                success = 100 * (1 - np.exp(-4 * progress)) * rng.normal(0.9, 0.04)
                values = {"eval/pc_success": round(success), "eval/avg_sum_reward": success * 1.7, "eval/eval_s": 61.0}
                tracker.log(values, step=at)
            tracker.log_checkpoint(_checkpoint(info.output_dir, at, shape.steps), step=at)
    if outcome:
        tracker.close(outcome)


def _checkpoint(folder: Path, step: int, total_steps: int) -> Path:
    with new_checkpoint(folder, step, total_steps=total_steps) as writing:
        for name in ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"):
            path = writing / name
            path.parent.mkdir()
            with path.open("wb") as file:
                file.truncate(300_000)
        name = writing.name.split("-")[1]
    return folder / "checkpoints" / name


def _audit(info: RunInfo, end: int, order, selection: Selection) -> None:
    attempt = begin_attempt(
        info.output_dir,
        first_step=info.first_step,
        samples_seen=info.samples_seen,
        global_batch=info.global_batch,
        world_size=info.world_size,
    )
    share = info.global_batch // info.world_size
    for rank in range(info.world_size):
        with AuditWriter(info.output_dir, attempt, rank=rank) as audit:
            for step in range(info.first_step, end):
                q = step * info.global_batch + rank * share + np.arange(share)
                position, rows = selection.locate(order.samples(q))
                audit.add(
                    step=step,
                    stream_index=q,
                    episode=selection.episodes[position],
                    frame=rows - selection.first_row[position],
                )


def _video(path: Path) -> None:
    """A dot that goes round, two seconds."""
    import av

    path.parent.mkdir(parents=True)
    y, x = np.mgrid[:96, :128]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(40):
            angle = number / 40 * 2 * np.pi
            distance = np.hypot(x - 64 - 30 * np.cos(angle), y - 48 - 30 * np.sin(angle))
            frame = np.where(distance[..., None] < 9, [230, 120, 30], [40, 48, 60]).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
