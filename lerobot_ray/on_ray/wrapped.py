"""Our own errors inside those that Ray wraps around them on their way from a worker or an actor to the driver."""

from __future__ import annotations

from lerobot_ray.core.errors import LerobotRayError


def own_error(error: BaseException) -> LerobotRayError | None:
    """Our own error that ended a worker, an actor or a task, wherever Ray has wrapped it; None when there is none."""
    from ray.exceptions import RayError

    if isinstance(error, LerobotRayError) and not isinstance(error, RayError):  # a wrapper may be both
        return error
    inside = [*(getattr(error, "worker_failures", None) or {}).values()]
    inside += [getattr(error, name, None) for name in ("controller_failure", "cause", "__cause__")]
    found = (own_error(cause) for cause in inside if isinstance(cause, BaseException))
    return next((own for own in found if own is not None), None)
