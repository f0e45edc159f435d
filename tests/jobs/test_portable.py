from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.jobs.portable import changed_words, output_dir_there, portable
from lerobot_ray.jobs.run_file import RUN_FILE, forwarded, run_as_text, stage
from lerobot_ray.jobs.site import Site

FAR = Site(name="far", home="~/runs")
HERE = Site(name="here", is_here=True)


def config(*flags):
    return parse_train_config(["--dataset.repo_id=tests/toy", "--policy.type=act", *flags])


def there(run, site=FAR, flags=()):
    return portable(run, site, dataset=run.dataset, flags=flags, pretrained_path=run.policy.pretrained_path)


def test_what_only_a_client_needs_goes():
    run = config("--job.target=ray", "--job.tags=[a]", "--ray.address=auto", "--policy.device=cpu")
    job, _ = there(run)
    assert (job.job.target, job.job.tags, job.ray.address, job.policy.device) == (None, [], None, None)
    assert run.policy.device == "cpu", "the caller's config stays as it is"


def test_a_device_that_was_typed_stays():
    assert there(config("--policy.device=cpu"), flags=["policy.device"])[0].policy.device == "cpu"


def test_paths_of_this_machine_are_dropped_with_a_word_or_mapped(tmp_path):
    run = config(f"--dataset.cache_dir={tmp_path}", "--mlflow.tracking_uri=sqlite:////home/me/runs.db")
    job, notes = there(run)
    assert job.dataset.cache_dir is None
    assert job.mlflow.tracking_uri is None
    assert len(notes) == 2
    assert changed_words(run, job) == ["--dataset.cache_dir=null", "--mlflow.tracking_uri=null"]
    mapped, notes = there(run, Site(name="x", mounts={str(tmp_path): "/mnt/cache"}))
    assert mapped.dataset.cache_dir == "/mnt/cache"
    same, notes = there(run, HERE)
    assert (same.dataset.cache_dir, same.mlflow.tracking_uri, notes) == (str(tmp_path), run.mlflow.tracking_uri, [])


def test_servers_that_others_reach_stay():
    assert there(config("--mlflow.tracking_uri=https://mlflow.lab"))[0].mlflow.tracking_uri == "https://mlflow.lab"
    assert there(config("--mlflow.tracking_uri=http://localhost:5000"))[0].mlflow.tracking_uri is None


@pytest.mark.parametrize(
    ("flags", "site", "expected"),
    [
        (["--output_dir=/shared/runs/a"], FAR, "/shared/runs/a"),
        (["--output_dir=a"], FAR, "~/runs/a"),
        ([], FAR, "~/runs/name"),
        (["--ray.storage_path=/shared"], FAR, "/shared/name"),
        (["--ray.storage_path=/shared", "--output_dir=a"], FAR, "/shared/a"),
        (["--output_dir=/home/me/a"], Site(name="x", mounts={"/home/me": "/mnt"}), "/mnt/a"),
    ],
)
def test_where_results_go(flags, site, expected):
    assert output_dir_there(config(*flags), site, name="name") == expected


def test_the_run_file_is_the_same_run(tmp_path):
    run, _ = there(config("--steps=7", "--optimizer.lr=0.5", "--job.target=ray", "--dataset.order=lerobot"))
    run = dataclasses.replace(run, output_dir=Path("/out"), job_name="x")
    stage(run_as_text(run), tmp_path, working_dir=None)
    again = parse_train_config([f"--config_path={tmp_path / RUN_FILE}"])
    assert again == run


def test_credentials_in_settings_are_refused_not_published():
    with pytest.raises(ConfigError, match=r"mlflow\.tracking_uri holds credentials"):
        run_as_text(config("--mlflow.tracking_uri=https://me:hunter2@mlflow.lab"))


def test_a_working_folder_travels_without_its_caches(tmp_path):
    source, target = tmp_path / "mine", tmp_path / "staged"
    (source / ".git").mkdir(parents=True)
    (source / "plugin.py").write_text("x = 1")
    target.mkdir()
    stage("{}", target, working_dir=str(source))
    assert sorted(path.name for path in target.iterdir()) == [RUN_FILE, "plugin.py"]
    with pytest.raises(ConfigError, match="is not a folder"):
        stage("{}", target, working_dir=str(tmp_path / "none"))


def test_forwarded_words_leave_out_the_clients():
    words = [
        "--config_path=a",
        "--steps",
        "5",
        "--job.target=ray",
        "--dataset.root=/x",
        "--resume=true",
        "--wandb.notes=a b",
    ]
    assert forwarded(words) == ["--steps=5", "--wandb.notes=a b"]
    assert json.loads(run_as_text(config()))["policy"]["type"] == "act"
