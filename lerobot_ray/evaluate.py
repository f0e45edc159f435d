"""`python -m lerobot_ray.evaluate`: how often a policy succeeds in an environment, over as many Ray actors as liked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

from lerobot_ray.config.command_line import run_words
from lerobot_ray.config.evaluate import EvaluateConfig, default_eval_dir, parse_evaluate
from lerobot_ray.config.flags import read_flags
from lerobot_ray.config.help import help_text
from lerobot_ray.config.parse import chosen_kinds

USAGE = "python -m lerobot_ray.evaluate --policy.path=PATH --env.type=reach [--eval.n_episodes=50] [--actors=4] …"
ABOUT = (
    "Plays a policy in an environment and says how often it succeeds. PATH is a policy folder, a checkpoint, or the "
    "folder of a run, whose checkpoints are then evaluated one after another; a list of them is written "
    '\'["PATH", "PATH"]\'. Other --policy.* flags replace settings of the policy, such as --policy.n_action_steps.'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 2 when it describes no evaluation, 1 when one failed."""
    return run_words(argv, run, help_page=help_page)


def run(words: list[str]) -> int:
    """Refuse, or play."""
    command = parse_evaluate(words)
    output_dir = command.config.output_dir or default_eval_dir(command.config, datetime.now())
    from lerobot_ray.on_ray.evaluate import evaluate  # not before: ray and torch take seconds to import

    return evaluate(command, output_dir=output_dir)


def help_page(words: Sequence[str]) -> str:
    """The help of a command line: that of the environment its other flags choose."""
    flags = read_flags(words)
    tree = {"env": {"type": str(flags[("env", "type")])}} if ("env", "type") in flags else {}
    return help_text(EvaluateConfig, usage=USAGE, about=ABOUT, chosen=chosen_kinds(tree, EvaluateConfig))


if __name__ == "__main__":
    sys.exit(main())
