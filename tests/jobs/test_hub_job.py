"""Hugging Face Jobs over HTTP: the real client against the loopback Hub."""

from __future__ import annotations

import json
import shutil
import threading

import pytest

from lerobot_ray.checkpoint.find import what_is_missing
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError, DatasetError
from lerobot_ray.hub.fetch import fetch
from lerobot_ray.jobs import hub_job
from tests.checkpoint import runs
from tests.hub_server import HubServer

pytestmark = pytest.mark.hub


@pytest.fixture
def logged_in(monkeypatch, tmp_path):
    """A Hub with a dataset, and this process logged in as alice. `play` is what jobs do."""
    plays = []

    def runner(job):
        plays.pop(0)(server, job)

    with HubServer(job_runner=runner) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.add_user("alice"))
        monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
        server.plays = plays
        yield server


@pytest.fixture
def recorded(toy_root, tmp_path):
    """A dataset that only this machine's cache has."""
    shutil.copytree(toy_root, tmp_path / "lerobot" / "alice" / "toy")


def ends(stage="COMPLETED", *lines, message=None):
    def play(server, job):
        server.jobs.set_stage(job, "RUNNING")
        for line in lines:
            server.jobs.log(job, line)
        server.jobs.set_stage(job, stage, message)

    return play


def words(*flags):
    return ["--dataset.repo_id=alice/toy", "--policy.type=act", "--job.target=a10g-small", "--job.image=lab/lr", *flags]


def run(*flags, said=None):
    lines = []
    said = said if said is not None else []
    flags = words(*flags)
    config = parse_train_config(flags, fetch=hub_job.hub_repo.fetch_descriptions)
    code = hub_job.run_on_hub(flags, config.job, say=said.append, show=lines.append, poll_s=0.05)
    return code, "".join(lines)


def staged(server, repo):
    entry = server.store.repos["model", repo].resolve("main").files["train_config.json"]
    with server.store.open_blob(entry.sha256) as file:
        return json.load(file)


def test_a_run_becomes_a_job_with_its_dataset_config_and_secrets(logged_in, recorded, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "w-key")
    logged_in.plays.append(ends("COMPLETED", "step 1", "step 2"))
    said = []
    code, log = run("--job.tags=[lab]", "--wandb.enable=true", "--policy.repo_id=alice/act", "--steps=9", said=said)
    assert (code, log) == (0, "step 1\nstep 2\n")
    assert logged_in.store.repos["dataset", "alice/toy"].private
    assert logged_in.store.repos["model", "alice/act"].private
    (job,) = logged_in.jobs.by_id.values()
    assert job.request["command"] == ["python", "-m", "lerobot_ray.train", "--config_path=alice/act"]
    assert (job.request["flavor"], job.request["dockerImage"]) == ("a10g-small", "lab/lr")
    assert job.request["labels"]["lerobot"] == job.request["labels"]["lab"] == "true"
    assert set(job.secrets) == {"HF_TOKEN", "WANDB_API_KEY"}
    config = staged(logged_in, "alice/act")
    assert (config["steps"], config["policy"]["device"], config["dataset"]["root"]) == (9, None, None)
    assert "lab" in config["policy"]["tags"]
    assert job.request["timeoutSeconds"] == 172800
    assert "hf jobs logs" in "".join(said)


def test_the_model_repository_is_named_after_the_run(logged_in, recorded):
    logged_in.plays.append(ends())
    assert run("--job_name=pick it up", "--job.detach=true")[0] == 0
    (repo,) = [name for kind, name in logged_in.store.repos if kind == "model"]
    assert repo.startswith("alice/pick-it-up_20")


def test_it_ends_when_the_model_is_pushed(logged_in, recorded):
    go_on = threading.Event()

    def play(server, job):
        server.jobs.set_stage(job, "RUNNING")
        server.jobs.log(job, "Model pushed to https://huggingface.co/alice/act")
        go_on.wait(60)

    logged_in.plays.append(play)
    try:
        assert run()[0] == 0
    finally:
        go_on.set()


def test_a_failed_job_says_why_and_is_tried_again_as_often_as_asked(logged_in, recorded):
    logged_in.plays += [ends("ERROR", "out of memory", message="exit code 1"), ends("COMPLETED", "better")]
    said = []
    assert run("--job.retries=1", said=said) == (0, "out of memory\nbetter\n")
    assert "exit code 1" in "".join(said)
    logged_in.plays.append(ends("ERROR"))
    assert run()[0] == 1


def test_a_checkpoint_of_this_machine_is_uploaded_and_resumed(logged_in, recorded, tmp_path):
    run_to_save = runs.make_run()
    run_to_save.train(2)
    checkpoint = run_to_save.save(tmp_path / "run")
    logged_in.plays.append(ends())
    code, _ = run(f"--config_path={checkpoint}", "--resume=true", "--steps=99", "--dataset.root=null")
    assert code == 0
    (job,) = logged_in.jobs.by_id.values()
    command = job.request["command"]
    (repo,) = [name for kind, name in logged_in.store.repos if kind == "model"]
    assert f"--config_path={repo}" in command
    found = fetch(repo, what="checkpoint")
    assert (found.name, what_is_missing(found)) == (checkpoint.name, ""), "the job finds it there, whole"
    assert {"--resume=true", "--steps=99", "--job.target=local", f"--policy.repo_id={repo}"} <= set(command)
    assert not [word for word in command if str(tmp_path) in word]


def test_refusals(logged_in, monkeypatch, tmp_path):
    with pytest.raises(DatasetError, match="there is no dataset alice/toy"):
        run()
    with pytest.raises(ConfigError, match=r"--job\.image"):
        run("--job.image=null")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="needs a Hugging Face token"):
        run()
    assert not logged_in.jobs.by_id
