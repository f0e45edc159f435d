"""ACT's behaviour beyond the goldens: queues, noise, padding, precision, and no waiting for the device."""

import pytest
import torch

from lerobot_ray.core.types import VALID_ACTIONS
from tests.policies.build import build, filled
from tests.policies.cases import ACT_SMALL, BATCH, CASES, Case


def part(batch, rows):
    return {key: value[rows] for key, value in batch.items()}


def random_batch(case, count=BATCH):
    batch = case.batch(0, count)
    return {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in batch.items()}


def test_a_chunk_is_carried_out_before_the_next_is_predicted():
    case = CASES["act_regression"]
    policy = filled(case)
    chunk = policy.predict_action_chunk(case.observation(0))
    assert chunk.shape == (BATCH, 8, 3)
    for step in range(3):  # n_action_steps
        assert torch.equal(policy.select_action(case.observation(step)), chunk[:, step])
    following = policy.predict_action_chunk(case.observation(3))
    assert torch.equal(policy.select_action(case.observation(3)), following[:, 0])
    policy.reset()
    assert torch.equal(policy.select_action(case.observation(0)), chunk[:, 0])


def test_selecting_an_action_leaves_eval_mode_on_and_no_graph():
    case = CASES["act_dropout"]
    policy = build(case).train()
    action = policy.select_action(case.observation(0))
    assert not policy.training
    assert not action.requires_grad


def test_a_camera_alone_is_enough():
    case = Case("act", ACT_SMALL, state=None, cameras={"front": (32, 48)})
    policy = build(case).train()
    assert policy(case.batch(0))[0].isfinite()
    assert policy.select_action(case.observation(0)).shape == (BATCH, 3)


@pytest.mark.parametrize("count", [1, 3])
def test_cameras_of_one_size_are_encoded_together_as_apart(count):
    """One pass over the backbone for all cameras, and the tokens in the same order."""
    case = Case("act", ACT_SMALL, cameras={f"c{i}": (32, 48) for i in range(count)})
    policy = build(case).eval()
    batch = random_batch(case)
    passes = []
    policy.model.backbone.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    together, _ = policy.model._encode_images([batch[camera] for camera in policy.model.cameras])
    assert passes == [count * BATCH]
    for camera, tokens in zip(policy.model.cameras, together, strict=True):
        (alone,), _ = policy.model._encode_images([batch[camera]])
        torch.testing.assert_close(tokens, alone)


def test_a_global_batch_has_the_same_loss_however_it_is_split():
    """Noise by stream index, padding by the global batch's count: parts average to the whole."""
    case = CASES["act_vae_two_cameras"]
    policy = build(case).train()
    batch = random_batch(case, 6) | {"stream_index": torch.tensor([5, 17, 2**35, 8, 9, 1])}
    batch["action_is_pad"] = torch.arange(8)[None] >= torch.tensor([8, 3, 8, 1, 6, 2])[:, None]
    batch[VALID_ACTIONS] = (~batch["action_is_pad"]).sum(1).float().mean().expand(6)
    whole, logged = policy(batch)
    gradient = torch.autograd.grad(whole, policy.model.action_head.weight)[0]
    for rows in ([range(3), range(3, 6)], [[4, 0], [1, 5], [2, 3]]):
        parts = [policy(part(batch, list(share))) for share in rows]
        mean = torch.stack([loss for loss, _ in parts]).mean()
        torch.testing.assert_close(mean, whole)
        torch.testing.assert_close(torch.autograd.grad(mean, policy.model.action_head.weight)[0], gradient)
        for name, value in logged.items():
            torch.testing.assert_close(torch.stack([values[name] for _, values in parts]).mean(), value)


def test_losses_of_samples_average_to_the_loss():
    case = CASES["act_vae_two_cameras"]
    policy = build(case).train()
    batch = random_batch(case) | {"stream_index": torch.arange(BATCH)}
    losses, _ = policy(batch, reduction="none")
    assert losses.shape == (BATCH,)
    torch.testing.assert_close(losses.mean(), policy(batch)[0])


def test_padded_actions_have_no_influence():
    case = CASES["act_state_only"]
    policy = build(case).train()
    batch = case.batch(0) | {"stream_index": torch.arange(BATCH)}
    loss, _ = policy(batch)
    batch["action"] = torch.where(batch["action_is_pad"][..., None], 100.0, batch["action"])
    torch.testing.assert_close(policy(batch)[0], loss)


def test_a_batch_of_nothing_but_padding_has_no_distance():
    case = CASES["act_regression"]
    batch = case.batch(0)
    batch["action_is_pad"] = torch.ones_like(batch["action_is_pad"])
    loss, _ = build(case)(batch)
    assert loss.item() == 0


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_half_precision(how):
    case = CASES["act_vae_two_cameras"]
    policy = build(case).train()
    batch = random_batch(case) | {"stream_index": torch.arange(BATCH)}
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
    """Values are needed on the host by `item`, `nonzero`, branches on tensors; none of them is in the forward pass."""
    case = CASES["act_vae_two_cameras"]
    batch = random_batch(case) | {"stream_index": torch.arange(BATCH)}
    with torch.device("meta"):  # a meta tensor has no value: whoever asks for one gets an error
        policy = build(case, device="meta").train()
    loss, logged = policy({key: value.to("meta") for key, value in batch.items()})
    assert {loss.device.type, *(value.device.type for value in logged.values())} == {"meta"}


def test_adapters_recognise_its_layers():
    peft = pytest.importorskip("peft")
    case = CASES["act_regression"]
    policy = build(case).eval()
    batch = random_batch(case)
    expected, _ = policy(batch)
    config = peft.LoraConfig(target_modules=["linear1", "out_proj", "conv2"], r=2, modules_to_save=["action_head"])
    adapted = peft.get_peft_model(policy, config)
    torch.testing.assert_close(adapted(batch)[0], expected)  # a fresh adapter changes nothing
    loss, _ = adapted.train()(batch)
    loss.backward()
    touched = {name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for wanted in (
        "backbone.layer4.1.conv2.lora_B",
        "encoder.layers.0.linear1.lora_B",
        "out_proj.lora_B",
        "action_head",
    ):
        assert any(wanted in name for name in touched), wanted
