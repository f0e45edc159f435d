"""`python -m lerobot_ray.submit`: train elsewhere, on a Ray cluster, with the flags of `lerobot_ray.train`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from lerobot_ray.core.errors import LerobotRayError

ABOUT = """\
Submits a training run to the job server of a Ray cluster, shows its log, and ends with its exit code.
Ctrl-C leaves the job running and says how to come back to it.

usage:
  python -m lerobot_ray.submit [options] -- <flags of lerobot_ray.train>
  python -m lerobot_ray.submit list
  python -m lerobot_ray.submit logs [JOB] [--no-follow]
  python -m lerobot_ray.submit stop [JOB]
  python -m lerobot_ray.submit resume [JOB] [-- <flags that change>]

Without a JOB the newest one is meant.
"""
OPTIONS = {
    "timeout": "how long it may take: 30m, 12h, 2d (default), null",
    "image": "container image for the job; the nodes need podman",
    "tags": "labels for the job and the model, as a list: [a, b]",
    "retries": "how often a job that died is submitted again, from its last checkpoint",
    "working-dir": "folder of this machine that travels with the job",
    "env": "further environment variables of this shell for the job, as a list: [NAME]",
    "cluster-has": "secrets the machines have already, as a list: [HF_TOKEN]",
    "upload-to": "object store for a dataset that is only here, s3://… (default: the Hub, privately)",
    "mounts": "folders of this machine that the job sees too: {/here: /there}",
}
"""Each is --job.<name> of `lerobot_ray.train`, which takes the same."""
WORDS = ("list", "logs", "stop", "resume")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code: the job's own, 2 when refused, 130 when left with Ctrl-C."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lerobot_ray").setLevel(logging.INFO)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and words[0] in WORDS:
            return about_a_job(words[0], words[1:])
        return new_job(words)
    except LerobotRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nothing was submitted", file=sys.stderr)
        return 130


def new_job(words: Sequence[str]) -> int:
    """Submit a run."""
    parser = argparse.ArgumentParser(
        prog="python -m lerobot_ray.submit",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage=argparse.SUPPRESS,
    )
    add_address(parser)
    parser.add_argument("--detach", action="store_true", help="submit and return, in place of showing the log")
    for name, help_text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=help_text, metavar=name.upper().replace("-", "_"))
    before, after = split(words)
    if not before and not after:
        parser.print_help()
        return 2
    options, rest = parser.parse_known_args(before)
    flags = [*rest, *after]
    given = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in OPTIONS}
    flags += [f"--job.{name}={value}" for name, value in given.items() if value is not None]
    flags += [f"--job.address={options.address}"] if options.address else []
    flags += ["--job.detach=true"] if options.detach else []
    flags += ["--job.target=ray"]
    return submit_words(flags)


def submit_words(flags: Sequence[str]) -> int:
    """Submit the run of these flags of `lerobot_ray.train`."""
    from lerobot_ray.config.parse import build, gather
    from lerobot_ray.jobs.hub_repo import fetch_descriptions

    job = build(gather(flags, fetch=fetch_descriptions)).job
    from lerobot_ray.jobs.command import submit_run  # not before: ray takes seconds to import

    return submit_run(flags, job)


def about_a_job(word: str, words: Sequence[str]) -> int:
    """list, logs, stop, resume."""
    parser = argparse.ArgumentParser(prog=f"python -m lerobot_ray.submit {word}")
    add_address(parser)
    if word != "list":
        parser.add_argument("job", nargs="?", help="its id, as `list` shows it (default: the newest)")
    if word == "logs":
        parser.add_argument("--no-follow", action="store_true", help="what there is, without waiting for more")
    if word == "resume":
        parser.add_argument("--detach", action="store_true", help="submit and return")
    before, after = split(words)
    options, rest = parser.parse_known_args(before)
    overrides = [*rest, *after]
    if overrides and word != "resume":
        parser.error(f"{overrides[0]} is not an option of {word}")
    from lerobot_ray.jobs import command

    if word == "list":
        return command.list_jobs(options.address)
    if word == "logs":
        return command.logs(options.job, options.address, wait=not options.no_follow)
    if word == "stop":
        return command.stop(options.job, options.address)
    return command.resume(options.job, overrides, options.address, detach=options.detach)


def add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address", help="job server, http://host:8265 (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this machine)"
    )


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first `--`."""
    cut = list(words).index("--") if "--" in words else len(words)
    return list(words[:cut]), list(words[cut + 1 :])


if __name__ == "__main__":
    sys.exit(main())
