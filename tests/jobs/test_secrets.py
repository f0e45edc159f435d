from __future__ import annotations

import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.jobs.secrets import environment_for, is_remote_server


def environment(*flags, given=None, private=False, places=()):
    config = parse_train_config(["--dataset.repo_id=tests/toy", "--policy.type=act", "--mlflow.enable=false", *flags])
    return environment_for(config, config.job, private_repos=private, places=places, environment=given or {})


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_run_that_needs_nothing_is_given_nothing(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = environment(given={"HF_TOKEN": "hf_secret", "AWS_ACCESS_KEY_ID": "a", "WANDB_API_KEY": "w"})
    assert found.all() == {}


def test_the_token_goes_along_when_the_run_uses_it(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert environment("--policy.repo_id=a/b").secret == {"HF_TOKEN": "hf_secret"}
    assert environment(private=True).secret == {"HF_TOKEN": "hf_secret"}
    assert "hf_secret" not in repr(environment("--policy.repo_id=a/b").plain)


@pytest.mark.parametrize(
    ("flags", "name"), [(["--policy.repo_id=a/b"], "HF_TOKEN"), (["--wandb.enable=true"], "WANDB_API_KEY")]
)
def test_a_missing_secret_is_named_with_both_remedies(flags, name):
    with pytest.raises(ConfigError, match=rf"{name} is missing.*job\.cluster_has='\[{name}\]'"):
        environment(*flags)
    assert environment(*flags, f"--job.cluster_has=[{name}]").secret == {}


def test_keys_of_an_object_store_only_with_one():
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "http://s3"}
    assert environment(given=given).all() == {}
    for found in (
        environment("--job.upload_to=s3://lab", given=given),
        environment("--ray.storage_path=s3://lab", given=given),
        environment(given=given, places=["s3://lab/runs/a"]),
    ):
        assert found.plain == {"AWS_ENDPOINT_URL": "http://s3"}
        assert set(found.secret) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_further_variables_by_name():
    assert environment("--job.env=[LAB]", given={"LAB": "x"}).secret == {"LAB": "x"}
    with pytest.raises(ConfigError, match="LAB, which is not set"):
        environment("--job.env=[LAB]")


def test_wandb_key_from_netrc(tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert environment("--wandb.enable=true").secret == {"WANDB_API_KEY": "key123"}


def test_addresses_that_others_reach():
    assert is_remote_server("https://mlflow.lab:5000/x")
    assert not any(
        map(is_remote_server, ("http://127.0.0.1:5000", "http://me@localhost/x", "sqlite:///a.db", "a/b", ""))
    )
