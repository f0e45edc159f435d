from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lerobot_ray.config.encode import encode
from lerobot_ray.config.files import load_train_config, save_train_config, split
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import OWN_CONFIG_NAME, TRAIN_CONFIG_NAME
from tests.config.configs import MINIMAL, runs

BY_LEROBOT = sorted((Path(__file__).parent / "lerobot_0_6_1").iterdir())


@given(config=runs)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_config_to_files_to_config_is_the_identity(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("run")
    save_train_config(config, folder)
    assert load_train_config(folder) == config


@given(config=runs)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_lerobots_file_has_exactly_lerobots_keys(config):
    """A key more, and LeRobot refuses to load the checkpoint or to continue the run."""
    theirs, _ = split(TrainConfig, encode(config))
    written_by_lerobot = json.loads((BY_LEROBOT[0] / TRAIN_CONFIG_NAME).read_text())
    assert list(theirs) == list(written_by_lerobot)
    for section in ("dataset", "eval", "wandb", "job"):
        assert list(theirs[section]) == list(written_by_lerobot[section])
    assert theirs["resume"] in (True, False)
    assert isinstance(theirs["num_workers"], int)
    assert theirs["job"]["target"] != "ray"
    assert theirs["env"] is None or theirs["env"]["type"] == "pusht"


@pytest.mark.parametrize("folder", BY_LEROBOT, ids=lambda folder: folder.name)
def test_a_file_written_by_lerobot_is_written_back_to_the_byte(folder, tmp_path):
    config = load_train_config(folder)
    assert parse_train_config([f"--config_path={folder}"]) == config
    save_train_config(config, tmp_path)
    assert (tmp_path / TRAIN_CONFIG_NAME).read_text() == (folder / TRAIN_CONFIG_NAME).read_text()


def test_a_file_of_newer_lerobot_loads(tmp_path):
    values = json.loads((BY_LEROBOT[0] / TRAIN_CONFIG_NAME).read_text())
    values["dataset"]["exclude_episodes"] = [1]
    values["checkpoint_format"] = "dcp"
    values["parallelism"] = {
        "dp_replicate": 2,
        "dp_shard": 4,
        "context_parallel": {"ring_degree": 1, "ulysses_degree": 1},
        "cfg_parallel": 1,
    }
    values["accelerator"] = {
        "mixed_precision": "bf16",
        "gradient_accumulation": {"steps": 2},
        "fsdp": {
            "reshard_after_forward": True,
            "wrap_modules": ["Block"],
            "min_num_params": None,
            "cpu_offload": False,
            "ignored_modules": None,
        },
        "ddp": {"find_unused_parameters": True, "gradient_as_bucket_view": False, "static_graph": False},
        "compile": {"enabled": False, "backend": "inductor", "mode": None, "regional": True},
        "activation_checkpointing": {"mode": "none"},
    }
    values["ema"] = {
        "enable": True,
        "decay": None,
        "update_after_step": 5,
        "inv_gamma": 1.0,
        "power": 0.75,
        "min_decay": 0.0,
        "max_decay": 0.9999,
        "use_for_eval": True,
    }
    (tmp_path / TRAIN_CONFIG_NAME).write_text(json.dumps(values))
    config = load_train_config(tmp_path)
    assert config.dataset.exclude_episodes == [1]
    assert config.parallelism.dp_shard == 4
    assert config.accelerator.gradient_accumulation.steps == 2
    assert config.accelerator.fsdp.wrap_modules == ["Block"]
    assert config.ema.update_after_step == 5
    assert encode(config)["accelerator"] == values["accelerator"]
    assert encode(config)["parallelism"] == values["parallelism"]
    assert encode(config)["ema"] == values["ema"]


@pytest.mark.parametrize("is_on", [True, False])
def test_settings_of_old_files_are_migrated(tmp_path, is_on):
    old = {"use_rabc": is_on, "rabc_progress_path": "p.parquet", "rabc_kappa": 0.02, "rabc_epsilon": 1e-5}
    old |= {"rabc_head_mode": "dense", "dataset": {"repo_id": "a/b"}, "policy": {"type": "act"}}
    (tmp_path / TRAIN_CONFIG_NAME).write_text(json.dumps(old))
    weighting = load_train_config(tmp_path).sample_weighting
    if is_on:  # what LeRobot 0.6.1 makes of the same file
        assert encode(weighting) == {
            "type": "rabc",
            "progress_path": "p.parquet",
            "head_mode": "dense",
            "kappa": 0.02,
            "epsilon": 1e-5,
            "extra_params": {},
        }
    else:
        assert weighting is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TRAIN_CONFIG_NAME, {"stepz": 3}, "train_config.json: stepz: there is no such setting. Did you mean steps?"),
        (TRAIN_CONFIG_NAME, {"steps": "many"}, "train_config.json: steps: expected a whole number, got 'many'."),
        (TRAIN_CONFIG_NAME, {"steps": 0}, "train_config.json: steps=0 must be at least 1."),
        (OWN_CONFIG_NAME, {"ray": {"num_worker": 3}}, "lerobot_ray.json: ray.num_worker: there is no such setting."),
        (OWN_CONFIG_NAME, {"audi": True}, "lerobot_ray.json: audi: there is no such setting. Did you mean audit?"),
        (OWN_CONFIG_NAME, {"dataset": {"ordr": "frames"}}, "lerobot_ray.json: dataset.ordr: there is no such"),
        (OWN_CONFIG_NAME, {"format": 2}, "lerobot_ray.json was written by a newer version of lerobot_ray."),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, name, change, message):
    save_train_config(parse_train_config(MINIMAL), tmp_path)
    values = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps({**values, **change}))
    with pytest.raises(ConfigError) as error:
        load_train_config(tmp_path)
    assert message in str(error.value)


def test_what_is_not_json_says_where(tmp_path):
    (tmp_path / TRAIN_CONFIG_NAME).write_text('{"steps": 3,\n  "seed" 4}')
    with pytest.raises(ConfigError, match=r"train_config.json, line 2, column 10: not valid JSON"):
        load_train_config(tmp_path)
    (tmp_path / TRAIN_CONFIG_NAME).write_text("[]")
    with pytest.raises(ConfigError, match="expected a mapping at the top"):
        load_train_config(tmp_path)
    with pytest.raises(ConfigError, match="is not there"):
        load_train_config(tmp_path / "none.yaml")


def test_files_end_as_lerobots_do(tmp_path):
    save_train_config(parse_train_config(MINIMAL), tmp_path)
    for name in (TRAIN_CONFIG_NAME, OWN_CONFIG_NAME):
        text = (tmp_path / name).read_text()
        assert text.startswith('{\n    "')
        assert text.endswith("}")
