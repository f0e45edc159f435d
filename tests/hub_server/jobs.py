"""The jobs of one server. A job does nothing by itself: a test moves it along, or hands the server a `runner`."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from tests.hub_server.store import Refusal

TERMINAL = ("COMPLETED", "ERROR", "CANCELED", "DELETED")
HARDWARE = [
    {
        "name": "cpu-basic",
        "prettyName": "CPU Basic",
        "cpu": "2 vCPU",
        "ram": "16 GB",
        "ephemeralStorage": "50 GB",
        "accelerator": None,
        "unitCostMicroUSD": 167,
        "unitCostUSD": 0.000167,
        "unitLabel": "minute",
    },
    {
        "name": "a10g-small",
        "prettyName": "Nvidia A10G - small",
        "cpu": "4 vCPU",
        "ram": "15 GB",
        "ephemeralStorage": "110 GB",
        "accelerator": {"type": "gpu", "model": "A10G", "quantity": "1", "vram": "24 GB", "manufacturer": "Nvidia"},
        "unitCostMicroUSD": 16667,
        "unitCostUSD": 0.016667,
        "unitLabel": "minute",
    },
]


@dataclass
class Job:
    id: str
    namespace: str
    request: dict[str, Any]
    stage: str = "SCHEDULING"
    message: str | None = None
    created_at: str = ""
    finished_at: str | None = None
    logs: list[tuple[str, str]] = field(default_factory=list)
    """(ISO time, line)"""

    @property
    def secrets(self) -> dict[str, str]:
        """What the run was given in confidence. For tests to look at; the API shows the names alone."""
        return self.request.get("secrets") or {}

    def as_json(self) -> dict[str, Any]:
        owner = {"id": f"id-{self.namespace}", "name": self.namespace, "type": "user"}
        shown = ("dockerImage", "spaceId", "command", "arguments", "environment", "flavor", "labels")
        return {
            "id": self.id,
            "createdAt": self.created_at,
            "startedAt": self.created_at,
            "finishedAt": self.finished_at,
            **{key: self.request.get(key) for key in shown},
            "secrets": sorted(self.secrets),
            "status": {"stage": self.stage, "message": self.message},
            "owner": owner,
            "initiator": owner,
        }


class Jobs:
    """All jobs of one server. `runner(job)` is called in a thread of its own for each new job, if there is one."""

    def __init__(self, runner: Callable[[Job], None] | None = None) -> None:
        self.runner, self.by_id, self._numbers = runner, {}, itertools.count(1)
        self.lock = threading.Lock()

    def create(self, namespace: str, request: dict[str, Any]) -> Job:
        if not request.get("command") or not (request.get("dockerImage") or request.get("spaceId")):
            raise Refusal(400, "A job needs a command and an image or a space")
        with self.lock:
            job = Job(f"{next(self._numbers):024x}", namespace, request, created_at=_now())
            self.by_id[job.id] = job
        if self.runner is not None:
            threading.Thread(target=self.runner, args=(job,), daemon=True).start()
        return job

    def get(self, namespace: str, job_id: str) -> Job:
        job = self.by_id.get(job_id)
        if job is None or job.namespace != namespace:
            raise Refusal(404, "Job not found")
        return job

    def listing(self, namespace: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        labels = dict(label.split("=", 1) for label in query.get("label", []))
        return [
            job.as_json()
            for job in self.by_id.values()
            if job.namespace == namespace
            and job.stage in query.get("stage", [job.stage])
            and labels.items() <= (job.request.get("labels") or {}).items()
        ]

    def set_stage(self, job: Job, stage: str, message: str | None = None) -> None:
        job.stage, job.message = stage, message
        job.finished_at = _now() if stage in TERMINAL else None

    def log(self, job: Job, line: str) -> None:
        job.logs.append((_now(), line))

    def events(self, job: Job, tail: int | None) -> bytes:
        """The log so far as server-sent events."""
        lines = job.logs[-tail:] if tail else job.logs
        events = ("data: " + json.dumps({"data": line, "timestamp": time}) + "\n\n" for time, line in lines)
        return "".join(events).encode()


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
