"""Pushes checkpoints to the Hub beside training, in order, each tagged with its step.

`hub.json` in the run's folder remembers what got there, so a restart asks for nothing twice.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from lerobot_ray.checkpoint.carrier import MAX_WAITING, Carrier
from lerobot_ray.data.retry import PATIENT, RetryPolicy
from lerobot_ray.hub.client import HubError, ask, scrubbed, url_of
from lerobot_ray.hub.content import list_refs, steps_of
from lerobot_ray.hub.push import TAG_ELSEWHERE, Patience, What, is_at, push_checkpoint

logger = logging.getLogger(__name__)

RECORD_NAME = "hub.json"


class CheckpointPusher(Carrier):
    """Lives on the rank that writes checkpoints. `submit` returns at once; nothing here raises into training."""

    def __init__(
        self,
        run_dir: Path,
        repo_id: str,
        *,
        what: What = "all",
        known_tags: Iterable[str] = (),
        max_waiting: int = MAX_WAITING,
        retry: RetryPolicy = PATIENT,
    ) -> None:
        """`known_tags`: the steps that were on the Hub when this run began. Another one is another run's."""
        self._repo_id, self._what, self._retry = repo_id, what, retry
        self._record = load_record_of_pushes(Path(run_dir), repo_id)
        self._known = {*known_tags, *self._record}
        super().__init__(
            run_dir,
            place="the Hub",
            is_there="on the Hub",
            advice=", or push less with --hub.what=model",
            max_waiting=max_waiting,
        )

    def _is_known(self, checkpoint: Path) -> bool:
        return checkpoint.name in self._record

    def _remedy(self) -> str:
        return f"Push what is still here: python -m lerobot_ray.push {self._run_dir} --repo-id={self._repo_id}"

    def _words_of(self, error: Exception) -> str:
        words = scrubbed(super()._words_of(error))
        if isinstance(error, HubError) and error.code == TAG_ELSEWHERE:
            self._stop(words)
        return words

    def _bring(self, checkpoint: Path) -> None:
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
