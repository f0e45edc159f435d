"""Temporal ensembling against its definition: weighted means over all predictions of a step."""

import pytest
import torch

from lerobot_ray.policies.act.ensemble import TemporalEnsemble


@pytest.mark.parametrize("coefficient", [0.3, 0.0, -0.1])
def test_each_action_is_the_weighted_mean_of_all_predictions(coefficient):
    steps, size = 12, 5
    torch.manual_seed(0)
    chunks = torch.randn(steps, 2, size, 3)
    ensemble = TemporalEnsemble(coefficient, size)
    for now in range(steps):
        action = ensemble.update(chunks[now])
        predictions = [chunks[made][:, now - made] for made in range(max(0, now - size + 1), now + 1)]  # oldest first
        weights = torch.exp(-coefficient * torch.arange(len(predictions)))
        expected = sum(w * p for w, p in zip(weights, predictions, strict=True)) / weights.sum()
        torch.testing.assert_close(action, expected)


def test_a_new_episode_forgets():
    ensemble = TemporalEnsemble(0.1, 3)
    first = torch.randn(1, 3, 2)
    ensemble.update(torch.randn(1, 3, 2))
    ensemble.reset()
    assert torch.equal(ensemble.update(first), first[:, 0])


def test_the_chunk_given_is_not_changed():
    ensemble, chunk = TemporalEnsemble(0.1, 3), torch.randn(1, 3, 2)
    before = chunk.clone()
    ensemble.update(chunk)
    ensemble.update(chunk)
    assert torch.equal(chunk, before)
