"""Native policies against LeRobot 0.6.1: loss, every gradient, actions and ten optimizer steps, from stored goldens.

The goldens come from `make_policy_goldens.py`, which runs LeRobot's own policies on the same weights and batches; the
versions are in goldens/versions.json. What is left between the two is float32 rounding, whose order differs.
"""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.policies.build import build
from tests.policies.cases import ADAM_EPS, BATCH, CASES, LEARNING_RATE, OPTIMIZER_STEPS, ROLLOUT_STEPS, digest
from tests.policies.reference import refill

GOLDENS = Path(__file__).parent / "goldens"


class Prepared:
    """One case with its golden, and a policy whose weights are put back before every test."""

    def __init__(self, name: str) -> None:
        self.case, self.golden = CASES[name], dict(np.load(GOLDENS / f"{name}.npz"))
        torch.manual_seed(0)
        self.policy = build(self.case)
        parameters = dict(self.policy.named_parameters())
        self.names = list(parameters)
        self.fresh = [digest(parameter) for parameter in parameters.values()]
        refill(self.policy)
        self.weights = {name: tensor.clone() for name, tensor in self.policy.state_dict().items()}
        self.double_policy = copy.deepcopy(self.policy).double()
        refill(self.double_policy)
        self.double_weights = {name: tensor.clone() for name, tensor in self.double_policy.state_dict().items()}

    def filled(self):
        is_double = torch.get_default_dtype() is torch.float64
        policy = self.double_policy if is_double else self.policy
        policy.load_state_dict(self.double_weights if is_double else self.weights)
        policy.zero_grad()
        policy.reset()
        return policy


@pytest.fixture(scope="module", params=CASES, ids=str)
def prepared(request):
    return Prepared(request.param)


@pytest.fixture
def double_precision():
    """Batch norm over a handful of samples magnifies rounding; in double precision only true differences are left."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_digests(got, expected, names, *, tolerance, floor):
    """Within `tolerance` of each tensor's norm, or within `floor` where a tensor is nothing but rounding."""
    difference = np.abs(np.array(got) - expected)
    wrong = (difference > tolerance * expected[:, :1] + floor).any(1).nonzero()[0]
    assert not len(wrong), (
        f"{len(wrong)} of {len(names)} differ: {[(names[i], difference[i].max()) for i in wrong[:4]]}"
    )


def losses_and_actions(policy, case):
    policy.eval()
    torch.manual_seed(0)
    eval_loss = policy(case.batch(0))[0].item()
    torch.manual_seed(1)
    actions = np.stack([policy.select_action(case.observation(i)).numpy() for i in range(ROLLOUT_STEPS)])
    policy.train()
    torch.manual_seed(2)
    loss, logged = policy(case.batch(0))
    return eval_loss, actions, loss.item(), {name: float(value) for name, value in (logged or {}).items()}


def test_state_dict_has_the_same_keys_and_shapes(prepared):
    got = {name: list(tensor.shape) for name, tensor in prepared.policy.state_dict().items()}
    expected = json.loads(str(prepared.golden["state_dict"]))
    assert got == expected
    assert list(got) == list(expected)


def test_one_seed_gives_the_same_fresh_weights(prepared):
    assert prepared.names == list(prepared.golden["names"])
    assert_digests(prepared.fresh, prepared.golden["fresh"], prepared.names, tolerance=1e-5, floor=1e-7)


def test_losses_and_actions(prepared):
    case, golden = prepared.case, prepared.golden
    eval_loss, actions, loss, logged = losses_and_actions(prepared.filled(), case)
    assert eval_loss == pytest.approx(float(golden["float32/eval_loss"]), rel=1e-5)
    has_batch_norm = case.type == "diffusion" and case.cameras and not case.options.get("use_group_norm")
    assert loss == pytest.approx(float(golden["float32/loss"]), rel=1e-3 if has_batch_norm else 1e-5)
    assert logged == pytest.approx(json.loads(str(golden["float32/logged"])), rel=5e-6)
    np.testing.assert_allclose(actions, golden["float32/actions"], atol=1e-5 if case.type == "act" else 2e-3)


def test_losses_and_actions_in_double_precision(prepared, double_precision):
    golden = prepared.golden
    eval_loss, actions, loss, logged = losses_and_actions(prepared.filled(), prepared.case)
    assert eval_loss == pytest.approx(float(golden["float64/eval_loss"]), rel=1e-7)
    assert loss == pytest.approx(float(golden["float64/loss"]), rel=1e-7)
    assert logged == pytest.approx(json.loads(str(golden["float64/logged"])), rel=1e-7)
    np.testing.assert_allclose(actions, golden["float64/actions"], atol=1e-5)


def test_every_gradient(prepared, double_precision):
    golden, policy = prepared.golden, prepared.filled().train()
    torch.manual_seed(2)
    policy(prepared.case.batch(0))[0].backward()
    gradients = {name: parameter.grad for name, parameter in policy.named_parameters()}
    digests = [digest(gradient) for gradient in gradients.values()]
    floor = 1e-9 * golden["gradients"][:, 0].max()
    assert_digests(digests, golden["gradients"], prepared.names, tolerance=1e-6, floor=floor)
    whole = [name for name in gradients if f"gradient/{name}" in golden]
    assert whole
    for name in whole:
        expected = golden[f"gradient/{name}"]
        np.testing.assert_allclose(gradients[name], expected, atol=1e-6 * np.linalg.norm(expected) + floor)


def test_ten_optimizer_steps(prepared, double_precision):
    policy = prepared.filled().train()
    optimizer = torch.optim.AdamW(
        policy.get_optim_params(), lr=LEARNING_RATE, eps=ADAM_EPS, weight_decay=1e-2, fused=True
    )
    losses = []
    for step in range(OPTIMIZER_STEPS):
        torch.manual_seed(100 + step)
        optimizer.zero_grad()
        loss, _ = policy(prepared.case.batch(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, prepared.golden["losses"], rtol=1e-6)
    names, tensors = zip(*sorted(policy.state_dict().items()), strict=True)
    assert_digests([digest(t) for t in tensors], prepared.golden["trained"], names, tolerance=1e-6, floor=1e-9)


def test_losses_of_samples(prepared):
    """A sample's share of the mean is the loss LeRobot gives it alone, times its share of the real actions."""
    if prepared.case.type != "act":
        pytest.skip("draws in eval mode too")
    batch, golden = prepared.case.batch(0), prepared.golden
    losses, _ = prepared.filled().eval()(batch, reduction="none")
    assert losses.shape == (BATCH,)
    real = (~batch["action_is_pad"]).sum(1).numpy()
    np.testing.assert_allclose(losses.detach(), golden["float32/sample_losses"] * real / real.mean(), rtol=1e-5)
    assert losses.mean().item() == pytest.approx(float(golden["float32/eval_loss"]), rel=1e-5)
