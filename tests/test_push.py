"""`python -m lerobot_ray.push`: what did not get to the Hub during a run gets there later."""

import json

import pytest

from lerobot_ray.checkpoint.commit import write_manifest
from lerobot_ray.config.files import save_train_config
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.config.policy_file import save_policy_config
from lerobot_ray.push import main
from tests.hub.checkpoints import save, tags
from tests.hub.conftest import hub  # noqa: F401  a fixture
from tests.on_ray.runs import TINY_ACT

pytestmark = pytest.mark.hub


@pytest.fixture
def run(tmp_path):
    """The folder of a run with checkpoints of two steps and what a page is made of."""
    folder = tmp_path / "run"
    flags = ["--dataset.repo_id=nobody/nothing", f"--dataset.root={tmp_path / 'gone'}", "--policy.repo_id=alice/act"]
    config = parse_train_config([*flags, *TINY_ACT])
    for step in (5, 10):
        checkpoint = save(folder, step)
        save_train_config(config, checkpoint / "pretrained_model")
        save_policy_config(config.policy, checkpoint / "pretrained_model")
        state = {"step": step, "samples_seen": step * 8, "seed": 0, "global_batch": 8, "world_size": 1}
        (checkpoint / "training_state/lerobot_ray_state.json").write_text(json.dumps(state))
        write_manifest(checkpoint)
    return folder


def test_checkpoints_and_the_policy(hub, run, capsys):  # noqa: F811
    assert main([str(run), "--steps=10"]) == 0
    assert sorted(tags(hub)) == ["000010"]
    assert main([str(run)]) == 0
    assert sorted(tags(hub)) == ["000005", "000010"]
    assert "000005 is on" in capsys.readouterr().out
    puts = hub.requests("/lfs/object/", "PUT")
    assert len(puts) == len({request.path for request in puts})
    assert main([str(run), "--publish"]) == 0
    card = hub.store.repos["model", "alice/act"].resolve("main").files["README.md"]
    assert b"| steps | 10 |" in hub.store.blob_path(card.sha256).read_bytes()


def test_what_cannot_be_pushed(hub, run, tmp_path, capsys):  # noqa: F811
    for arguments, words in {
        (str(tmp_path),): "no complete checkpoint",
        (str(run), "--steps=7"): "no complete checkpoint of step 7; there is one of 5, 10",
        (str(run), "--steps=x"): "expected numbers",
        (str(run), "--repo-id=bob/act"): "no right to write",
        (str(run), "--what=some"): "invalid choice",
    }.items():
        assert main(list(arguments)) == 2
        assert words in capsys.readouterr().err
