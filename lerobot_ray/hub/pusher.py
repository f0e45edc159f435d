"""Pushes checkpoints beside training: one thread, in order, and whatever goes wrong is a warning.

What waits is bounded: when saving is faster than the line, the oldest one waiting is left out, because the newest is
what a resume wants. `hub.json` in the run's folder remembers what got there, so a restart asks for nothing twice.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.data.retry import RetryPolicy
from lerobot_ray.hub.client import HubError, ask, scrubbed, url_of
from lerobot_ray.hub.content import list_refs, steps_of
from lerobot_ray.hub.push import TAG_ELSEWHERE, Patience, What, is_at, push_checkpoint
from lerobot_ray.hub.upload import LONG

logger = logging.getLogger(__name__)

RECORD_NAME = "hub.json"
MAX_WAITING = 3


class _Abandoned(Exception):
    """The run ends without waiting for this upload."""


class CheckpointPusher:
    """Lives on the rank that writes checkpoints. `submit` returns at once; nothing here raises into training."""

    def __init__(
        self,
        run_dir: Path,
        repo_id: str,
        *,
        what: What = "all",
        known_tags: Iterable[str] = (),
        max_waiting: int = MAX_WAITING,
        retry: RetryPolicy = LONG,
    ) -> None:
        """`known_tags`: the steps that were on the Hub when this run began. Another one is another run's."""
        self._run_dir, self._repo_id, self._what = Path(run_dir), repo_id, what
        self._record = load_record_of_pushes(self._run_dir, repo_id)
        self._known = {*known_tags, *self._record}
        self._waiting: deque[Path] = deque()
        self._max_waiting, self._retry = max_waiting, retry
        self._uploading: Path | None = None
        self._state = threading.Condition()
        self._is_closing, self._is_abandoned = False, False
        self._stopped_by = ""
        self.missing: list[Path] = []
        """Checkpoints that did not get there."""
        self._thread = threading.Thread(target=self._work, name="hub-push", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Path) -> None:
        """Push this complete checkpoint when its turn comes."""
        with self._state:
            if checkpoint.name in self._record or checkpoint in self._waiting:
                return
            if self._stopped_by:
                self.missing.append(checkpoint)
                return
            self._waiting.append(checkpoint)
            while len(self._waiting) > self._max_waiting:
                left_out = self._waiting.popleft()
                self.missing.append(left_out)
                logger.warning(
                    "uploading to the Hub is slower than saving: the checkpoint of step %d is left out. Save less "
                    "often, or push less with --hub.what=model.",
                    int(left_out.name),
                )
            self._state.notify_all()

    def is_needed(self, checkpoint: Path) -> bool:
        """Whether this checkpoint waits or is being read: it must not be removed now."""
        with self._state:
            return checkpoint == self._uploading or checkpoint in self._waiting

    def finish(self) -> None:
        """Wait until everything is there or has failed."""
        with self._state:
            self._is_closing = True
            self._state.notify_all()
            waiting = len(self._waiting) + (self._uploading is not None)
        if waiting:
            logger.info("waiting for %d checkpoint%s on the way to the Hub", waiting, "" if waiting == 1 else "s")
        self._thread.join()

    def abandon(self) -> None:
        """End now: this process will be started again, or the run has failed. What was on its way is not there."""
        with self._state:
            self._is_closing = self._is_abandoned = True
            self._leave_out_waiting()
            self._state.notify_all()
        self._thread.join(timeout=2.0)  # a request under way cannot be called back; the thread ends with the process

    def summary(self) -> str:
        """What did not get there and how to bring it there; empty when all did."""
        if not self.missing:
            return ""
        names = ", ".join(path.name for path in self.missing)
        here = [path for path in self.missing if path.is_dir()]
        how = f" Push what is still here: python -m lerobot_ray.push {self._run_dir} --repo-id={self._repo_id}"
        return f"not on the Hub: the checkpoints {names} of {self._run_dir}.{how if here else ''}"

    # The thread

    def _work(self) -> None:
        while True:
            with self._state:
                while not self._waiting and not self._is_closing:
                    self._state.wait()
                if not self._waiting:
                    return
                self._uploading = self._waiting.popleft()
            checkpoint, failure = self._uploading, ""
            try:
                self._push(checkpoint)
            except _Abandoned:
                failure = "the run ended first"
            except Exception as error:  # a push is never worth a run
                failure = scrubbed(str(error) or type(error).__name__)
                if isinstance(error, HubError) and error.code == TAG_ELSEWHERE:
                    self._stop(failure)
                elif not isinstance(error, LerobotRayError):
                    logger.debug("push failed", exc_info=True)
            with self._state:
                self._uploading = None
                if failure:
                    self.missing.append(checkpoint)
                if self._stopped_by or self._is_abandoned:
                    self._leave_out_waiting()
            if failure:
                logger.warning("the checkpoint of step %d is not on the Hub: %s", int(checkpoint.name), failure)

    def _push(self, checkpoint: Path) -> None:
        patience = Patience(self._retry, self._go_on)
        self._refuse_another_run(checkpoint, patience)
        started = time.monotonic()
        commit = push_checkpoint(checkpoint, self._repo_id, what=self._what, run_dir=self._run_dir, patience=patience)
        with self._state:
            self._record[checkpoint.name] = commit
            self._known.add(checkpoint.name)
            save_record_of_pushes(self._run_dir, self._repo_id, self._record)
        logger.info(
            "checkpoint of step %d is on the Hub after %.1f s: %s, tag %s",
            int(checkpoint.name),
            time.monotonic() - started,
            url_of(self._repo_id),
            checkpoint.name,
        )

    def _refuse_another_run(self, checkpoint: Path, patience: Patience) -> None:
        """HubError when a step has appeared that this run did not push."""
        _, tags = ask(
            f"asking for the tags of {self._repo_id}",
            lambda api: list_refs(api, self._repo_id),
            retry=patience.retry,
            check=patience.check,
        )
        for name in steps_of(tags):
            if name in self._known:
                continue
            mine = checkpoint.with_name(name)  # tagged by this run, killed before it could write that down
            if mine.is_dir() and is_at(mine, self._repo_id, tags[name], patience=patience):
                self._known.add(name)
                continue
            raise HubError(
                f"another run pushes to {self._repo_id}: it has tagged step {name}. This run stops pushing; give it a "
                "repository of its own with --policy.repo_id.",
                status=409,
                code=TAG_ELSEWHERE,
            )

    def _go_on(self) -> None:
        if self._is_abandoned:
            raise _Abandoned

    def _stop(self, reason: str) -> None:
        with self._state:
            self._stopped_by = reason

    def _leave_out_waiting(self) -> None:
        self.missing.extend(self._waiting)
        self._waiting.clear()


def load_record_of_pushes(run_dir: Path, repo_id: str) -> dict[str, str]:
    """Step folder -> commit, of what this run has brought to the repository."""
    try:
        document = json.loads((run_dir / RECORD_NAME).read_text())
        return dict(document["pushed"]) if document["repo_id"] == repo_id else {}
    except (OSError, ValueError, KeyError, TypeError):  # absent or torn: the Hub is asked instead
        return {}


def save_record_of_pushes(run_dir: Path, repo_id: str, pushed: dict[str, str]) -> None:
    path = run_dir / RECORD_NAME
    fresh = path.with_name(f".{RECORD_NAME}")
    fresh.write_text(json.dumps({"repo_id": repo_id, "pushed": pushed}, indent=2))
    os.replace(fresh, path)
