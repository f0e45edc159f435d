"""Attention against torch's own, and the fixed positions against their formulas."""

import math

import pytest
import torch
from torch import nn

from lerobot_ray.policies.act.transformer import Attention, image_positions, sequence_positions


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_torchs(same, masked):
    torch.manual_seed(0)
    ours, torchs = Attention(16, 4), nn.MultiheadAttention(16, 4)
    torchs.load_state_dict(ours.state_dict())
    query, value = torch.randn(7, 3, 16, requires_grad=True), torch.randn(7, 3, 16)
    key = query if same else torch.randn(7, 3, 16)
    mask = torch.rand(3, 7) > 0.6 if masked else None
    if mask is not None:
        mask[:, 0] = False
    got, expected = (
        ours(query, key, value, key_padding_mask=mask)[0],
        torchs(query, key, value, key_padding_mask=mask)[0],
    )
    torch.testing.assert_close(got, expected)
    gradient = torch.autograd.grad(got.square().sum(), [query, *ours.parameters()])
    for a, b in zip(gradient, torch.autograd.grad(expected.square().sum(), [query, *torchs.parameters()]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_sequence_positions():
    table = sequence_positions(5, 6)
    for place in range(5):
        for j in range(6):
            angle = place / 10000 ** (2 * (j // 2) / 6)
            assert table[place, j].item() == pytest.approx(math.cos(angle) if j % 2 else math.sin(angle), abs=1e-7)


def test_image_positions():
    height, width, dim = 2, 3, 8
    table = image_positions(height, width, dim, torch.device("cpu"))
    assert table.shape == (6, 8)
    for row in range(height):
        for column in range(width):
            for j in range(dim):
                place, length = (row, height) if j < 4 else (column, width)
                angle = (place + 1) / (length + 1e-6) * 2 * math.pi / 10000 ** (2 * (j % 4 // 2) / 4)
                expected = math.cos(angle) if j % 2 else math.sin(angle)
                assert table[row * width + column, j].item() == pytest.approx(expected, abs=1e-6)


def test_positions_kept_from_inference_can_be_trained_with():
    with torch.inference_mode():
        kept = image_positions(3, 5, 4, torch.device("cpu"))
    assert image_positions(3, 5, 4, torch.device("cpu")) is kept
    weight = torch.ones(4, requires_grad=True)
    (kept * weight).sum().backward()
    assert weight.grad is not None
