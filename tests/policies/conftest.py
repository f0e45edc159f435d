"""One thread for torch: the models are tiny, and test machines are shared."""

import pytest
import torch

SLOW = [
    f"test_ten_optimizer_steps[{case}]"
    for case in (
        "act_dilated_resnet50",
        "act_ensemble",
        "act_vae_two_cameras",
        "diffusion_resize_groups",
        "diffusion_separate_crop",
    )
]
"""Tests over all cases that take long for these. Their parameters are the module's, so they cannot carry the mark."""


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in SLOW:
            item.add_marker(pytest.mark.slow)
