"""One thread for torch: the models are tiny, and test machines are shared."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
