"""From the submission of a job to its first trained step, what following its log costs, and its driver's memory.

    python benchmarks/job_submission.py [--runs 3] [--phase-s 30] [--json OUT.json]    (writes OUT.md beside it)

Starts a head of its own on this machine. Times the same tiny run as a job (everything `submit` does, from its start to
the arrival of the first step's line) and as a driver on the same cluster without a job. Then the delay between a line
being printed in a job and its arrival here, the time for a long log, and the processor time of who follows and of
the head's processes that hand the log on. Last a long run that logs every step, followed in every other phase: its
pace with and without, and the memory of its driver over time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lerobot_ray.on_ray.job_server import JobServer
from tests.jobs.heads import Head, running_head
from tests.make_dataset import make_dataset
from tests.on_ray.runs import TINY_ACT

LONG_LOG = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--phase-s", type=float, default=30.0, help="length of a phase of the long run; there are six")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version(), "ray": version("ray")}
    with tempfile.TemporaryDirectory() as folder, running_head() as head:
        root = make_dataset(Path(folder) / "toy")
        flags = ["--dataset.repo_id=bench/toy", f"--dataset.root={root}", *TINY_ACT, "--batch_size=4", "--steps=3"]
        flags += ["--log_freq=1", "--mlflow.enable=false"]
        for part in (
            lambda: first_steps(head, flags, folder, runs=arguments.runs),
            lambda: following(head, JobServer(head.address)),
            lambda: long_run(head, flags, folder, phase_s=arguments.phase_s),
        ):
            found.update(part())
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.with_suffix(".md").write_text(page(found))
    for name, value in found.items():
        print(f"{name:22} {value}")


def page(found: dict[str, Any]) -> str:
    """The figures as a page."""
    apart, together = (
        statistics.median(phase["ms_per_step"] for phase in found["long_run_phases"] if phase["followed"] == followed)
        for followed in (False, True)
    )
    first, median, last = found["driver_rss_mb_first_median_last"]
    growth = found["driver_rss_mb_per_1000_steps_in_the_second_half"]
    phases = ", ".join(
        f"{phase['ms_per_step']}{' (followed)' if phase['followed'] else ''}" for phase in found["long_run_phases"]
    )
    return f"""# What a job costs beside the run

`benchmarks/job_submission.py`, raw numbers in the JSON file of the same name. {found["cores"]} cores, Python
{found["python"]}, Ray {found["ray"]}, a head of its own on the same machine; a tiny ACT (dim 16, ResNet-18 from
scratch) on 72 frames, batch 4.

| from the command to the first trained step, warm cluster | seconds |
| --- | --- |
| as a job, `lerobot_ray.submit` | {listed(found["job_first_step_s"])} |
| as a driver on the same cluster, `lerobot_ray.train --ray.address=auto` | {listed(found["driver_first_step_s"])} |

The difference is the submission: checks, uploading the package, an environment and a process for the job.

| following a log | |
| --- | --- |
| from a line's printing in the job to its arrival, median | {found["line_delay_s_median"]} s |
| the longest of them | {found["line_delay_s_most"]} s |
| {LONG_LOG} lines at once | {found[f"{LONG_LOG}_lines_s"]} s |
| processor time of who follows, for those | {found[f"{LONG_LOG}_lines_cpu_s"]} s |
| of the head's dashboard and agent | {found[f"{LONG_LOG}_lines_cpu_of_servers_s"]} s |

A run that logs every step, alternately left alone and followed, in ms per step:
{phases}.
Medians: {apart:g} alone, {together:g} followed.

Memory of the driver over {found["long_run_steps"]} logged steps in {found["long_run_s"]} s: {first} MB after its start,
{median} MB in the middle, {last} MB at the end; in the second half {growth} MB more per 1000 steps.
"""


def listed(values: list[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)


def first_steps(head: Head, flags: list[str], folder: str, *, runs: int) -> dict[str, object]:
    """Seconds to the first step, as a job and as a driver, in turn."""
    jobs, drivers = [], []
    for _ in range(runs):
        jobs.append(first_step(head, ["submit", "--", *flags], folder))
        drivers.append(first_step(head, ["train", *flags, "--ray.address=auto"], folder))
    return {"job_first_step_s": jobs, "driver_first_step_s": drivers}


def first_step(head: Head, words: list[str], folder: str) -> float:
    """Seconds from starting the command to the line of its first step."""
    began = time.monotonic()
    environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.address, "RAY_ADDRESS": head.gcs_address}
    with subprocess.Popen(
        [sys.executable, "-m", f"lerobot_ray.{words[0]}", *words[1:]],
        cwd=tempfile.mkdtemp(dir=folder),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        at = None
        said = []
        for line in process.stdout:
            said.append(line)
            if at is None and line.startswith("step 1/"):
                at = time.monotonic() - began
    assert process.returncode == 0, "".join(said)
    assert at is not None
    return round(at, 1)


def following(head: Head, server: JobServer) -> dict[str, object]:
    """Delays of single lines; seconds, and processor seconds here and of the head's servers, for a long log."""
    delays: list[float] = []

    def note(text: str) -> None:
        delays.extend(time.time() - float(line[2:]) for line in text.splitlines() if line.startswith("t "))

    code = "import time\nfor _ in range(80): print('t', time.time(), flush=True); time.sleep(0.1)"
    server.follow(start(server, code), note)
    cpu, servers, began = time.process_time(), cpu_of_servers(head), time.monotonic()
    lines = 0

    def count(text: str) -> None:
        nonlocal lines
        lines += text.count("\n")

    server.follow(start(server, f"for i in range({LONG_LOG}): print('step', i, 'loss 0.123 and so on' * 4)"), count)
    return {
        "line_delay_s_median": round(statistics.median(delays), 2),
        "line_delay_s_most": round(max(delays), 2),
        f"{LONG_LOG}_lines_s": round(time.monotonic() - began, 1),
        f"{LONG_LOG}_lines_cpu_s": round(time.process_time() - cpu, 2),
        f"{LONG_LOG}_lines_cpu_of_servers_s": round(cpu_of_servers(head) - servers, 2),
        "lines": lines,
    }


def cpu_of_servers(head: Head) -> float:
    """Processor seconds so far of the dashboard and of the node's agent: a log passes through both."""
    total = 0.0
    for process in psutil.Process(head.pid).children(recursive=True):
        if any("dashboard" in word for word in process.cmdline()[:4]):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def long_run(head: Head, flags: list[str], folder: str, *, phase_s: float) -> dict[str, object]:
    """Six phases of a run that logs every step, nobody following in the first, third and fifth."""
    output_dir = Path(folder) / "long"
    own = [*(flag for flag in flags if not flag.startswith("--steps")), "--steps=1000000", "--save_freq=1000000"]
    words = [sys.executable, "-m", "lerobot_ray.submit"]
    shell = {"env": {**head.environment, "RAY_API_SERVER_ADDRESS": head.address}, "text": True, "cwd": folder}
    left = subprocess.run(
        [*words, "--detach", "--", *own, f"--output_dir={output_dir}"], capture_output=True, check=True, **shell
    )
    match = re.search(r"submitted (\S+) to", left.stderr)
    assert match is not None, left.stderr
    metrics = output_dir / "metrics.jsonl"
    while not metrics.exists() or steps_in(metrics) < 5:
        time.sleep(0.5)
    driver = next(
        process
        for process in psutil.Process(head.pid).children(recursive=True)
        if "lerobot_ray.train" in process.cmdline() and process.cmdline()[0] == sys.executable
    )
    phases, memory, began = [], [], time.monotonic()
    for number in range(6):
        follower = None
        if number % 2:
            follower = subprocess.Popen([*words, "logs", match[1]], stdout=subprocess.DEVNULL, **shell)
            time.sleep(8)  # its own start is not meant
        first, since = steps_in(metrics), time.monotonic()
        while time.monotonic() - since < phase_s:
            time.sleep(1)
            memory.append((time.monotonic() - began, steps_in(metrics), driver.memory_info().rss / 1e6))
        count = steps_in(metrics) - first
        phases.append(
            {"followed": bool(number % 2), "ms_per_step": round(1000 * (time.monotonic() - since) / count, 1)}
        )
        if follower is not None:
            follower.kill()
            follower.wait()
    subprocess.run([*words, "stop", match[1]], capture_output=True, check=True, **shell)
    seconds, steps, megabytes = np.array(memory).T
    half = len(steps) // 2
    return {
        "long_run_phases": phases,
        "long_run_steps": int(steps[-1]),
        "long_run_s": round(float(seconds[-1])),
        "driver_rss_mb_first_median_last": [
            round(float(v)) for v in (megabytes[0], np.median(megabytes), megabytes[-1])
        ],
        "driver_rss_mb_per_1000_steps_in_the_second_half": round(
            float(np.polyfit(steps[half:], megabytes[half:], 1)[0]) * 1000, 2
        ),
    }


def steps_in(metrics: Path) -> int:
    """Lines of a run's metrics: one per step where every step is logged."""
    with metrics.open("rb") as file:
        return sum(1 for _ in file)


def start(server: JobServer, code: str) -> str:
    job_id = f"bench-{os.urandom(3).hex()}"
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(code)
    server.submit(f"exec {sys.executable} -u {file.name}", submission_id=job_id, runtime_env={}, metadata={})
    return job_id


if __name__ == "__main__":
    main()
