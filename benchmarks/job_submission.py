"""From the submission of a job to its first trained step, and what following its log costs.

    python benchmarks/job_submission.py [--runs 3] [--json OUT]

Starts a head of its own on this machine. Times the same tiny run as a job (everything `submit` does, from its start to
the arrival of the first step's line) and as a driver on the same cluster without a job; then the delay between a line
being printed in a job and its arrival here, the time for a long log, and the processor time of the one who follows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lerobot_ray.on_ray.job_server import JobServer
from tests.jobs.heads import Head, running_head
from tests.make_dataset import make_dataset
from tests.on_ray.runs import TINY_ACT

LONG_LOG = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, running_head() as head:
        root = make_dataset(Path(folder) / "toy")
        flags = ["--dataset.repo_id=bench/toy", f"--dataset.root={root}", *TINY_ACT, "--batch_size=4", "--steps=3"]
        flags += ["--log_freq=1", "--mlflow.enable=false"]
        found["job_first_step_s"] = [first_step(head, ["submit", "--", *flags], folder) for _ in range(arguments.runs)]
        found["driver_first_step_s"] = [
            first_step(head, ["train", *flags, "--ray.address=auto"], folder) for _ in range(arguments.runs)
        ]
        found.update(following(JobServer(head.address)))
    for name, value in found.items():
        print(f"{name:22} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


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


def following(server: JobServer) -> dict[str, object]:
    """Delays of single lines; seconds, and processor seconds here, for a long log."""
    delays: list[float] = []

    def note(text: str) -> None:
        delays.extend(time.time() - float(line[2:]) for line in text.splitlines() if line.startswith("t "))

    code = "import time\nfor _ in range(80): print('t', time.time(), flush=True); time.sleep(0.1)"
    server.follow(start(server, code), note)
    cpu, began = time.process_time(), time.monotonic()
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
        "lines": lines,
    }


def start(server: JobServer, code: str) -> str:
    job_id = f"bench-{os.urandom(3).hex()}"
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(code)
    server.submit(f"exec {sys.executable} -u {file.name}", submission_id=job_id, runtime_env={}, metadata={})
    return job_id


if __name__ == "__main__":
    main()
