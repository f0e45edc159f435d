"""Jobs on a real head with its job server: followed, stopped, refused; how deaths look."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from lerobot_ray import submit, train
from lerobot_ray.core.errors import ConfigError, JobError
from lerobot_ray.jobs.follow import exit_code, follow, how_it_ended
from lerobot_ray.jobs.notes import METADATA
from lerobot_ray.jobs.ray_job import entrypoint
from lerobot_ray.jobs.ray_plan import plan_job
from lerobot_ray.on_ray.job_server import JobServer
from tests.jobs.heads import free_ports
from tests.on_ray.runs import TINY_ACT, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(head):
    return JobServer(head.address)


@pytest.fixture
def words(toy_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return ["--dataset.repo_id=tests/toy", f"--dataset.root={toy_root}", "--mlflow.enable=false", *TINY_ACT]


def run_command(server, code, name="job"):
    job_id = f"{name}-{os.urandom(3).hex()}"
    server.submit(f'exec {sys.executable} -uc "{code}"', submission_id=job_id, runtime_env={}, metadata={"a": "b"})
    return job_id


def test_followed_from_first_line_to_exit_code(server):
    job_id = run_command(server, "import time; [(print(i), time.sleep(0.2)) for i in range(5)]; exit(7)")
    said = []
    state = follow(server, job_id, write=said.append)
    assert [line for line in "".join(said).splitlines() if line.isdigit()] == list("01234")
    assert (state.status, exit_code(state)) == ("FAILED", 7)
    assert state.metadata["a"] == "b"
    assert job_id in [job.id for job in server.jobs()]
    with pytest.raises(JobError, match="no-such-job"):
        server.job("no-such-job")


def test_stopped_with_time_to_write_a_checkpoint(server):
    code = "import signal as s, time; s.signal(15, lambda *_: (print('saved'), exit(0))); print('up'); time.sleep(99)"
    job_id = run_command(server, code)
    said = []
    state = []
    watch = threading.Thread(target=lambda: state.append(follow(server, job_id, write=said.append)))
    watch.start()
    wait_until(lambda: "up" in "".join(said))
    assert server.stop(job_id)
    watch.join(60)
    assert "saved" in "".join(said)
    assert (state[0].status, exit_code(state[0])) == ("STOPPED", 143)
    assert "was stopped" in how_it_ended(state[0], said_something=True)


def test_a_job_that_dies_before_its_first_line_shows_why(server):
    job_id = f"dead-{os.urandom(3).hex()}"
    server.submit("exec no-such-python -m x", submission_id=job_id, runtime_env={}, metadata={})
    said = []
    state = follow(server, job_id, write=said.append)
    assert exit_code(state) == 127
    assert "environment active" in how_it_ended(state, said_something=True)


def test_a_job_whose_environment_cannot_be_made_shows_why(server):
    job_id = f"dead-{os.urandom(3).hex()}"
    environment = {"working_dir": "file:///no/such/place.zip"}
    server.submit("true", submission_id=job_id, runtime_env=environment, metadata={})
    said = []
    state = follow(server, job_id, write=said.append)
    assert state.exit_code is None
    assert "place.zip" in how_it_ended(state, said_something=False)


def test_the_plan_of_a_job_on_this_very_machine(server, words, toy_root, tmp_path):
    assert all(node.is_this_machine for node in server.nodes())
    assert not server.grows()
    job = plan_job([*words, "--job.target=ray", "--job.tags=[lab]", "--job.timeout=1h"], server)
    assert job.output_dir.startswith(f"{tmp_path}/outputs/train/")
    assert job.environment["LEROBOT_RAY_STOP_AFTER_S"] == "3600"
    assert job.metadata["lab"] == "true"
    assert str(toy_root) in job.metadata[f"{METADATA}run_file"]
    first, later = entrypoint(job, 0), entrypoint(job, 1)
    assert first.startswith(f"exec {sys.executable} -m lerobot_ray.train --config_path=")
    assert first.endswith("--resume=false")
    assert later.endswith("--resume=auto")


def test_more_than_the_cluster_can_ever_give_is_refused(server, words, head, capsys):
    flags = ["--address", head.address, "--", *words, "--ray.num_workers=9"]
    assert submit.main(flags) == 2
    error = capsys.readouterr().err
    assert "9 workers" in error
    assert "4 CPU" in error
    assert "\n" not in error.strip()


def test_a_run_that_is_refused_over_there_ends_with_its_code(words, head, capfd):
    assert submit.main(["--address", head.address, "--", *words, "--steps=2", "--batch_size=5000"]) == 2
    assert "a global batch of 5000" in capfd.readouterr().out


def test_an_unreachable_head_is_refused_at_once(words, capsys):
    began = time.monotonic()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert train.main([*words, "--job.target=ray", f"--job.address={nobody}"]) == 2
    assert "no job server of a Ray cluster at http://127.0.0.1" in capsys.readouterr().err
    assert time.monotonic() - began < 30


def test_something_else_at_the_address_is_refused(words, hub):
    with pytest.raises(ConfigError, match="no job server"):
        JobServer(hub.endpoint)


def test_the_list_shows_what_runs_there(server, head, capsys):
    job_id = run_command(server, "print(1)", name="listed")
    follow(server, job_id, write=lambda _: None)
    assert submit.main(["list", "--address", head.address]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(job_id)]
    assert "SUCCEEDED" in line
    assert submit.main(["logs", job_id, "--no-follow", "--address", head.address]) == 0
    assert "1\n" in capsys.readouterr().out
    assert submit.main(["resume", job_id, "--address", head.address]) == 2
    assert "was not submitted by lerobot_ray.submit" in capsys.readouterr().err
