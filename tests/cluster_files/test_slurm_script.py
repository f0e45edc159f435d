"""`clusters/slurm/train.sbatch` executed: real bash, real Ray, real training; Slurm's own commands stand in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.namespaces import in_own_processes
from tests.on_ray.runs import TINY_ACT, checkpoint, reached, starts, wait_until

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm" / "train.sbatch"
SRUN = """#!/bin/bash
# The tasks of a job step: one per node, or one where a node is named; each claims a GPU. All nodes are this machine, so
# they start in turn: two at once would give their sockets the same name.
echo "$*" >> "$STAND_IN/steps"
nodes=$SLURM_JOB_NUM_NODES gpus=1
while [[ $1 == --* ]]; do
  case $1 in --nodelist=*) nodes=1;; --gpus=0) gpus=0;; esac
  shift
done
sockets() { ls "$RAY_TMPDIR/ray/session_latest/sockets" 2> /dev/null | grep -c ^raylet; }
for ((node = 0; node < nodes; node++)); do
  until ((nodes == 1 || $(sockets) > node)); do sleep 0.2; done
  RAY_OVERRIDE_RESOURCES="{\\"GPU\\": $gpus, \\"object_store_memory\\": 100000000}" SLURM_NODEID=$node "$@" &
done
trap 'kill $(jobs -p)' TERM
wait; wait
"""
SCONTROL = """#!/bin/bash
[[ "$*" == "show hostnames node[1-2]" ]] && hostname && hostname
"""
FIRST_PROCESS = """
import json, os, subprocess, sys, time
import psutil

code = subprocess.Popen(["bash", *sys.argv[1:]]).wait()
deadline = time.monotonic() + 60
while True:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    others = [one.info for one in psutil.process_iter(["cmdline", "status"]) if one.pid != os.getpid()]
    left = [" ".join(one["cmdline"] or ["?"]) for one in others if one["status"] != psutil.STATUS_ZOMBIE]
    if not left or time.monotonic() > deadline:
        break
    time.sleep(0.2)
print("LEFT " + json.dumps(left), flush=True)
sys.exit(code)
"""


@pytest.fixture
def slurm(tmp_path):
    """Starts the script as sbatch does: its parameters set, Slurm's variables in the environment."""
    text = SCRIPT.read_text()
    for mark, value in {
        "<SET: a folder all nodes see, e.g. /scratch/$USER/lerobot>": str(tmp_path),
        "<SET: path of the virtual environment>": sys.prefix,
    }.items():
        assert mark in text, "the script has changed: change this with it"
        text = text.replace(mark, value)
    script = tmp_path / "train.sbatch"
    script.write_text(text)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(body)
        (commands / name).chmod(0o755)
    sockets = tempfile.mkdtemp(prefix="lrs_", dir="/tmp")  # short: paths of sockets may have 107 characters
    own = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "STAND_IN": str(tmp_path),
        "RAY_TMPDIR": sockets,
        "TMPDIR": sockets,
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_PER_NODE": "a100:1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    environment = {**os.environ, **own}
    started = []

    def start(*flags):
        words = in_own_processes(sys.executable, "-c", FIRST_PROCESS, str(script), *flags)
        out = tmp_path / f"slurm-{len(started)}.out"
        with out.open("w") as file:
            started.append(subprocess.Popen(words, env=environment, stdout=file, stderr=file))
        return started[-1], out

    yield start
    for process in started:
        process.kill()  # and with it all that it has started
        process.wait()
    shutil.rmtree(sockets, ignore_errors=True)


def end_of(process, out):
    """(exit code, processes that were left when the script was over)."""
    code = process.wait(240)
    (left,) = [line[5:] for line in out.read_text().splitlines() if line.startswith("LEFT ")]
    return code, json.loads(left)


@pytest.mark.ray
@pytest.mark.slow
def test_two_nodes_train_are_warned_and_go_on_when_requeued(slurm, toy_root, tmp_path):
    flags = ["--dataset.repo_id=tests/toy", f"--dataset.root={toy_root}", *TINY_ACT, "--batch_size=2", "--log_freq=1"]
    flags += [
        "--ray.use_gpu=false",
        '--ray.resources_per_worker={"CPU": 1}',
        "--save_freq=100000",
        "--mlflow.enable=false",
    ]
    run, script = tmp_path / "runs" / "4711" / "run", str(tmp_path / "train.sbatch")
    process, out = slurm(*flags, "--steps=100000")
    wait_until(lambda: process.poll() is not None or reached(run, 2), within_s=300)
    (batch,) = [
        one for one in psutil.Process(process.pid).children(recursive=True) if one.cmdline()[:2] == ["bash", script]
    ]
    batch.send_signal(signal.SIGTERM)  # as Slurm does two minutes before the time limit
    assert end_of(process, out) == (143, []), out.read_text()
    assert "workers  2 × CPU, the cluster" in out.read_text()
    (saved,) = sorted((run / "checkpoints").glob("0*"))
    steps = (tmp_path / "steps").read_text().splitlines()
    assert len(steps) == 2
    assert "--head" in steps[0]
    assert "--num-cpus=0" in steps[0]
    assert (tmp_path / "runs" / "4711" / "auth_token").stat().st_mode & 0o077 == 0

    again, out = slurm(*flags, f"--steps={int(saved.name) + 2}")
    assert end_of(again, out) == (0, []), out.read_text()
    assert starts(run) == [0, int(saved.name)]
    assert checkpoint(run, int(saved.name) + 2).is_dir()


@pytest.mark.ray
@pytest.mark.slow
def test_a_head_that_cannot_start_ends_the_script(slurm, tmp_path):
    """In place of a wait that only the time limit would end."""
    (tmp_path / "bin" / "srun").write_text("#!/bin/bash\necho srun: error: no such node >&2\nexit 1\n")
    process, out = slurm("--steps=1")
    assert end_of(process, out) == (1, [])
    assert "no such node" in out.read_text()
    assert "error: Ray has ended on a node" in out.read_text()
