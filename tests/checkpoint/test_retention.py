"""Which checkpoints stay."""

from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.checkpoint.commit import complete_checkpoints, new_checkpoint
from lerobot_ray.checkpoint.retention import remove_checkpoint, steps_to_keep


def test_the_rules_add_up():
    steps = [100, 200, 300, 400, 500]
    assert steps_to_keep(steps) == set(steps)
    assert steps_to_keep(steps, keep_last=2) == {400, 500}
    assert steps_to_keep(steps, keep_last=1, keep_every=200) == {200, 400, 500}
    assert steps_to_keep(steps, keep_best=1, scores={100: 0.5, 200: 0.1, 300: 0.9}) == {200, 500}
    assert steps_to_keep(steps, keep_best=1, scores={100: 0.5, 300: 0.9}, lower_is_better=False) == {300, 500}


@given(
    steps=st.sets(st.integers(1, 500), min_size=1),
    keep_last=st.none() | st.integers(0, 5),
    keep_every=st.none() | st.integers(1, 50),
    keep_best=st.integers(0, 3),
)
def test_the_newest_always_stays_and_nothing_is_invented(steps, keep_last, keep_every, keep_best):
    scores = {step: float(step % 7) for step in steps}
    kept = steps_to_keep(sorted(steps), keep_last=keep_last, keep_every=keep_every, keep_best=keep_best, scores=scores)
    assert max(steps) in kept
    assert kept <= steps


def test_a_removed_checkpoint_is_gone_at_once(tmp_path):
    for step in (1, 2):
        with new_checkpoint(tmp_path, step, total_steps=9) as folder:
            (folder / "model.safetensors").write_bytes(b"w")
    first, second = complete_checkpoints(tmp_path)
    remove_checkpoint(first)
    assert complete_checkpoints(tmp_path) == [second]
    assert not list((tmp_path / "checkpoints").glob(".writing-*"))
