"""A checkpoint that is taken over brings along what its rollouts brought: it is not played again."""

from __future__ import annotations

from lerobot_ray.checkpoint.commit import complete_checkpoints, new_checkpoint
from lerobot_ray.envs.eval_info import save_info
from lerobot_ray.on_ray.evaluated import info_path, is_evaluated, mark_of
from lerobot_ray.sweeps.takeover import install, set_aside


def save(run_dir, step, text):
    with new_checkpoint(run_dir, step, total_steps=20) as folder:
        (folder / "file").write_text(text)
    return complete_checkpoints(run_dir)[-1]


def settle(checkpoint):
    save_info({"evaluation": {"checkpoint": mark_of(checkpoint)}}, info_path(checkpoint))


def test_taken_over_is_evaluated_if_the_donors_was(tmp_path):
    donor, trial = tmp_path / "donor", tmp_path / "trial"
    settle(save(donor, 10, "of the donor"))
    settle(save(trial, 10, "its own"))
    assert set_aside(donor, trial, generation=1) == complete_checkpoints(donor)[0].name
    for _ in range(2):  # the second time there is nothing left to do
        install(trial, generation=1)
        (taken,) = complete_checkpoints(trial)
        assert (taken / "file").read_text() == "of the donor"
        assert is_evaluated(taken)


def test_taken_over_is_owed_if_the_donors_was(tmp_path):
    donor, trial = tmp_path / "donor", tmp_path / "trial"
    save(donor, 10, "of the donor")
    settle(save(trial, 10, "its own"))
    set_aside(donor, trial, generation=1)
    install(trial, generation=1)
    (taken,) = complete_checkpoints(trial)
    assert not is_evaluated(taken), "the result there is of the checkpoint before"
