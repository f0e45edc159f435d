"""This process's way to the Hub: where it is, with which token, and calls that are tried again while that may help.

The token comes from `HF_TOKEN` or the file that `hf auth login` writes, and goes nowhere but into requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.data.hub_failures import passing_failures
from lerobot_ray.data.hub_storage import is_offline
from lerobot_ray.data.retry import RetryPolicy, TransientError, call_with_retries

T = TypeVar("T")
RepoType = Literal["model", "dataset"]
DEFAULT_ENDPOINT = "https://huggingface.co"


class HubError(StorageError):
    """The Hub refuses, or cannot be reached. `status` is 0 when it did not answer."""

    def __init__(self, reason: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(reason)
        self.reason, self.status, self.code = reason, status, code

    def __reduce__(self):  # keyword arguments do not survive the default, which calls cls(*args)
        return _rebuild_hub_error, (self.reason, self.status, self.code)

    def __str__(self) -> str:
        return self.reason


def _rebuild_hub_error(reason: str, status: int, code: str) -> HubError:
    return HubError(reason, status=status, code=code)


def endpoint() -> str:
    """The Hub's address, read now: the client reads it when it is imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_ENDPOINT


def token() -> str | None:
    """The token of this process, or None."""
    from huggingface_hub import get_token

    return get_token()


def url_of(repo_id: str, repo_type: RepoType = "model") -> str:
    """Where a person finds the repository."""
    return f"{endpoint()}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"


def check_can_push(what: str, instead: str) -> None:
    """ConfigError when this process could not push anything anywhere. Asks nobody."""
    if is_offline():
        raise ConfigError(f"{what} goes to the Hub, but HF_HUB_OFFLINE is set. Unset it, or {instead}.")
    if token() is None:
        raise ConfigError(
            f"{what} goes to the Hub, and there is no token. Set HF_TOKEN or run `hf auth login`, or {instead}."
        )


def ask(
    what: str,
    question: Callable[[Any], T],
    *,
    retry: RetryPolicy | None = None,
    check: Callable[[], None] = lambda: None,
) -> T:
    """`question(api)`, tried again while the Hub is busy or the line is cut. HubError when that does not help.

    `check` is called every moment while waiting; what it raises ends the wait.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint(), token=token() or False, library_name="lerobot_ray")

    def attempt() -> T:
        try:
            with passing_failures():
                return question(api)
        except OfflineModeIsEnabled as error:
            raise HubError(f"{what} needs the Hub, but HF_HUB_OFFLINE is set. Start again without it.") from error
        except HfHubHTTPError as error:
            raise _refused(what, error) from error

    try:
        return call_with_retries(attempt, what=what, policy=retry or RetryPolicy(), check=check)
    except TransientError as error:
        raise HubError(f"{what}: the Hub at {endpoint()} cannot be used: {error}.") from error


def _refused(what: str, error: Any) -> HubError:
    response = error.response
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    said = response.headers.get("X-Error-Message") or ""
    if status == 401 and not code:
        remedy = "The token in HF_TOKEN (or from `hf auth login`) is not accepted. Make a new one."
    elif status == 403:
        remedy = "The token in use has no right to do this. Use one with write access to that namespace."
    elif code == "RepoNotFound":
        there = "or it is private and " + ("the token in use has no access" if token() else "no token is set")
        remedy = f"There is no such repository, {there}."
    else:
        remedy = ""
    return HubError(
        scrubbed(f"{what}: the Hub at {endpoint()} answers {status}{': ' + said if said else ''}. {remedy}".strip()),
        status=status,
        code=code,
    )


def scrubbed(text: str) -> str:
    """The text without this process's token, should a server have sent it back."""
    secret = token()
    return text.replace(secret, "***") if secret else text
