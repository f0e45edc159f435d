"""How an entry module runs: log lines as they are, help wherever it is asked for, what is refused in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from lerobot_ray.core.errors import LerobotRayError

HELP = ("--help", "-h")


def run_words(
    argv: Sequence[str] | None,
    run: Callable[[list[str]], int],
    *,
    help_page: Callable[[list[str]], str],
    if_interrupted: str = "",
) -> int:
    """The exit code of `run`, given the words of the command line; 2 when it refuses them, 130 when it is interrupted.

    `help_page` is given the other words: help may depend on them.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lerobot_ray").setLevel(logging.INFO)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if any(word in HELP for word in words):
            sys.stdout.write(f"{help_page([word for word in words if word not in HELP])}\n")
            return 0
        return run(words)
    except LerobotRayError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"error: interrupted. {if_interrupted}".rstrip() + "\n")
        return 130
