"""Which failures of the Hub's client may pass: the one place that knows the client's exceptions apart."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.data.retry import TransientError, asked_wait_s

PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}
LASTING_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
"""What this machine's own disk says; asking the Hub again changes nothing."""


@contextmanager
def passing_failures() -> Iterator[None]:
    """Turn what may pass into TransientError. What the Hub refuses for good comes out as the client's HfHubHTTPError,
    what this machine's disk refuses as the OSError it is."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The client's transport has changed twice; whichever it is, its errors share a base with HfHubHTTPError.
    transport_errors: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)
    try:
        yield
    except (LerobotRayError, TransientError, OfflineModeIsEnabled):
        raise
    except HfHubHTTPError as error:
        response = getattr(error, "response", None)
        if response is not None and response.status_code in PASSING_STATUSES:
            wait_s = asked_wait_s(response.headers)
            raise TransientError(f"the Hub answers {response.status_code}", wait_s) from error
        raise
    except transport_errors as error:
        if getattr(error, "errno", None) in LASTING_ERRNOS:
            raise
        raise TransientError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        # After a failed connection the client closes the session that other threads are using.
        raise TransientError(str(error)) from error
