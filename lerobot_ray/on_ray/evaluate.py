"""Policies evaluated on their own: finds them, refuses what cannot work, plays, writes `eval_info.json` and the page.

<output_dir>/eval_info.json       of one policy; of several: a list of them with their overall numbers
<output_dir>/videos/…             of one policy; of several each has a folder of its own, named after it
<output_dir>/evaluation.html      the page
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.checkpoint.policy_folder import saved_rename_map
from lerobot_ray.config.decode import decode
from lerobot_ray.config.evaluate import EvaluateCommand
from lerobot_ray.config.files import load_train_config
from lerobot_ray.config.flags import Flags, lay_over
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.sources import Fetch, look_up_policy
from lerobot_ray.config.text import Text
from lerobot_ray.core.errors import CheckpointError, LerobotRayError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, LAST_LINK, PRETRAINED_DIR
from lerobot_ray.envs.eval_info import INFO_NAME, save_info, sentence_of
from lerobot_ray.hub.elsewhere import fetch as fetch_from_elsewhere
from lerobot_ray.on_ray.cluster import Workers, connected, nodes_of_cluster
from lerobot_ray.on_ray.ending import say
from lerobot_ray.on_ray.evaluated import evaluated_folder
from lerobot_ray.on_ray.evaluation import Evaluation, EvaluationPlan, portions, resources_of
from lerobot_ray.on_ray.recordings import keep_recordings
from lerobot_ray.on_ray.rollout_actor import PolicySource
from lerobot_ray.on_ray.rollout_check import check_environment, check_room
from lerobot_ray.on_ray.rollout_pool import RolloutPool
from lerobot_ray.report_page.evaluation_page import write_evaluation_page

IN_FLIGHT = 2
"""Evaluations at once, so that no actor waits for the last episodes of another one's policy."""
POLL_S = 0.3


@dataclass(frozen=True)
class FoundPolicy:
    """One policy to evaluate."""

    name: str
    step: int | None
    source: PolicySource


def evaluate(command: EvaluateCommand, *, output_dir: Path, fetch: Fetch | None = fetch_from_elsewhere) -> int:
    """Play everything; the exit code: 0, or 1 when a policy could not be played. What is refused is raised."""
    config = command.config
    policies = find_policies(command, fetch=fetch)
    for policy in policies:
        saved = saved_rename_map(policy.source.folder)
        check_environment(config.env, policy.source.config, rename_map=config.rename_map or saved)
    output_dir = output_dir.expanduser().absolute()
    nobody = Workers(count=0, fewest=0, use_gpu=False, resources={})
    cpus = config.num_actors * resources_of(config.eval).get("CPU", 0.0)
    with connected(config.ray, nobody, rollout_cpus=cpus):
        check_room(config.eval, nodes_of_cluster())
        plans = [_plan(command, policy, _place(output_dir, policy, policies)) for policy in policies]
        done = _play(plans, config.num_actors, resources_of(config.eval))
    infos = []
    for policy, run in zip(policies, done, strict=True):
        if run.error is not None:
            say(f"error: {policy.name}: {run.error}")
            continue
        infos.append(run.info())
        save_info(infos[-1], _place(output_dir, policy, policies) / INFO_NAME)
        if config.eval.recording:
            keep_recordings(run.plan, say=say)
    if len(policies) > 1:
        save_info({"policies": [{**info["evaluation"], **info["overall"]} for info in infos]}, output_dir / INFO_NAME)
    if infos:
        page = write_evaluation_page(infos, output_dir / "evaluation.html")
        say(f"results: {output_dir / INFO_NAME}\npage: {page}")
    return 0 if len(infos) == len(policies) else 1


def find_policies(command: EvaluateCommand, *, fetch: Fetch | None = None) -> list[FoundPolicy]:
    """Every policy the command names, those of a run by rising step; no two have the same name."""
    found: list[FoundPolicy] = []
    origin = Origin(flags={("policy", *path): text for path, text in command.policy_flags.items()})
    for given in command.paths:
        for name, step, folder in _folders(given, fetch):
            flags: Flags = {("path",): Text(folder), **command.policy_flags}
            tree: dict[str, Any] = {}
            lay_over(tree, flags)
            settings = look_up_policy(tree, flags, fetch=fetch)
            policy: Any = decode(PolicyConfig, settings, origin=origin, path=("policy",))  # type: ignore[type-abstract]
            unique = name if name not in {other.name for other in found} else f"{name}-{len(found)}"
            source = PolicySource(folder=Path(folder), config=policy, rename_map=command.config.rename_map)
            found.append(FoundPolicy(unique, step, source))
    return found


def _folders(given: str, fetch: Fetch | None) -> list[tuple[str, int | None, str]]:
    """(name, step, policy folder) of every policy that a path means."""
    path = Path(given).expanduser()
    if (path / CHECKPOINTS_DIR).is_dir():
        checkpoints = complete_checkpoints(path)
        if not checkpoints:
            raise CheckpointError(f"--policy.path={given}: this run has no complete checkpoint.")
        return [(f"step {int(step.name)}", int(step.name), _policy_folder(step)) for step in checkpoints]
    if path.is_dir():
        path = _without_last(path).absolute()
        checkpoint = path.parent if path.name.startswith(PRETRAINED_DIR) else path
        step = int(checkpoint.name) if checkpoint.name.isdigit() else None
        folder = _policy_folder(path) if (path / PRETRAINED_DIR).is_dir() else str(path)
        return [(f"step {step}" if step is not None else path.name, step, folder)]
    is_repository = given.count("/") == 1 and not given.startswith((".", "/", "~"))
    if fetch is not None and (is_repository or "://" in given):
        name = given.rpartition("://")[2].replace("/", "_")
        return [(name, None, str(fetch(given, revision=None, what="policy")))]
    return [(given, None, given)]


def _without_last(path: Path) -> Path:
    """The same folder by the name of its step: `last` moves on while a run saves."""
    for place in (path, path.parent):
        if place.name == LAST_LINK and place.is_symlink():
            return place.parent / place.readlink() / path.relative_to(place)
    return path


def _policy_folder(checkpoint: Path) -> str:
    """What its own run would have played: with averaged weights if that is what the run asked for."""
    saved = checkpoint / PRETRAINED_DIR
    try:
        return str(evaluated_folder(checkpoint, load_train_config(saved)).absolute())
    except LerobotRayError:  # LeRobot's, or of a policy that was saved without its run
        return str(saved.absolute())


def _place(output_dir: Path, policy: FoundPolicy, policies: Sequence[FoundPolicy]) -> Path:
    return output_dir if len(policies) == 1 else output_dir / policy.name.replace(" ", "_")


def _plan(command: EvaluateCommand, policy: FoundPolicy, place: Path) -> EvaluationPlan:
    config = command.config
    return EvaluationPlan(
        name=policy.name,
        policy=policy.source,
        env=config.env,
        eval=config.eval,
        seed=config.seed or 0,
        num_actors=config.num_actors,
        video_dir=place / "videos",
        recording_dir=place / "recording" if config.eval.recording else None,
        about={"policy": str(policy.source.folder), "step": policy.step},
    )


def _play(plans: Sequence[EvaluationPlan], num_actors: int, resources: dict[str, float]) -> list[Evaluation]:
    """Every plan played, in order, with a bar of episodes."""
    from tqdm import tqdm

    waiting = deque(plans)
    runs: dict[str, Evaluation] = {}
    total = sum(Evaluation(plan).num_episodes for plan in plans)
    is_terminal = sys.stderr.isatty()
    with (
        RolloutPool(num_actors=num_actors, resources=resources) as pool,
        tqdm(total=total, unit="episode", disable=not is_terminal) as bar,
    ):
        while waiting or any(not run.is_over for run in runs.values()):
            while waiting and sum(not run.is_over for run in runs.values()) < IN_FLIGHT:
                plan = waiting.popleft()
                runs[plan.name] = Evaluation(plan)
                for portion in portions(plan):
                    pool.submit(portion)
            for news in pool.poll(POLL_S):
                run = runs[news.evaluation]
                if run.is_over:  # what was under way when it failed
                    continue
                run.add(news)
                bar.update(len(news.results))
                if run.is_over and run.error is None:
                    tqdm.write(f"{run.plan.name}: {sentence_of(run.info())}", file=sys.stderr)
    return [runs[plan.name] for plan in plans]
