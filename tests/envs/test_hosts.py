"""Asking environments: an answer that came in time is never lost, however late it is read."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lerobot_ray.envs.hosts import EnvFailed, open_hosts, those_ready
from tests.envs.actors_for_tests import IN_NUMBERS
from tests.envs.envs_for_tests import troubled


@pytest.fixture
def hosts():
    opened = open_hosts(IN_NUMBERS, 2, is_async=True, timeout_s=600)
    yield opened
    for host in opened:
        host.close()


def test_environments_answer_whoever_is_first(hosts):
    for number, host in enumerate(hosts):
        host.ask_reset(number, with_picture=False)
    owing = list(hosts)
    while owing:
        for host in those_ready(owing):
            assert set(host.answer().observation) == {"observation.state", "observation.environment_state"}
            owing.remove(host)


def test_an_answer_read_late_counts(hosts):
    host = hosts[0]
    host.ask_reset(0, with_picture=False)
    while not host.connection.poll(1):
        pass
    host.deadline = time.monotonic() - 1  # the policy was busy with other episodes meanwhile
    assert those_ready([host]) == [host]
    assert host.answer().reward == 0.0


def test_after_a_failure_there_is_a_fresh_environment():
    (host,) = open_hosts(troubled(raises=[0]), 1, is_async=True, timeout_s=600)
    try:
        for _ in range(2):
            host.ask_reset(0, with_picture=False)
            host.answer()
            for _ in range(2):
                host.ask_step(np.zeros(2, dtype=np.float32), with_picture=False)
                host.answer()
            host.ask_step(np.zeros(2, dtype=np.float32), with_picture=False)
            with pytest.raises(EnvFailed, match="on fire"):
                host.answer()
    finally:
        host.close()
