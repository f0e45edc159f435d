"""Training as jobs: the command as a person types it, on a real head."""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.on_ray.runs import TINY_ACT, checkpoint, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def flags(toy_root, tmp_path):
    return [
        *("--dataset.repo_id=tests/toy", f"--dataset.root={toy_root}", f"--output_dir={tmp_path / 'out'}"),
        *(*TINY_ACT, "--batch_size=4", "--log_freq=1", "--mlflow.enable=false"),
    ]


def commands_of_readme():
    """The words after `lerobot_ray.submit` in the README's cluster section."""
    section = README.read_text(encoding="utf-8").partition("## On a cluster")[2].partition("\n## ")[0]
    lines = [line.partition("#")[0].split() for line in section.splitlines()]
    return [line[3:] for line in lines if line[:3] == ["python", "-m", "lerobot_ray.submit"]]


def test_the_three_commands_of_the_readme_and_resume(head, flags, tmp_path):
    """Submitted, left with Ctrl-C, followed again, stopped with a checkpoint, resumed. Later flags put a small dataset
    and policy in place of the README's."""
    submit, logs, stop = commands_of_readme()
    head = replace(head, environment={**head.environment, "RAY_API_SERVER_ADDRESS": head.address})
    first = head.start(*submit, *flags, "--steps=5000", cwd=tmp_path)
    shown = []
    for line in first.stdout:
        shown.append(line)
        if line.startswith("step 2/"):
            break
    assert first.poll() is None, "".join(shown)
    first.send_signal(signal.SIGINT)
    rest, _ = first.communicate(timeout=60)
    assert first.returncode == 130, rest
    job_id = re.search(r"submit stop (\S+) --address", rest)[1]
    assert f"{job_id} goes on" in rest

    following = head.start(*logs, cwd=tmp_path)
    stopped = head.run(*stop, cwd=tmp_path)
    assert job_id in stopped.stderr
    seen, _ = following.communicate(timeout=60)
    assert following.returncode == 143, seen
    assert "step 1/5000" in seen
    (saved,) = sorted((tmp_path / "out" / "checkpoints").glob("0*"))
    reached = int(saved.name)

    again = head.run("resume", "--", f"--steps={reached + 2}", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert checkpoint(tmp_path / "out", reached + 2).is_dir()
    assert "step 1/" not in again.stdout


def test_a_killed_job_is_submitted_again_and_goes_on(head, flags, tmp_path):
    following = head.start(
        *("--address", head.address, "--retries=1", "--", *flags, "--steps=40", "--save_freq=5"), cwd=tmp_path
    )
    wait_until(lambda: checkpoint(tmp_path / "out", 5).is_dir(), within_s=150)
    for process in psutil.Process(head.pid).children(recursive=True):
        if "lerobot_ray.train" in process.cmdline():
            process.kill()
    shown, _ = following.communicate(timeout=200)
    assert following.returncode == 0, shown
    assert "submitted again as" in shown
    assert checkpoint(tmp_path / "out", 40).is_dir()
