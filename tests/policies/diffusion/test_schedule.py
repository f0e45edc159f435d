"""The noise schedule: its tables, and sampling steps against the equations they come from."""

import pytest
import torch

from lerobot_ray.policies.diffusion.config import DiffusionConfig
from lerobot_ray.policies.diffusion.schedule import NoiseSchedule, ddim_steps, ddpm_steps, noise_shares


def schedule(**options):
    return NoiseSchedule(DiffusionConfig(**options))


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # remaining signal after steps 0, 5 and 9 of 10, from diffusers 0.42.1
        ("linear", [0.9999, 0.9667, 0.9037]),
        ("scaled_linear", [0.9999, 0.9834, 0.9274]),
        ("squaredcos_cap_v2", [0.97209, 0.34081, 2.4091e-05]),
        ("sigmoid", [0.9999, 0.9764, 0.9036]),
        ("laplace", [0.8317, 0.6875, 0.0316]),
    ],
)
def test_schedules(name, expected):
    remaining = (1 - noise_shares(name, 10, start=1e-4, end=0.02)).cumprod(0)
    assert remaining[[0, 5, 9]].tolist() == pytest.approx(expected, abs=6e-5, rel=1e-4)


@pytest.mark.parametrize("plan", [ddpm_steps, ddim_steps])
@pytest.mark.parametrize("count", [1, 3, 10, 100])
def test_sampling_visits_evenly_spaced_steps_down_to_zero(plan, count):
    remaining = (1 - noise_shares("squaredcos_cap_v2", 100, start=1e-4, end=0.02)).cumprod(0)
    steps = plan(remaining, count)
    assert [step.timestep for step in steps] == [100 // count * place for place in reversed(range(count))]
    last = steps[-1]
    assert (last.clean, last.current, last.noise, last.fresh) == pytest.approx((1, 0, 0, 0), abs=1e-6)


def test_a_perfect_prediction_of_the_noise_leads_back_to_the_actions():
    actions, noise = torch.rand(2, 8, 3) * 1.6 - 0.8, torch.randn(2, 8, 3)
    ours = schedule(noise_scheduler_type="DDIM", num_inference_steps=10)
    x = ours.add_noise(actions, noise, torch.tensor([90, 90]))
    for step in ours.steps:
        signal, noisy = step.signal_scale, step.noise_scale
        x = ours.denoise(x, (x - signal * actions) / noisy, step)
    torch.testing.assert_close(x, actions, rtol=1e-3, atol=1e-3)


def test_ancestral_steps_have_the_posteriors_moments():
    """q(x_prev | x, x₀) is a normal whose mean and variance follow from those of adding noise (Ho et al., eq. 7)."""
    ours = schedule()
    alpha = 1 - noise_shares("squaredcos_cap_v2", 100, start=1e-4, end=0.02).double()
    remaining = alpha.cumprod(0)
    for step in ours.steps[:-1]:
        t = step.timestep
        beta, now, before = 1 - alpha[t], remaining[t], remaining[t - 1]
        assert step.clean == pytest.approx(float(before.sqrt() * beta / (1 - now)), rel=1e-4)
        assert step.current == pytest.approx(float(alpha[t].sqrt() * (1 - before) / (1 - now)), rel=1e-4)
        assert step.fresh == pytest.approx(float(((1 - before) / (1 - now) * beta).sqrt()), rel=1e-4)


def test_noise_is_added_per_sample():
    ours = schedule()
    actions, noise = torch.ones(3, 4, 2), torch.full((3, 4, 2), 2.0)
    got = ours.add_noise(actions, noise, torch.tensor([0, 50, 99]))
    for row, t in enumerate([0, 50, 99]):
        expected = ours.remaining[t].sqrt() + 2 * (1 - ours.remaining[t]).sqrt()
        assert got[row].flatten().tolist() == pytest.approx([float(expected)] * 8)


def test_the_table_is_no_part_of_the_weights_and_can_be_made_again():
    ours = schedule()
    assert not ours.state_dict()
    table = ours.remaining.clone()
    with torch.device("meta"):
        later = schedule()
    later.to_empty(device="cpu")
    later.init_buffers()
    assert torch.equal(later.remaining, table)
