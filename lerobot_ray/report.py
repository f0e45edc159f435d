"""`python -m lerobot_ray.report RUN`: one HTML page about a training run, for a browser or a printer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lerobot_ray.core.errors import LerobotRayError


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page and returns the exit code: 2 when there is no run to report on."""
    parser = argparse.ArgumentParser(prog="python -m lerobot_ray.report", description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of a run, finished or not")
    parser.add_argument("--output", type=Path, help="file to write (default: RUN/report.html)")
    words = parser.parse_args(argv)
    from lerobot_ray.report_page import write_report  # not before: numpy and pyarrow take a moment

    try:
        path = write_report(words.run, to=words.output)
    except (LerobotRayError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
