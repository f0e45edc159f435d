"""Training steps compile whole: one graph, no break, no recompilation from batch to batch, the same numbers."""

import pytest
import torch

from tests.policies.build import build
from tests.policies.cases import CASES

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # raised inside torch's own compiler


def fresh(name):
    """Fresh weights: those of the goldens make batch norm magnify rounding a thousandfold."""
    torch.manual_seed(0)
    crops = {} if name.startswith("act") else {"crop_is_random": True}
    return build(CASES[name], **crops).train()


def stream_batch(case, number):
    batch = {key: torch.randn_like(v) if v.is_floating_point() else v for key, v in case.batch(number).items()}
    count = len(batch["action"])
    return batch | {"stream_index": torch.arange(count) + 10 * number, "task": [f"task {number}"] * count}


def loss_and_gradients(policy, function, batch):
    policy.zero_grad()
    loss, _ = function(batch)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in policy.parameters()]


def check(name, backend, *, tolerance):
    """Two batches with other values, other stream indices and other texts run through one graph."""
    torch._dynamo.reset()
    policy = fresh(name)
    compiled = torch.compile(policy.forward, fullgraph=True, dynamic=False, backend=backend)
    for number in range(2):
        batch = stream_batch(CASES[name], number)
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            loss, gradients = loss_and_gradients(policy, compiled, batch)
        expected_loss, expected = loss_and_gradients(policy, policy.forward, batch)
        torch.testing.assert_close(loss, expected_loss, rtol=tolerance, atol=0)
        for got, want in zip(gradients, expected, strict=True):
            assert (got - want).norm() <= tolerance * want.norm() + 1e-6


@pytest.mark.parametrize("name", ["act_vae_two_cameras", "diffusion_resize_groups"])
def test_one_graph(name):
    check(name, "eager", tolerance=1e-5)


@pytest.mark.parametrize("name", ["act_vae_two_cameras", "diffusion_resize_groups"])
def test_one_graph_when_torch_draws(name):
    torch._dynamo.reset()
    policy = fresh(name)
    compiled = torch.compile(policy.forward, fullgraph=True, dynamic=False, backend="eager")
    torch.manual_seed(2)
    loss, _ = compiled(CASES[name].batch(0))
    torch.manual_seed(2)
    torch.testing.assert_close(loss, policy(CASES[name].batch(0))[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["act_vae_two_cameras", "diffusion_resize_groups"])
def test_the_compiler_keeps_the_numbers(name):
    check(name, "inductor", tolerance=2e-3)
