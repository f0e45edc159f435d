"""Which variables of this shell a job is given: the secrets its run needs, and what says where servers are.

Only what the run needs goes along: who may use a job server sees a job's environment (docs/security.md).
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot_ray.config.job import JobConfig
from lerobot_ray.config.train import TrainConfig, pushes_to_hub
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.hub.client import token as hub_token
from lerobot_ray.jobs.site import is_url

_AWS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_PLAIN = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "hub": ("HF_ENDPOINT", "HF_HUB_DISABLE_XET", "HF_HUB_OFFLINE"),
    "wandb": ("WANDB_BASE_URL",),
}
_MLFLOW = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True, kw_only=True)
class JobEnvironment:
    """Variables of a job."""

    plain: Mapping[str, str]
    secret: Mapping[str, str]

    def all(self) -> dict[str, str]:
        return {**self.plain, **self.secret}


def environment_for(
    config: TrainConfig,
    job: JobConfig,
    *,
    private_repos: bool,
    is_here: bool = False,
    always_hub_token: bool = False,
    places: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> JobEnvironment:
    """What a job of this run is given. `private_repos`: it reads some; `places`: what it starts from. ConfigError for a
    secret that is missing here and not said to be there (`job.cluster_has`)."""
    given = os.environ if environment is None else environment
    there = set(job.cluster_has)
    secret: dict[str, str] = {}
    plain: dict[str, str] = {}

    def take(names: tuple[str, ...], into: dict[str, str]) -> None:
        into.update({name: given[name] for name in names if given.get(name) and name not in there})

    take(_PLAIN["hub"], plain)
    pushes = pushes_to_hub(config) or config.save_checkpoint_to_hub
    if "HF_TOKEN" not in there and (pushes or private_repos or always_hub_token):
        token = hub_token()
        if token is None:
            reason = "pushes to the Hub" if pushes else "reads private repositories"
            raise ConfigError(_missing("HF_TOKEN", f"the run {reason}", "Run hf auth login, or set HF_TOKEN"))
        secret["HF_TOKEN"] = token
    if config.wandb.enable and config.wandb.mode not in ("offline", "disabled"):
        take(_PLAIN["wandb"], plain)
        if "WANDB_API_KEY" not in there:
            key = given.get("WANDB_API_KEY") or _wandb_key_from_netrc()
            if not key:
                raise ConfigError(
                    _missing("WANDB_API_KEY", "wandb.enable=true", "Set WANDB_API_KEY, or run wandb login")
                )
            secret["WANDB_API_KEY"] = key
    if config.mlflow.enable:
        if is_here or is_remote_server(given.get("MLFLOW_TRACKING_URI", "")):
            take(("MLFLOW_TRACKING_URI",), plain)
        take(_MLFLOW, secret)
    stores = (config.dataset.root, job.upload_to, config.ray.storage_path, *places)
    if any(str(place).startswith("s3://") for place in stores if is_url(place)):
        take(_PLAIN["s3"], plain)
        take(_AWS, secret)
    for name in job.env:
        if name not in given:
            raise ConfigError(f"job.env names {name}, which is not set in this shell.")
        secret[name] = given[name]
    return JobEnvironment(plain=plain, secret=secret)


def is_remote_server(address: str) -> bool:
    """Whether another machine can use this address too: not a file, not a server of this machine's own."""
    scheme, _, rest = address.partition("://")
    host = rest.rpartition("@")[2].partition("/")[0].partition(":")[0]
    return scheme not in ("file", "sqlite") and host not in ("localhost", "127.0.0.1", "[", "")


def _missing(name: str, why: str, remedy: str) -> str:
    return (
        f"{name} is missing: {why}. {remedy}; or, if the machines of the job have it already, "
        f"--job.cluster_has='[{name}]'."
    )


def _wandb_key_from_netrc() -> str | None:
    try:
        entry = netrc.netrc(str(Path("~/.netrc").expanduser())).authenticators("api.wandb.ai")
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None
