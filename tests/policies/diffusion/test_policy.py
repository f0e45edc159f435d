"""The diffusion policy's behaviour beyond the goldens: queues, noise, checkpointing, precision, compilation."""

import pytest
import torch

from lerobot_ray.core.types import VALID_ACTIONS
from lerobot_ray.policies.registry import build_policy
from tests.policies.build import build, config_of, filled
from tests.policies.cases import BATCH, CASES, DIFFUSION_SMALL, Case

STATE_ONLY = CASES["diffusion_ddim_epsilon"]
GROUPS = Case(
    "diffusion",
    DIFFUSION_SMALL | {"use_group_norm": True, "crop_shape": (24, 40), "do_mask_loss_for_padding": True},
    cameras={"front": (32, 48), "wrist": (32, 48)},
)


def part(batch, rows):
    return {key: value[rows] for key, value in batch.items()}


def random_batch(case, count=BATCH):
    torch.manual_seed(3)
    batch = case.batch(0, count)
    return {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in batch.items()}


def test_observations_are_kept_and_actions_queued():
    policy = filled(STATE_ONLY)  # DDIM: deterministic but for the first noise
    noise = torch.randn(BATCH, 8, 3)
    actions = [policy.select_action(STATE_ONLY.observation(step), noise=noise) for step in range(5)]

    policy.reset()
    chunk = policy.predict_action_chunk(STATE_ONLY.observation(0), noise=noise)
    assert chunk.shape == (BATCH, 4, 3)
    torch.testing.assert_close(torch.stack(actions[:4], dim=1), chunk)
    for step in range(1, 4):
        policy._observe(STATE_ONLY.observation(step))
    following = policy.predict_action_chunk(STATE_ONLY.observation(4), noise=noise)
    torch.testing.assert_close(actions[4], following[:, 0])


def test_the_first_observation_stands_for_those_before_it():
    policy = filled(STATE_ONLY)
    policy._observe(STATE_ONLY.observation(0))
    state = torch.stack(list(policy._observations["observation.state"]))
    assert torch.equal(state[0], state[1])


def test_a_global_batch_has_the_same_loss_however_it_is_split():
    """Noise, denoising steps and crops by stream index. Batch norm would see its micro-batch, so group norm here."""
    policy = build(GROUPS).train()
    batch = random_batch(GROUPS, 6) | {"stream_index": torch.tensor([5, 17, 2**35, 8, 9, 1])}
    batch["action_is_pad"] = torch.arange(8)[None] >= torch.tensor([8, 3, 8, 1, 6, 2])[:, None]
    batch[VALID_ACTIONS] = (~batch["action_is_pad"]).sum(1).float().mean().expand(6)
    whole, _ = policy(batch)
    weight = policy.diffusion.unet.final_conv[1].weight
    gradient = torch.autograd.grad(whole, weight)[0]
    for rows in ([range(3), range(3, 6)], [[4, 0], [1, 5], [2, 3]]):
        mean = torch.stack([policy(part(batch, list(share)))[0] for share in rows]).mean()
        torch.testing.assert_close(mean, whole)
        torch.testing.assert_close(torch.autograd.grad(mean, weight)[0], gradient, rtol=1e-4, atol=1e-6)


def test_losses_of_samples_average_to_the_loss():
    for case in (GROUPS, STATE_ONLY):
        policy = build(case).train()
        batch = random_batch(case) | {"stream_index": torch.arange(BATCH)}
        losses, _ = policy(batch, reduction="none")
        assert losses.shape == (BATCH,)
        torch.testing.assert_close(losses.mean(), policy(batch)[0])


def test_draws_of_a_sample():
    policy = build(GROUPS)
    noise, timesteps, crops = policy._draw(torch.arange(3000), torch.empty(3000, 8, 3))
    assert noise.shape == (3000, 8, 3)
    assert crops.shape == (3000, 2, 2)
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert torch.bincount(timesteps, minlength=10).min() > 200
    assert not torch.equal(crops[:, 0], crops[:, 1]), "each camera its own crop"
    odd, _, _ = policy._draw(torch.arange(2), torch.empty(2, 3, 3))
    assert odd.shape == (2, 3, 3)


def test_recomputing_activations_changes_nothing():
    plain = build(GROUPS).train()
    saving = build(GROUPS, gradient_checkpointing=True).train()
    saving.load_state_dict(plain.state_dict())
    batch = random_batch(GROUPS) | {"stream_index": torch.arange(BATCH)}
    for policy in (plain, saving):
        policy(batch)[0].backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_half_precision(how):
    policy = build(GROUPS).train()
    batch = random_batch(GROUPS) | {"stream_index": torch.arange(BATCH)}
    expected, _ = policy(batch)
    if how == "weights":
        policy.bfloat16()
        batch = {key: value.bfloat16() if value.is_floating_point() else value for key, value in batch.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        loss, _ = policy(batch)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in policy.parameters())
    torch.testing.assert_close(loss.float(), expected, rtol=0.05, atol=0)


def test_nothing_waits_for_the_device():
    """A meta tensor has no value: whoever asks for one on the host gets an error."""
    with torch.device("meta"):
        policy = build(GROUPS, device="meta").train()
    batch = random_batch(GROUPS) | {"stream_index": torch.arange(BATCH)}
    loss, _ = policy({key: value.to("meta") for key, value in batch.items()})
    assert loss.device.type == "meta"


def test_a_policy_built_on_meta_is_whole_after_loading(tmp_path):
    policy = build(GROUPS).train()
    with torch.device("meta"):
        later = build_policy(config_of(GROUPS), device="meta").train()
    later.to_empty(device="cpu")
    later.load_state_dict(policy.state_dict())
    later.init_buffers()
    batch = random_batch(GROUPS) | {"stream_index": torch.arange(BATCH)}
    assert torch.equal(later(batch)[0], policy(batch)[0])


def test_a_compiled_unet_has_lerobots_keys_and_takes_plain_weights(tmp_path, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, mode: real(module, backend="eager"))
    plain = build(STATE_ONLY)
    plain.save_pretrained(tmp_path)
    config = config_of(STATE_ONLY, compile_model=True, pretrained_path=str(tmp_path))
    compiled = build_policy(config)
    assert "diffusion.unet._orig_mod.final_conv.1.bias" in compiled.state_dict()
    batch = random_batch(STATE_ONLY) | {"stream_index": torch.arange(BATCH)}
    torch.testing.assert_close(compiled(batch)[0], plain(batch)[0])
