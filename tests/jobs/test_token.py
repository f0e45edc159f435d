"""A head that asks for a token: who has it may submit, who has not is told so."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.jobs.heads import running_head

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOKEN = "a-token-of-these-tests-0123456789abcdef"


def test_with_a_token_detached_until_its_time_is_up(flags, tmp_path):
    with running_head(token=TOKEN) as head:
        options = ["--address", head.address, "--detach", "--timeout=25s"]
        left = head.run(*options, "--", *flags, "--steps=100000", cwd=tmp_path)
        assert left.returncode == 0, left.stdout + left.stderr
        assert "step 1/" not in left.stdout
        job_id = re.search(r"follow: +python -m lerobot_ray.submit logs (\S+) --address", left.stderr)[1]
        for wrong in ({"RAY_AUTH_TOKEN": "b" * 40}, {"RAY_AUTH_MODE": "disabled"}):
            stranger = replace(head, environment={**head.environment, **wrong})
            closed = stranger.run("list", "--address", head.address, cwd=tmp_path)
            assert closed.returncode == 2
            assert "asks for a token" in closed.stderr
            assert TOKEN not in closed.stderr + closed.stdout
        ended = head.run("logs", job_id, "--address", head.address, cwd=tmp_path)
        assert ended.returncode == 124, ended.stdout + ended.stderr
        assert "the time of this job is up" in ended.stdout
        assert list((tmp_path / "out" / "checkpoints").glob("0*")), "with a checkpoint"
        assert TOKEN not in ended.stderr + ended.stdout
