"""What the driver refuses before any worker starts."""

import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.hub.preflight import plan_push
from lerobot_ray.hub.push import push_checkpoint, push_policy
from tests.hub.checkpoints import IN_A_HURRY, save, tags
from tests.on_ray.runs import TINY_ACT

pytestmark = pytest.mark.hub
PUSHING = ["--policy.repo_id=alice/act", "--save_checkpoint_to_hub=true"]


def plan(*flags, **more):
    return plan_push(parse_train_config(["--dataset.repo_id=a/b", *TINY_ACT, *flags]), **more)


def test_a_repository_is_made_private_as_asked_and_used_again(hub):
    assert plan() is None
    made = plan(*PUSHING, "--policy.private=true", "--hub.what=model")
    assert (made.repo_id, made.what, made.checkpoints, made.policy) == ("alice/act", "model", True, True)
    assert hub.api.repo_info("alice/act").private
    assert plan(*PUSHING) is not None
    assert not plan("--policy.repo_id=alice/act").checkpoints
    assert plan("--policy.repo_id=alice/act", "--policy.push_to_hub=false") is None


def test_no_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match=r"no token\. Set HF_TOKEN"):
        plan(*PUSHING)
    with pytest.raises(ConfigError, match="push_to_hub=false"):
        plan("--policy.repo_id=alice/act")
    assert not hub.requests()


def test_no_right_to_write(hub, monkeypatch):
    with pytest.raises(ConfigError, match="no right to write to it"):
        plan("--policy.repo_id=bob/act", "--save_checkpoint_to_hub=true")
    hub.api.create_repo("alice/act")
    monkeypatch.setenv("HF_TOKEN", hub.add_user("alice", role="read"))
    with pytest.raises(ConfigError, match="no right to write to it"):
        plan(*PUSHING)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    with pytest.raises(ConfigError, match="not accepted"):
        plan(*PUSHING)


def test_what_cannot_be(hub, monkeypatch):
    with pytest.raises(ConfigError, match="user/name"):
        plan("--policy.repo_id=act", "--save_checkpoint_to_hub=true")
    with pytest.raises(ConfigError, match="Leave save_checkpoint on"):
        plan(*PUSHING, "--save_checkpoint=false")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        plan(*PUSHING)


@pytest.mark.parametrize("where", ["root", "step"])
def test_a_repository_of_another_policy(hub, tmp_path, where):
    hub.api.create_repo("alice/act")
    checkpoint = save(tmp_path, 5, kind="diffusion")
    if where == "root":
        push_policy(checkpoint / "pretrained_model", "alice/act", beside={}, patience=IN_A_HURRY)
    else:
        push_checkpoint(checkpoint, "alice/act", patience=IN_A_HURRY)
    with pytest.raises(ConfigError, match="a policy of type diffusion, this run trains act"):
        plan(*PUSHING)


def test_checkpoints_of_another_run(hub, tmp_path):
    hub.api.create_repo("alice/act")
    first, second = save(tmp_path / "one", 5), save(tmp_path / "one", 10)
    for checkpoint in (first, second):
        push_checkpoint(checkpoint, "alice/act", patience=IN_A_HURRY)
    with pytest.raises(ConfigError, match=r"another run already \(000005, 000010\).*--config_path=alice/act"):
        plan(*PUSHING)
    with pytest.raises(ConfigError, match=r"later steps than the 5 .* tag='000010'"):
        plan(*PUSHING, resume_from=first, first_step=5)
    other = save(tmp_path / "other", 10, seed="x")
    with pytest.raises(ConfigError, match="tag 000010 of alice/act names another checkpoint"):
        plan(*PUSHING, resume_from=other, first_step=10)
    assert plan(*PUSHING, resume_from=second, first_step=10).known_tags == ("000005", "000010")
    assert plan("--policy.repo_id=alice/act") is not None
    assert sorted(tags(hub)) == ["000005", "000010"]
