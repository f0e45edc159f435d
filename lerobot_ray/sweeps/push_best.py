"""The best trial's policy on the Hub, with the settings that made it."""

from __future__ import annotations

from pathlib import Path

from lerobot_ray.hub.client import url_of
from lerobot_ray.hub.push import push_policy
from lerobot_ray.hub.upload import ensure_repo
from lerobot_ray.sweeps.best import BEST_FILE
from lerobot_ray.sweeps.plan import SweepPlan


def check_push(plan: SweepPlan) -> None:
    """ConfigError when the best policy could not be pushed in the end: asked before the first trial."""
    policy = plan.config.policy
    assert policy is not None
    assert policy.repo_id
    ensure_repo(policy.repo_id, private=policy.private, instead="Or leave out --push_best.")


def push_best(plan: SweepPlan, folder: Path) -> str:
    """Send the policy folder and `best.yaml` in one commit; the repository's address."""
    policy = plan.config.policy
    assert policy is not None
    assert policy.repo_id
    ensure_repo(policy.repo_id, private=policy.private)
    push_policy(folder, policy.repo_id, beside={BEST_FILE: plan.folder / BEST_FILE})
    return url_of(policy.repo_id)
