"""`python -m lerobot_ray.convert`: a checkpoint in parts (`--checkpoint_format=dcp`) as one of whole files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lerobot_ray.core.errors import ConfigError, LerobotRayError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. 0: it is written; 2: it could not be."""
    try:
        arguments = _parser().parse_args(argv)
        from lerobot_ray.checkpoint.convert import convert
        from lerobot_ray.checkpoint.find import find_checkpoint

        written = convert(find_checkpoint(arguments.checkpoint), Path(arguments.output).expanduser())
    except (LerobotRayError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(written)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help lists what there is)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lerobot_ray.convert", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint, or a run, of which the newest is taken")
    parser.add_argument("--output", required=True, help="where to write checkpoints/<step>")
    return parser


if __name__ == "__main__":
    sys.exit(main())
