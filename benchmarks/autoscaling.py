"""From a request to the first step on a cluster that has nothing yet: nodes come, training starts, nodes go.

    python benchmarks/autoscaling.py --json OUT.json    (writes OUT.md beside it)

A real Ray head with Ray's own autoscaler (version 2), whose provider starts raylets on this machine in place of cloud
machines (`tests/fake_cloud.py`): so the times are those of asking, deciding, joining and starting, without the minutes
that a cloud takes for a machine. The run is a tiny ACT on a made-up dataset. It wants two workers with an
accelerator each (a resource that is counted, and nothing else) and decode actors, for which the nodes of the workers
have no CPU to spare.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray

from tests.fake_cloud import fake_cloud
from tests.make_dataset import make_dataset
from tests.on_ray.runs import command

NODE_TYPES = {
    "train": {"resources": {"CPU": 1, "accelerator": 1}, "min_workers": 0, "max_workers": 2},
    "decode": {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 1},
}
WORKER = '{"CPU": 1, "accelerator": 1}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--idle-s", type=float, default=10.0, help="how long a node may be idle")
    parser.add_argument("--within-s", type=float, default=300.0, help="give up after this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoscaling_") as folder:
        story = tell(Path(folder), steps=arguments.steps, idle_s=arguments.idle_s, within_s=arguments.within_s)
    print("\n".join(f"{text:>8}  {what}" for what, text in lines(story)))
    if arguments.json:
        arguments.json.write_text(json.dumps(story, indent=1))
        arguments.json.with_suffix(".md").write_text(page(story, idle_s=arguments.idle_s, steps=arguments.steps))


def tell(folder: Path, *, steps: int, idle_s: float, within_s: float) -> dict[str, Any]:
    """What happened, in seconds since the run was started; the run's own words; what a run too large is told."""
    root = make_dataset(folder / "toy")
    with fake_cloud(NODE_TYPES, idle_s=idle_s, most=3) as address:
        deadline = time.monotonic() + within_s
        connect(address, deadline)
        flags = [f"--steps={steps}", "--num_workers=1", "--ray.num_workers=2", f"--ray.resources_per_worker={WORKER}"]
        log = folder / "run.log"
        started = time.monotonic()
        with log.open("w") as out:
            run = start(command(root, folder / "run", *flags, *where(address)), out)
        processes = [run]

        def while_nodes_are_idle() -> None:
            processes.append(start_too_large(root, folder / "too_large", address))

        try:
            story: dict[str, Any] = {"events": watch(run, log, started, deadline, when_over=while_nodes_are_idle)}
            said = processes[-1].communicate(timeout=150)[1].strip().splitlines()
            story["too_large"] = f"{processes[-1].returncode} {said[-1]}"
        finally:
            for process in processes:
                process.kill()
                process.wait()
            ray.shutdown()  # before the head goes, whose end would end this process too
        return {**story, "exit_code": run.returncode, "log": log.read_text()}


def where(address: str) -> list[str]:
    return [f"--ray.address={address}", "--save_freq=1000"]


def start(arguments: list[str], out: Any) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "lerobot_ray.train", *arguments], stdout=out, stderr=out)


def connect(address: str, deadline: float) -> None:
    """As soon as the head answers."""
    while True:
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            break
        except ConnectionError:
            assert time.monotonic() < deadline, "the head did not come up"
            time.sleep(0.5)


def start_too_large(root: Path, output_dir: Path, address: str) -> subprocess.Popen:
    """A run that can never fit, which is told so."""
    flags = ["--ray.num_workers=3", f"--ray.resources_per_worker={WORKER}", *where(address)]
    arguments = [sys.executable, "-m", "lerobot_ray.train", *command(root, output_dir, *flags)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def watch(
    run: subprocess.Popen, log: Path, started: float, deadline: float, *, when_over: Callable[[], None]
) -> list[tuple[float, str]]:
    """(seconds, event) until the run is over and only the head is left."""
    events: list[tuple[float, str]] = []
    before: dict[str, int] = {}
    first_step = over = False
    while True:
        now = round(time.monotonic() - started, 1)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count = {
            "train": sum(bool(node.get("accelerator")) for node in nodes),
            "decode": sum(bool(node.get("CPU")) and not node.get("accelerator") for node in nodes),
        }
        changes = [(now, f"{count[name]} {name} nodes") for name in count if count[name] != before.get(name, 0)]
        before = count
        if not first_step and "step 1/" in log.read_text():
            first_step = True
            changes.append((now, "first step"))
        if not over and run.poll() is not None:
            over = True
            changes.append((now, "run over"))
            when_over()
        for at, what in changes:
            print(f"{at:.1f} s: {what}", file=sys.stderr, flush=True)
        events += changes
        if over and not any(count.values()):
            return events
        assert time.monotonic() < deadline, f"it did not end in time: {events}\n{log.read_text()}"
        time.sleep(0.2)


def page(story: dict[str, Any], *, idle_s: float, steps: int) -> str:
    """The story as a page."""
    rows = "\n".join(f"| {what} | {at} |" for what, at in lines(story))
    waited = "\n".join(line for line in story["log"].splitlines() if line.startswith("waiting for"))
    return f"""# A cluster grows for a run and shrinks after it

`benchmarks/autoscaling.py --steps={steps} --idle-s={idle_s:g}`, raw numbers in the JSON file of the same name.
{os.cpu_count()} cores, Ray {ray.__version__}: a real head with Ray's autoscaler (version 2), which starts nodes on this
machine in place of cloud machines. So a cloud's minutes for a machine are not in here; the nodes share the cores of the
machine with the run.

The run asks for two workers with an accelerator each, where no node is, and for decode actors, for which nodes that
train have no CPU left.

| event | since the command |
| --- | --- |
{rows}

What the run said meanwhile:

```text
{waited}
```

A run that can never fit was told (exit code and message):

```text
{story["too_large"]}
```
"""


def lines(story: dict[str, Any]) -> list[tuple[str, str]]:
    return [(what, f"{at:.1f} s") for at, what in story["events"]]


if __name__ == "__main__":
    main()
