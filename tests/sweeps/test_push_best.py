"""--push_best: the right to push is asked for before the first trial, the best policy arrives after the last."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.sweeps.best import BEST_FILE
from lerobot_ray.sweeps.push_best import check_push, push_best
from tests.sweeps.sweeps import plan_of

pytestmark = pytest.mark.hub


def test_the_best_policy_and_its_settings_arrive(hub, tmp_path):
    plan = plan_of(tmp_path, "--policy.repo_id=alice/best")
    check_push(plan)
    policy = tmp_path / "pretrained_model"
    policy.mkdir()
    (policy / "config.json").write_text('{"type": "act"}')
    save_file({"weight": np.zeros(2, np.float32)}, policy / "model.safetensors")
    plan.folder.mkdir()
    (plan.folder / BEST_FILE).write_text("steps: 100\n")
    assert push_best(plan, policy).endswith("/alice/best")
    assert {"config.json", "model.safetensors", BEST_FILE} <= set(hub.api.list_repo_files("alice/best"))


def test_somebody_elses_repository_is_refused_before_the_first_trial(hub, tmp_path):
    hub.add_user("bob")
    with pytest.raises(ConfigError, match="bob"):
        check_push(plan_of(tmp_path, "--policy.repo_id=bob/best"))


def test_a_repository_is_needed(tmp_path):
    from lerobot_ray.sweeps.plan import settle_sweep
    from tests.sweeps.sweeps import LIGHT, write_sweep

    with pytest.raises(ConfigError, match="--push_best needs a repository"):
        settle_sweep(write_sweep(tmp_path), LIGHT, folder=tmp_path / "out", push_best=True)
