"""Training as jobs: the command as a person types it, on a real head."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.on_ray.runs import checkpoint, starts, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
README = Path(__file__).parents[2] / "README.md"


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


def test_rays_own_command(head, flags, tmp_path):
    ray = Path(sys.executable).with_name("ray")
    words = [ray, "job", "submit", "--address", head.address, "--working-dir", ".", "--"]
    done = subprocess.run(
        [*words, "python", "-m", "lerobot_ray.train", *flags, "--steps=2"],
        cwd=tmp_path,
        env=dict(head.environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 2/2" in done.stdout
    assert checkpoint(tmp_path / "out", 2).is_dir()


@pytest.mark.hub
def test_from_another_machine_with_a_dataset_and_a_checkpoint_that_are_only_there(head, hub, flags, toy_root, tmp_path):
    """Dataset and checkpoint go through the Hub; a repository of the Hub is continued in place."""
    laptop = {"HF_HOME": str(tmp_path / "laptop"), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": os.environ["HF_TOKEN"]}
    head = replace(head, environment={**head.environment, **laptop, "HF_HUB_DISABLE_XET": "1"})

    def run(name, *words):
        words = ["--address", head.address, "--", *words, f"--output_dir={tmp_path / name}"]
        done = head.run(*words, cwd=tmp_path, host="laptop")
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    fresh = [*flags, "--dataset.repo_id=alice/toy", "--steps=2", "--policy.repo_id=alice/act", "--policy.private=true"]
    said = run("first", *fresh, "--save_checkpoint_to_hub=true").stderr
    assert f"{toy_root} is only here and is pushed, privately, to the Hub as alice/toy" in said
    assert hub.store.repos["dataset", "alice/toy"].private
    assert sorted(hub.store.repos["model", "alice/act"].tags) == ["000002"]

    done = run("second", "--config_path=alice/act", "--resume=true", "--steps=4")
    assert "resumes alice/act, from the Hub" in done.stderr
    assert starts(tmp_path / "second") == [2], done.stdout
    assert checkpoint(tmp_path / "second", 4).is_dir()
    assert sorted(hub.store.repos["model", "alice/act"].tags) == ["000002", "000004"]

    done = run("third", f"--config_path={tmp_path / 'second'}", "--resume=true", "--steps=6")
    repo_id = re.search(r"000004 is only here and is uploaded to the private repository (\S+)", done.stderr)[1]
    assert sorted(hub.store.repos["model", repo_id].tags) == ["000004"]
    assert starts(tmp_path / "third") == [4], done.stdout
    assert checkpoint(tmp_path / "third", 6).is_dir()
