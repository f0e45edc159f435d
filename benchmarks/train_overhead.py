"""What training costs beside the model: the loop, checkpoints, faults, the driver, memory; LeRobot's loop beside ours.

    python benchmarks/train_overhead.py loop checkpoint --json out.json          # short parts, one after another
    python benchmarks/train_overhead.py end-to-end --root DATASET --peer-python PEER/bin/python --json out.json
    python benchmarks/train_overhead.py kill --root DATASET --json out.json
    python benchmarks/train_overhead.py controller memory --json out.json --markdown out.md

loop         time of a step in `engine.loop.train` over the same forward, backward, clip and optimizer step written bare
checkpoint   how long a save stops training, against one written while training waits (--millions: parameters)
end-to-end   samples per second of `lerobot_ray.train` and of lerobot-train, from what they log themselves
kill         from SIGKILL of a training process to the next step trained
controller   CPU time of the driver and of Ray Train's controller beside idle workers (--workers)
memory       the most a rank holds, at several shard counts (--shards)

Results of earlier parts in the same file are kept.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POLICY = {
    "policy.type": "act",
    "policy.device": "cpu",
    "policy.push_to_hub": "false",
    "policy.chunk_size": "20",
    "policy.n_action_steps": "20",
    "policy.dim_model": "128",
    "policy.dim_feedforward": "256",
    "policy.n_encoder_layers": "2",
    "policy.pretrained_backbone_weights": "null",
}


def main() -> None:
    args = parse_args()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for part in args.parts:
        rows = PARTS[part](args)
        results[part] = {"command": " ".join(sys.argv), "machine": machine(), "rows": rows}
        for row in rows:
            print(part, json.dumps(row), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(results))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--root", type=Path, help="a dataset (benchmarks/bench_dataset.py writes one)")
    parser.add_argument("--peer-python", help="an interpreter that has lerobot")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--decoders", type=int, default=1, help="decode actors; loader processes of lerobot-train")
    parser.add_argument("--millions", type=int, nargs="+", default=[50])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


# The loop


def loop(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A policy that costs almost nothing shows the loop's own time; a small ACT shows it as a share."""
    import torch

    torch.set_num_threads(1)
    return [_loop_over_bare("nothing", 300, 12), _loop_over_bare("act", 4, 6)]


def _loop_over_bare(model: str, steps: int, rounds: int) -> dict[str, Any]:
    bare_s, ours_s = [], []
    for _ in range(rounds):
        bare_s.append(_timed(_bare, model, steps))
        ours_s.append(_timed(_in_loop, model, steps))
    bare_ms, ours_ms = (1e3 * statistics.median(times) / steps for times in (bare_s, ours_s))
    pairs = sorted(1e3 * (ours - bare) / steps for ours, bare in zip(ours_s, bare_s, strict=True))
    return {
        "model": model,
        "bare_ms": round(bare_ms, 3),
        "loop_ms": round(ours_ms, 3),
        "extra_ms": round(statistics.median(pairs), 3),
        "extra_ms_spread": [round(pairs[0], 3), round(pairs[-1], 3)],
        "share_percent": round(100 * statistics.median(pairs) / bare_ms, 2),
    }


def _timed(run: Callable[[Any, Any, list[Any]], None], model: str, steps: int) -> float:
    policy, batch = _policy_and_batch(model)
    import torch

    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5, fused=True)
    run(policy, optimizer, [dict(batch) for _ in range(2)])
    batches = [dict(batch) for _ in range(steps)]
    started = time.perf_counter()
    run(policy, optimizer, batches)
    return time.perf_counter() - started


def _bare(policy: Any, optimizer: Any, batches: list[Any]) -> None:
    import torch

    policy.train()
    for batch in batches:
        loss, _ = policy(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _in_loop(policy: Any, optimizer: Any, batches: list[Any]) -> None:
    from lerobot_ray.engine.host import LocalHost
    from lerobot_ray.engine.learner import Learner
    from lerobot_ray.engine.loop import Hooks, LoopSettings, train
    from lerobot_ray.engine.state import TrainState

    learner = Learner(policy=policy, forward=policy, optimizers={"main": optimizer}, schedules={}, grad_clip_norm=10.0)
    settings = LoopSettings(steps=len(batches), global_batch=8, log_freq=200)
    train(learner, batches, TrainState(), settings, LocalHost(), Hooks(log=lambda state, values: None))


def _policy_and_batch(model: str) -> tuple[Any, dict[str, Any]]:
    import torch

    torch.manual_seed(0)
    if model == "nothing":

        class Nothing(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(8))

            def forward(self, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
                return (self.weight * batch["x"]).mean(), {"l1_loss": 0.5}

        return Nothing(), {"x": torch.ones(8, 8), "stream_index": torch.arange(8)}
    from lerobot_ray.config.decode import decode
    from lerobot_ray.config.policy import PolicyConfig
    from lerobot_ray.core.types import FeatureType, PolicyFeature
    from lerobot_ray.policies.registry import build_policy

    flags = {name.removeprefix("policy."): value for name, value in POLICY.items()}
    numbers = {name: int(value) if value.isdigit() else value for name, value in flags.items()}
    config: Any = decode(
        PolicyConfig,
        {**numbers, "push_to_hub": False, "pretrained_backbone_weights": None},  # type: ignore[type-abstract]
    )
    config.input_features = {
        "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 96, 128)),
        "observation.state": PolicyFeature(FeatureType.STATE, (7,)),
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
    batch = {
        "observation.images.front": torch.rand(8, 3, 96, 128),
        "observation.state": torch.rand(8, 7),
        "action": torch.rand(8, 20, 7),
        "action_is_pad": torch.zeros(8, 20, dtype=torch.bool),
        "stream_index": torch.arange(8),
    }
    return build_policy(config), batch


# Checkpoints


def checkpoint(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Parameters and Adam's two moments, in host memory: a GPU's copy is quicker, its files are the same."""
    import shutil

    import torch

    from lerobot_ray.checkpoint.commit import new_checkpoint
    from lerobot_ray.checkpoint.optimizer import save_optimizer_state
    from lerobot_ray.checkpoint.retention import Retention
    from lerobot_ray.checkpoint.snapshot import take_snapshot
    from lerobot_ray.checkpoint.state import RunRecord
    from lerobot_ray.checkpoint.tensors import HostCopies, write_tensors
    from lerobot_ray.checkpoint.writer import CheckpointWriter

    def write(snapshot: Any, folder: Path) -> None:
        write_tensors(snapshot.weights, folder / "model.safetensors")
        save_optimizer_state(snapshot.optimizers["main"], folder / "training_state")

    rows = []
    for millions in args.millions:
        layers = max(1, round(millions * 1e6 / 2048**2))
        policy = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(layers)))
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
        for parameter in policy.parameters():
            moments = {name: torch.ones_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}

        parts = {"policy": policy, "optimizers": {"main": optimizer}, "schedules": {}, "ema": None, "rank": 0}
        parts["copies"] = HostCopies(keeps=True)

        def snapshot(step: int, parts: dict[str, Any] = parts) -> Any:
            record = RunRecord(step=step, samples_seen=step, seed=0, global_batch=1, world_size=1)
            return take_snapshot(record=record, **parts)

        with tempfile.TemporaryDirectory() as folder:
            waiting_s, stalls_s = [], []
            writer = CheckpointWriter(Path(folder), total_steps=99, write=write, retention=Retention(keep_last=1))
            for step in range(1, 4 if millions < 200 else 3):
                started = time.perf_counter()
                with new_checkpoint(Path(folder), step, total_steps=99) as target:
                    write(snapshot(step), target)
                waiting_s.append(time.perf_counter() - started)
                shutil.rmtree(Path(folder) / "checkpoints")
                started = time.perf_counter()
                writer.submit(snapshot(step))
                stalls_s.append(time.perf_counter() - started)
                writer.wait()
        count = sum(parameter.numel() for parameter in policy.parameters())
        stall_s, wait_s = statistics.median(stalls_s), statistics.median(waiting_s)
        rows.append(
            {
                "million_parameters": round(count / 1e6),
                "gigabytes": round(12 * count / 1e9, 2),
                "waiting_s": [round(value, 2) for value in waiting_s],
                "stall_s": [round(value, 3) for value in stalls_s],
                "stall_percent": round(100 * stall_s / wait_s, 1),
            }
        )
    return rows


# Whole runs


def end_to_end(args: argparse.Namespace) -> list[dict[str, Any]]:
    """In turn, twice. The first log line of each, with start-up in it, does not count."""
    per_who: dict[str, list[float]] = {}
    for _ in range(2):
        per_who.setdefault("lerobot_ray", []).append(_rate_of_ours(args))
        if args.peer_python:
            per_who.setdefault("lerobot-train", []).append(_rate_of_theirs(args))
    return [
        {
            "who": who,
            "batch": args.batch,
            "decoders": args.decoders,
            "samples_per_s": [round(rate, 2) for rate in rates],
        }
        for who, rates in per_who.items()
    ]


def _flags(args: argparse.Namespace, output_dir: Path) -> list[str]:
    log_freq = max(1, args.steps // 4)
    settings = POLICY | {
        "dataset.repo_id": "bench/two_cameras",
        "dataset.root": str(args.root),
        "batch_size": str(args.batch),
        "steps": str(args.steps),
        "log_freq": str(log_freq),
        "num_workers": str(args.decoders),
        "output_dir": str(output_dir),
        "save_checkpoint": "false",
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _rate_of_ours(args: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        every_core = json.dumps({"CPU": os.cpu_count()})  # as torch computes where nobody says otherwise
        flags = [
            *_flags(args, Path(folder) / "run"),
            "--mlflow.enable=false",
            f"--ray.resources_per_worker={every_core}",
        ]
        _run([sys.executable, "-m", "lerobot_ray.train", *flags], folder)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    rates = [entry["train/samples_per_s"] for line in lines if "train/samples_per_s" in (entry := json.loads(line))]
    return statistics.harmonic_mean(rates[1:])


def _rate_of_theirs(args: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        flags = [*_flags(args, Path(folder) / "run"), "--wandb.enable=false"]
        said = _run([args.peer_python, "-m", "lerobot.scripts.lerobot_train", *flags], folder)
    times = [float(update) + float(data) for update, data in re.findall(r"updt_s:([\d.]+) data_s:([\d.]+)", said)]
    return args.batch / statistics.mean(times[1:])


def _run(command: list[str], folder: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "HF_HOME": folder}
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def kill(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One worker, SIGKILLed twice; the next step is that of the newest checkpoint, so the times are of the restart."""
    import psutil

    def entries(path: Path) -> list[dict[str, Any]]:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def steps_of_start(path: Path, number: int) -> int:
        """Steps logged since the workers were started for the `number`th time."""
        starts = [place for place, entry in enumerate(entries(path)) if entry.get("event") == "start"]
        if len(starts) < number:
            return 0
        return sum("train/loss" in entry for entry in entries(path)[starts[number - 1] :])

    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run" / "metrics.jsonl"
        flags = [
            flag for flag in _flags(args, Path(folder) / "run") if not flag.startswith(("--save", "--log", "--steps"))
        ]
        flags += ["--save_freq=5", "--log_freq=1", "--steps=100000", "--mlflow.enable=false", "--keep_last=2"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "lerobot_ray.train", *flags]
        said = Path(folder) / "said.txt"
        with said.open("wb") as out:
            driver = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        seconds = []

        def has_trained(start: int, steps: int) -> bool:
            if driver.poll() is not None:
                raise SystemExit(f"the run ended with {driver.returncode}: {said.read_text()[-2000:]}")
            return steps_of_start(metrics, start) >= steps

        try:
            for number in (1, 2):
                _wait(functools.partial(has_trained, number, 8))
                processes = psutil.Process(driver.pid).children(recursive=True)
                (worker,) = [child for child in processes if child.name().startswith("ray::RayTrainWo")]
                killed = time.monotonic()
                worker.kill()
                _wait(functools.partial(has_trained, number + 1, 1))
                seconds.append(round(time.monotonic() - killed, 1))
        finally:
            for number in (signal.SIGINT, signal.SIGINT):
                driver.send_signal(number)
                time.sleep(2)
            driver.wait(120)
    return [{"from_kill_to_next_step_s": seconds}]


def _wait(condition: Callable[[], bool], within_s: float = 400.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("it did not happen in time")
        time.sleep(0.05)


# The driver and the controller


def controller(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Workers that do nothing but give signs of life and report once a second, as a run with a fast log would."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import psutil
    import ray
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from lerobot_ray.on_ray.board import start_board

    ray.init(address="local", num_cpus=max(args.workers), include_dashboard=False, log_to_driver=False)
    rows = []
    for workers in args.workers:
        board = start_board()
        with tempfile.TemporaryDirectory() as folder:
            trainer = DataParallelTrainer(
                _idle_worker,
                train_loop_config={"board": board, "seconds": 20},
                scaling_config=ray.train.ScalingConfig(num_workers=workers),
                run_config=ray.train.RunConfig(name=f"idle-{workers}", storage_path=folder),
            )
            thread = threading.Thread(target=trainer.fit)
            started = time.monotonic()
            thread.start()
            _wait(lambda board=board: any(kind == "step" for kind, _ in ray.get(board.take.remote())))
            start_s = time.monotonic() - started
            me = psutil.Process()
            processes = {
                "driver": me,
                "controller": next(p for p in me.children(recursive=True) if p.name().startswith("ray::TrainContr")),
            }
            before = {name: _cpu_s(process) for name, process in processes.items()}
            began = time.monotonic()
            while time.monotonic() - began < 10:
                time.sleep(0.3)
                ray.get(board.take.remote())
            took = time.monotonic() - began
            percent = {name: 100 * (_cpu_s(process) - before[name]) / took for name, process in processes.items()}
            thread.join()
        rows.append(
            {"workers": workers, "start_s": round(start_s, 1)}
            | {f"{k}_cpu_percent": round(v, 1) for k, v in percent.items()}
        )
    ray.shutdown()
    return rows


def _cpu_s(process: Any) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _idle_worker(arguments: dict[str, Any]) -> None:
    import ray.train

    from lerobot_ray.on_ray.pulse import Pulse

    rank, board = ray.train.get_context().get_world_rank(), arguments["board"]
    with Pulse("a", rank, "here", step=0, post=board.beat.remote) as pulse:
        for step in range(arguments["seconds"]):
            pulse.at("training", step=step)
            if rank == 0:
                board.post.remote("step", step)
            ray.train.report({"step": step})
            time.sleep(1)


# Memory


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """200 M parameters in blocks, three steps of AdamW; what the process held after a tiny model's step is taken off.

    Freed memory is given back at once (MALLOC_MMAP_THRESHOLD_), as a GPU's allocator would count it.
    """
    import torch.multiprocessing

    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    rows = []
    for shards in args.shards:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_shard_worker, (shards, folder), nprocs=shards)
            peaks = [float((Path(folder) / str(rank)).read_text()) for rank in range(shards)]
        rows.append({"shards": shards, "peak_gb_per_rank": [round(peak, 2) for peak in sorted(peaks)]})
    return rows


def _shard_worker(rank: int, shards: int, folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=shards)
    _steps_of(4, 64, shards)  # brings in what torch imports on the way
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _steps_of(48, 2048, shards)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (Path(folder) / str(rank)).write_text(str((peak - before) * 1024 / 1e9))
    torch.distributed.destroy_process_group()


def _steps_of(layers: int, width: int, shards: int) -> None:
    import torch

    from lerobot_ray.config.parallel import AcceleratorConfig, FsdpConfig, ParallelismConfig
    from lerobot_ray.engine.parallel import place

    policy = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(width, width)) for _ in range(layers)))
    placed = place(
        policy,
        device=torch.device("cpu"),
        world_size=shards,
        parallelism=ParallelismConfig(dp_shard=shards),
        accelerator=AcceleratorConfig(fsdp=FsdpConfig(wrap_modules=["Linear"])),
    )
    forward: Any = placed.forward
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, foreach=False)
    for _ in range(3):
        forward(torch.ones(4, width)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


# Writing it down


def machine() -> dict[str, Any]:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": __import__("ray").__version__,
        "load_before": round(os.getloadavg()[0], 1),
    }


def markdown(results: dict[str, Any]) -> str:
    lines = ["# What training costs beside the model", ""]
    for part, result in results.items():
        rows = result["rows"]
        names = list(rows[0])
        about = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
        lines += [f"## {part}", "", f"`{result['command']}`", "", about, ""]
        lines += [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
        lines += [f"| {' | '.join(_cell(row.get(name)) for name in names)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "loop": loop,
    "checkpoint": checkpoint,
    "end-to-end": end_to_end,
    "kill": kill,
    "controller": controller,
    "memory": memory,
}

if __name__ == "__main__":
    main()
