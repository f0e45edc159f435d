"""A head that asks for a token: who has it may submit, who has not is told so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.jobs.heads import running_head
from tests.on_ray.runs import TINY_ACT

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOKEN = "a-token-of-these-tests-0123456789abcdef"


@pytest.fixture
def flags(toy_root, tmp_path):
    return [
        *("--dataset.repo_id=tests/toy", f"--dataset.root={toy_root}", f"--output_dir={tmp_path / 'out'}"),
        *(*TINY_ACT, "--batch_size=4", "--log_freq=1", "--mlflow.enable=false"),
    ]


def test_with_a_token_and_exit_codes(flags, tmp_path):
    with running_head(token=TOKEN) as head:
        refused = head.run("--address", head.address, "--", *flags, "--steps=2", "--batch_size=5000", cwd=tmp_path)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert "a global batch of 5000" in refused.stdout
        for wrong in ({"RAY_AUTH_TOKEN": "b" * 40}, {"RAY_AUTH_MODE": "disabled"}):
            stranger = replace(head, environment={**head.environment, **wrong})
            closed = stranger.run("list", "--address", head.address, cwd=tmp_path)
            assert closed.returncode == 2
            assert "asks for a token" in closed.stderr
            assert TOKEN not in closed.stderr + closed.stdout
