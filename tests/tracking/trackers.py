"""Trackers for tests: one that remembers, and ones that misbehave."""

from __future__ import annotations

import threading
from pathlib import Path

from lerobot_ray.tracking.protocol import Outcome, RunInfo


class Recorder:
    """Remembers what it was told, and by which thread."""

    def __init__(self):
        self.calls: list[tuple] = []
        self.threads: set[str] = set()

    def _note(self, *call):
        self.threads.add(threading.current_thread().name)
        self.calls.append(call)

    def start(self, run):
        self._note("start", run.name)

    def log(self, values, *, step, time_s=None):
        self._note("log", step, dict(values))

    def log_checkpoint(self, checkpoint, *, step):
        self._note("checkpoint", step, checkpoint)

    def log_file(self, path, *, folder=""):
        self._note("file", path, folder)

    def close(self, outcome):
        self._note("close", outcome)

    @property
    def steps(self):
        return [call[1] for call in self.calls if call[0] == "log"]


class Failing(Recorder):
    """Raises in the methods named, the first `times` calls of each."""

    def __init__(self, *methods: str, times: int = 10**9, error: type[Exception] = ConnectionError):
        super().__init__()
        self._methods, self._times, self._error = methods, times, error
        self.failed = 0

    def _note(self, *call):
        if call[0] in self._methods and self.failed < self._times:
            self.failed += 1
            raise self._error("http://user:hunter2@host is away")
        super()._note(*call)


class Stuck(Recorder):
    """Waits in `log` until released."""

    def __init__(self):
        super().__init__()
        self.release = threading.Event()
        self.entered = threading.Event()

    def log(self, values, *, step, time_s=None):
        self.entered.set()
        self.release.wait()
        super().log(values, step=step, time_s=time_s)


def run_info(output_dir: Path, **changes) -> RunInfo:
    known = {
        "output_dir": output_dir,
        "name": "act",
        "total_steps": 1000,
        "config": {"policy": {"type": "act", "chunk_size": 8}, "seed": 1000, "rename_map": {}},
        "environment": {"python": "3.11", "packages": {"torch": "2.11.0", "av": "14"}},
        "facts": {"num_samples": 72},
        "world_size": 2,
        "global_batch": 16,
    }
    return RunInfo(**{**known, **changes})


FINISHED = Outcome()
