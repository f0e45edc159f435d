"""Batches made beside the step on a GPU are the batches made in its stream."""

from __future__ import annotations

import pytest
import torch

from lerobot_ray.on_ray.batches import beside_the_step


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_made_beside_a_step_is_whole_when_it_is_used(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    place = torch.device(device)
    weight = torch.eye(512, device=place)
    for number in range(20):
        for _ in range(20):  # a step that keeps the device busy while the next batch is made
            weight = weight @ weight
        with beside_the_step(place) as lane:
            batch = {"x": torch.full((1 << 20,), float(number)).to(place, non_blocking=True) + 1, "task": ["a"]}
        lane.hand_over(batch)
        total = batch["x"].sum()
        del batch
        assert float(total) == (number + 1) * (1 << 20)
