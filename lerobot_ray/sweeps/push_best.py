"""The best trial's policy on the Hub, with the settings that made it."""

from __future__ import annotations

from pathlib import Path

from lerobot_ray.hub.client import url_of
from lerobot_ray.hub.upload import ensure_repo, send_commit
from lerobot_ray.sweeps.best import BEST_FILE
from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.trial import Trial


def check_push(plan: SweepPlan) -> None:
    """ConfigError when the best policy could not be pushed in the end: asked before the first trial."""
    policy = plan.config.policy
    assert policy is not None
    assert policy.repo_id
    ensure_repo(policy.repo_id, private=policy.private, instead="Or leave out --push_best.")


def push_best(plan: SweepPlan, best: Trial, folder: Path) -> str:
    """Send the policy folder and `best.yaml` in one commit; the repository's address."""
    policy = plan.config.policy
    assert policy is not None
    assert policy.repo_id
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    files[BEST_FILE] = plan.folder / BEST_FILE
    ensure_repo(policy.repo_id, private=policy.private)
    score = best.score(plan.sweep)
    send_commit(policy.repo_id, files, message=f"Best of sweep {plan.name}: {plan.sweep.metric} {score:.4g}")
    return url_of(policy.repo_id)
