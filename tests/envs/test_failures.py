"""An environment that fails in an episode costs that episode and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lerobot_ray.core.errors import EnvError
from lerobot_ray.envs.hosts import open_hosts, those_ready
from lerobot_ray.envs.rollout import play
from lerobot_ray.envs.summary import summarise
from tests.envs.actors_for_tests import IN_NUMBERS, Blind, Expert, unchanged
from tests.envs.envs_for_tests import troubled


def results(env, episodes=range(6), **options):
    options = {"batch_size": 2, "use_async_envs": True, **options}
    return play(env, Blind(), unchanged, unchanged, episodes=episodes, **options)


def test_crashes_and_hangs_are_reported_and_the_others_go_on():
    fine = results(troubled())
    env = troubled(raises=[1], dies=[2], dies_in_reset=[4], hangs=[5])
    played = results(env, env_timeout_s=5)
    errors = [result.error for result in played]
    assert errors[0] is errors[3] is None
    assert errors[1] == "RuntimeError: the gripper is on fire"
    assert errors[2] == "the environment's process ended in step (signal SIGKILL)"
    assert errors[4].startswith("the environment's process ended in")
    assert errors[4].endswith("(exit code 7)")
    assert errors[5] == "step took more than 5 s"
    assert [played[0], played[3]] == [fine[0], fine[3]]
    assert [result.length for result in played] == [5, 2, 2, 5, 0, 2]
    overall = summarise(played).overall
    assert (overall.n_episodes, overall.n_failed, overall.pc_success) == (2, 4, None)


def test_an_exception_in_this_process_is_reported_too():
    played = results(troubled(raises=[1]), range(3), use_async_envs=False)
    assert [result.error for result in played] == [None, "RuntimeError: the gripper is on fire", None]


def test_a_failed_episode_keeps_its_video_and_leaves_no_recording(tmp_path):
    env = troubled(raises=[0], render_mode="rgb_array")
    options = {"video_dir": tmp_path, "videos": 1, "recording": tmp_path / "rollouts", "use_async_envs": False}
    played = results(env, [0, 1], **options)
    assert Path(played[0].video).stat().st_size > 0
    assert [path.name[-1] for path in (tmp_path / "rollouts" / ".episodes").iterdir()] == ["1"]


def test_an_action_that_is_not_a_number_ends_its_episode():
    class Broken(Blind):
        def select_action(self, batch):
            return super().select_action(batch) * float("nan")

    played = play(troubled(), Broken(), unchanged, unchanged, episodes=range(4), batch_size=2, use_async_envs=False)
    assert [result.error for result in played] == ["the policy's action at step 0 is [nan, nan]"] * 4


def test_an_environment_that_cannot_be_built_there_is_an_error_before_anything_is_played():
    seen = []
    with pytest.raises(EnvError, match="gymnasium knows no environment"):
        results(troubled("tests.envs.envs_for_tests:lerobot_ray_tests/Trubled-v0"), on_episode=seen.append)
    assert not seen


def test_an_environment_that_says_one_shape_and_gives_another():
    played = results(troubled("tests.envs.envs_for_tests:lerobot_ray_tests/Bad-v0"), [0], use_async_envs=False)
    assert "gives agent_pos of shape [4], and says it is [2]" in played[0].error


def test_a_policy_that_raises_stops_everything_and_leaves_nothing(tmp_path):
    class Raises(Expert):
        def select_action(self, batch):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        play(IN_NUMBERS, Raises(), unchanged, unchanged, episodes=[0], video_dir=tmp_path, videos=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_environment_processes_end_with_their_owner():
    code = (
        "import os, tests.envs.envs_for_tests\n"
        "from lerobot_ray.envs.hosts import open_hosts, those_ready\n"
        "from tests.envs.actors_for_tests import IN_NUMBERS\n"
        "hosts = open_hosts(IN_NUMBERS, 1, is_async=True, timeout_s=60)\n"
        "hosts[0].ask_spec(); those_ready(hosts); hosts[0].answer()\n"
        "print(hosts[0]._process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "the environment outlived the program that asked it"
        time.sleep(0.05)


def test_closing_ends_a_process_that_hangs():
    (host,) = open_hosts(troubled(hangs=[0]), 1, is_async=True, timeout_s=600)
    host.ask_reset(0, with_picture=False)
    for _ in range(3):
        those_ready([host])
        host.answer()
        host.ask_step(np.zeros(2, dtype=np.float32), with_picture=False)  # the third hangs
    pid = host._process.pid
    host.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
