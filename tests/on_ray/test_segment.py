"""The processes of decode actors."""

from __future__ import annotations

import os

import pytest

from lerobot_ray.on_ray.segment import PAST_THE_CACHE, decoder_environment

pytestmark = pytest.mark.ray


def test_the_users_own_settings_of_the_c_library_have_the_last_word():
    assert decoder_environment({"HOME": "/home"}) == {"GLIBC_TUNABLES": PAST_THE_CACHE}
    assert decoder_environment({"GLIBC_TUNABLES": "a.b=1"}) == {"GLIBC_TUNABLES": f"{PAST_THE_CACHE}:a.b=1"}


def test_a_decode_actor_knows_what_its_training_process_was_told(ray_cluster):
    """The Hub's address, for one: settings for decoding come to those, not in their place."""
    ray = ray_cluster

    @ray.remote(num_cpus=0)
    def environment() -> dict[str, str]:
        return dict(os.environ)

    @ray.remote(num_cpus=0)
    def training() -> dict[str, str]:
        return ray.get(environment.options(runtime_env={"env_vars": decoder_environment({})}).remote())

    told = {"env_vars": {"HF_ENDPOINT": "http://hub.test"}}
    seen = ray.get(training.options(runtime_env=told).remote())
    assert seen["HF_ENDPOINT"] == "http://hub.test"
    assert seen["GLIBC_TUNABLES"] == PAST_THE_CACHE
