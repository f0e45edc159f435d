"""The Hub's token on its way to a run's processes on other nodes: from the driver through the memory of the board.

Not in a runtime environment: Ray writes those to its logs (`runtime_env_agent.log`), values and all. What is no secret,
the Hub's address for one, travels that way.
"""

from __future__ import annotations

import os
from typing import Any

import ray

from lerobot_ray.hub.client import token

TOKEN_VARIABLE = "HF_TOKEN"
_PASSED_ON = ("HF_ENDPOINT", "HF_HUB_DISABLE_XET", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def give_token(board: Any) -> None:
    """The driver: hand over the token, if there is one."""
    if secret := token():
        ray.get(board.keep_token.remote(secret), timeout=60)


def adopt_token(board: Any) -> None:
    """Any other process: use the driver's token from here on. Own settings of its node are kept if there is none."""
    try:
        secret = ray.get(board.token.remote(), timeout=60)
    except ray.exceptions.RayError:  # the driver is gone, and the run with it
        return
    if secret:
        os.environ[TOKEN_VARIABLE] = secret


def hub_environment() -> dict[str, str]:
    """The driver's settings of the Hub's client that are no secrets."""
    found = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {name: value for name, value in found.items() if "@" not in value}  # an address may hold a password
