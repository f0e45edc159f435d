"""`python -m lerobot_ray.tune`: many short trainings in place of a guess, from a sweep file of about ten lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lerobot_ray.config.command_line import run_words
from lerobot_ray.core.errors import ConfigError

USAGE = """usage: python -m lerobot_ray.tune --sweep FILE [--flag=value …] <flags of lerobot_ray.train>

Trains once for every set of values that a sweep file asks for, stops what is hopeless, and ends in a table, a page
(sweep.html), the best settings (best.yaml) and the command to go on with.

  --sweep FILE          what is tried and how it is judged: metric, mode, searcher, scheduler, num_trials,
                        max_concurrent, stop, resources_per_trial, parameters (docs/sweeps.md)
  --output_dir FOLDER   where everything goes; default: outputs/sweeps/<date>/<time>_<name of the file>
  --resume              go on with the sweep in output_dir: ended trials are kept, interrupted ones continue
  --sweep_seeds N       train every set of values with N seeds; it is judged by their mean
  --num_trials N, --max_concurrent N
                        in place of what the file says
  --push_best           push the best trial's policy to --policy.repo_id

Every other flag is one of lerobot_ray.train, and the same for all trials: python -m lerobot_ray.train --help."""

OWN = ("sweep", "output_dir", "resume", "sweep_seeds", "num_trials", "max_concurrent", "push_best")


@dataclass
class Arguments:
    """A command line, told apart: what concerns the sweep, and the flags of its trials."""

    own: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def number(self, name: str) -> int | None:
        if name not in self.own:
            return None
        try:
            return int(self.own[name])
        except ValueError:
            raise ConfigError(f"--{name}={self.own[name]}: expected a whole number.") from None

    def is_on(self, name: str) -> bool:
        text = self.own.get(name, "false").lower()
        if text not in ("true", "false", "auto"):
            raise ConfigError(f"--{name}={text}: expected true or false.")
        return text != "false"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweep; the exit code: 0 done, 1 no trial brought a value, 2 refused, 128 + signal when stopped so."""
    return run_words(argv, run, help_page=lambda _: USAGE, if_interrupted="Go on with --resume and the same flags.")


def run(words: list[str]) -> int:
    """Refuse, or train."""
    arguments = read_arguments(words)
    if "sweep" not in arguments.own:
        raise ConfigError("--sweep=<file> is missing: it says what to try. See --help and docs/sweeps.md.")
    plan = settled(arguments)
    from lerobot_ray.sweeps.conclude import conclude
    from lerobot_ray.sweeps.run import run_sweep  # not before: ray and torch take seconds to import

    return conclude(*run_sweep(plan))


def settled(arguments: Arguments) -> Any:
    """The sweep that a command line describes."""
    from lerobot_ray.sweeps.plan import settle_sweep

    file = Path(arguments.own["sweep"])
    overrides: dict[str, Any] = {
        name: arguments.number(name) for name in ("num_trials", "max_concurrent") if name in arguments.own
    }
    folder = arguments.own.get("output_dir")
    resume = arguments.is_on("resume")
    if resume and folder is None:
        raise ConfigError("--resume goes on with the sweep in --output_dir. Say which: --output_dir=<folder>.")
    seeds, now = arguments.number("sweep_seeds"), datetime.now()
    return settle_sweep(
        file,
        arguments.words,
        folder=Path(folder or Path("outputs/sweeps") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{file.stem}"),
        overrides=overrides,
        seeds=1 if seeds is None else seeds,
        resume=resume,
        push_best=arguments.is_on("push_best"),
    )


def read_arguments(words: Sequence[str]) -> Arguments:
    """Flags of the sweep, as `--name=value`, `--name value` or a switch alone; the rest as it is."""
    found, left = Arguments(), list(words)
    while left:
        word = left.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in OWN:
            found.words.append(word)
            continue
        if not equals:
            is_alone = not left or left[0].startswith("--")
            text = "true" if is_alone else left.pop(0)
        found.own[name] = text
    return found


if __name__ == "__main__":
    sys.exit(main())
