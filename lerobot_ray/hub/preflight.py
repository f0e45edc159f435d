"""What is asked of the Hub before any worker starts: a token, a repository to write to, and no other run in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.commit import MANIFEST_NAME
from lerobot_ray.config.train import TrainConfig, pushes_to_hub
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, CONFIG_NAME, PRETRAINED_DIR
from lerobot_ray.hub.client import ask, check_can_push
from lerobot_ray.hub.content import list_refs, steps_of
from lerobot_ray.hub.push import What, is_at
from lerobot_ray.hub.upload import ensure_repo


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """What a run brings to the Hub. Picklable; holds no token."""

    repo_id: str
    private: bool | None
    what: What
    checkpoints: bool
    """Each of them, tagged with its step."""
    policy: bool
    """The finished one, at the root."""
    known_tags: tuple[str, ...] = ()
    """Steps that were there when the run began."""


def plan_push(config: TrainConfig, *, resume_from: Path | None = None, first_step: int = 0) -> PushPlan | None:
    """The plan of a run that begins at `first_step`, its repository made; None when nothing is to be pushed.

    ConfigError when it could not work: no token, no right, another policy's repository, another run's checkpoints.
    """
    wants_policy = pushes_to_hub(config)
    policy: Any = config.policy
    if not (config.save_checkpoint_to_hub or wants_policy):
        return None
    if config.save_checkpoint_to_hub and not config.save_checkpoint:
        raise ConfigError("save_checkpoint_to_hub uploads what save_checkpoint writes. Leave save_checkpoint on.")
    repo_id = str(policy.repo_id)
    instead = "leave out save_checkpoint_to_hub" if config.save_checkpoint_to_hub else "set --policy.push_to_hub=false"
    check_can_push(f"policy.repo_id={repo_id}", instead)
    is_new = ensure_repo(repo_id, private=policy.private, instead=f"Or {instead}.")
    steps: list[str] = []
    if not is_new:
        head, tags = ask(f"asking for the tags of {repo_id}", lambda api: list_refs(api, repo_id))
        steps = steps_of(tags)
        _check_type(repo_id, policy.type, head, steps, tags)
        if config.save_checkpoint_to_hub:
            _check_steps(repo_id, steps, tags, resume_from=resume_from, first_step=first_step)
    return PushPlan(
        repo_id=repo_id,
        private=policy.private,
        what=config.hub.what,
        checkpoints=config.save_checkpoint_to_hub,
        policy=wants_policy,
        known_tags=tuple(steps),
    )


def _check_type(repo_id: str, kind: str, head: str | None, steps: Sequence[str], tags: dict[str, str]) -> None:
    """ConfigError when a policy of another type lives there."""
    places = [(head, CONFIG_NAME)] if head else []
    places += [(tags[name], f"{CHECKPOINTS_DIR}/{name}/{PRETRAINED_DIR}/{CONFIG_NAME}") for name in steps[-1:]]
    for commit, path in places:
        there = ask(f"reading {path} of {repo_id}", partial(_json, repo_id=repo_id, commit=commit, path=path))
        if there and there.get("type") not in (None, kind):
            raise ConfigError(
                f"{repo_id} holds a policy of type {there['type']}, this run trains {kind}. Push it to another "
                "--policy.repo_id."
            )


def _check_steps(
    repo_id: str, steps: Sequence[str], tags: dict[str, str], *, resume_from: Path | None, first_step: int
) -> None:
    """ConfigError when steps this run will reach are taken, or the step it continues is another run's."""
    later = [name for name in steps if int(name) > first_step]
    if later:
        if first_step == 0:
            raise ConfigError(
                f"{repo_id} holds checkpoints of another run already ({_some(steps)}). Continue that run with "
                f"--resume=true --config_path={repo_id}, or push to another --policy.repo_id."
            )
        raise ConfigError(
            f"{repo_id} holds checkpoints of later steps than the {first_step} this run continues from "
            f"({_some(later)}). Continue from the newest with --resume=true --config_path={repo_id}, push to another "
            f"--policy.repo_id, or remove those tags first: HfApi().delete_tag({repo_id!r}, tag={later[0]!r})."
        )
    if resume_from is None or resume_from.name not in tags or not (resume_from / MANIFEST_NAME).is_file():
        return
    if not is_at(resume_from, repo_id, tags[resume_from.name]):
        raise ConfigError(
            f"tag {resume_from.name} of {repo_id} names another checkpoint than {resume_from}, which this run "
            f"continues: they are of different runs. Push to another --policy.repo_id."
        )


def _json(api: Any, *, repo_id: str, commit: str | None, path: str) -> dict[str, Any]:
    """A small JSON file at a commit; empty where there is none, or it is no JSON."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return dict(json.loads(Path(api.hf_hub_download(repo_id, path, revision=commit)).read_text(encoding="utf-8")))
    except (EntryNotFoundError, ValueError):
        return {}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:2])} … {names[-1]}"
