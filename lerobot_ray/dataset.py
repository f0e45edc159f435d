"""`python -m lerobot_ray.dataset`: look at a dataset, check it, count its statistics, finish a recording, push it."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lerobot_ray.core.errors import ConfigError, DatasetError, LerobotRayError, nearest

if TYPE_CHECKING:
    from lerobot_ray.core.types import Stats
    from lerobot_ray.data.metadata import DatasetMetadata
    from lerobot_ray.data.storage import Storage

COMMANDS = ("info", "validate", "stats", "preview", "finish", "push")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. 0: fine; 1: `validate` found something wrong; 2: it could not be done."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lerobot_ray").setLevel(logging.INFO)
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except LerobotRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if match := re.search(r"invalid choice: '(.*?)'", message):
            near = nearest(match[1], COMMANDS)
            message = f"there is no command {match[1]!r}" + (f"; did you mean {near!r}?" if near else ".")
        raise ConfigError(f"{message} (--help lists what there is)")


def _parser() -> argparse.ArgumentParser:
    where = _Parser(add_help=False)
    where.add_argument("dataset", nargs="?", help="a folder, a URL (s3://…) or USER/NAME on the Hub")
    where.add_argument("--root", "--dataset.root", help="the folder or URL, said explicitly")
    where.add_argument("--repo-id", "--repo_id", "--dataset.repo_id", help="the name, said explicitly")
    where.add_argument("--revision", "--dataset.revision", help="a branch, tag or commit on the Hub")

    parser = _Parser(prog="python -m lerobot_ray.dataset", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, parents=[where])
        added.set_defaults(run=run)
        return added

    info = command("info", _info, "what is in a dataset: features, episodes, tasks, sizes")
    info.add_argument("--json", action="store_true", help="print JSON instead")
    info.add_argument("--tasks", type=int, default=5, help="how many tasks to list (%(default)s)")

    check = command("validate", _validate, "hold every file against the metadata; exit code 1 when something is wrong")
    check.add_argument("--quick", action="store_true", help="decode three frames per episode instead of all")
    check.add_argument("--quarantine", metavar="FILE", help="write the broken episodes' numbers, for exclude_episodes")
    check.add_argument("--json", action="store_true", help="print JSON instead")
    check.add_argument("--workers", type=int, help="processes to decode in (one per CPU)")

    stats = command("stats", _stats, "count the statistics again and compare them with stats.json")
    stats.add_argument(
        "--write", action="store_true", help="replace meta/stats.json; the old one stays as stats.json.bak"
    )
    stats.add_argument("--out", metavar="FILE", help="write the statistics to this file")
    stats.add_argument("--skip-cameras", action="store_true", help="count the tables only; keep what cameras have")
    stats.add_argument("--workers", type=int, help="processes to count in (one per CPU)")
    stats.add_argument("--ray", action="store_true", help="count on a Ray cluster")
    stats.add_argument("--address", help="of the Ray cluster ($RAY_ADDRESS, or one on this machine)")

    preview = command("preview", _preview, "a page or a picture of some episodes: camera frames and curves")
    preview.add_argument("--out", metavar="PATH", help=".html, .png, or a folder for both (./NAME_preview.html)")
    preview.add_argument("--episodes", help="which ones, such as 0,1,5-8 (some spread over the dataset)")
    preview.add_argument("--frames", type=int, default=8, help="frames per camera and episode (%(default)s)")

    command("finish", _finish, "make the saved episodes of an interrupted recording a dataset")

    about = "copy a dataset folder to the Hub, with its card and the tag of its format"
    push = commands.add_parser("push", help=about, description=about)
    push.set_defaults(run=_push)
    push.add_argument("root", help="the folder of the dataset")
    push.add_argument("repo_id", metavar="USER/NAME", help="the dataset repository; made if it is not there")
    push.add_argument("--public", action="store_true", help="if it is made now, everybody may read it")
    push.add_argument("--no-videos", action="store_true", help="tables and metadata only")
    push.add_argument("--license", default="apache-2.0", help="what the card says (%(default)s)")
    return parser


def _named(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """(repo_id, root) of the dataset that the command line names."""
    given, root, repo_id = arguments.dataset, arguments.root, arguments.repo_id or ""
    if given and (root or repo_id):
        raise ConfigError(f"the dataset is named twice, as {given} and as {root or repo_id}. Leave one out.")
    if given:
        is_path = "://" in given or Path(given).expanduser().is_dir()
        looks_like_path = given.startswith((".", "/", "~")) or given.count("/") != 1
        root, repo_id = (given, "") if is_path or looks_like_path else (None, given)
    if not root and not repo_id:
        raise ConfigError("which dataset? Give a folder, a URL, or USER/NAME on the Hub.")
    return repo_id or Path(str(root)).expanduser().absolute().name, root


def _open_storage(arguments: argparse.Namespace) -> tuple[str, Storage]:
    from lerobot_ray.data.storage import open_storage

    repo_id, root = _named(arguments)
    return repo_id, open_storage(repo_id, root=root, revision=arguments.revision)


def _open(arguments: argparse.Namespace) -> DatasetMetadata:
    from lerobot_ray.data.metadata import open_metadata

    repo_id, storage = _open_storage(arguments)
    return open_metadata(repo_id, storage=storage)


def _info(arguments: argparse.Namespace) -> int:
    from lerobot_ray.data.summary import summarise, summary_text

    metadata = _open(arguments)
    if arguments.json:
        print(json.dumps(summarise(metadata), indent=2, ensure_ascii=False))
    else:
        print(summary_text(metadata, width=_terminal_width(), tasks=arguments.tasks))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from lerobot_ray.data.problems import bad_episodes, table
    from lerobot_ray.data.validate import validate

    repo_id, storage = _open_storage(arguments)
    report = validate(repo_id, storage, quick=arguments.quick, workers=arguments.workers)
    if arguments.quarantine:
        _write_text(Path(arguments.quarantine), json.dumps(bad_episodes(report.problems)))
    if arguments.json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
        return 0 if report.is_good else 1
    if report.problems:
        print(table(report.problems, width=_terminal_width()), end="\n\n")
    print(report.in_words())
    if arguments.quarantine:
        print(f'Train without them: --dataset.exclude_episodes="$(cat {arguments.quarantine})"')
    return 0 if report.is_good else 1


def _stats(arguments: argparse.Namespace) -> int:
    from lerobot_ray.data.compare_stats import differences, differences_text
    from lerobot_ray.data.stats_file import replace_stats, write_stats
    from lerobot_ray.data.storage import LocalStorage

    metadata = _open(arguments)
    if arguments.write and not isinstance(metadata.storage, LocalStorage):
        raise DatasetError(
            f"{metadata.storage.identity()} is not a local folder, so stats.json cannot be replaced there. "
            "Use --out FILE."
        )
    stored = _stored_stats(metadata)
    counted = _counted_stats(arguments, metadata)
    found, missing = differences(stored, counted)
    print(differences_text(found, missing))
    if any(row.feature in metadata.video_keys for row in found):
        print("Cameras were counted from decoded frames; coding losses make their numbers differ a little.")
    if arguments.skip_cameras:
        counted = {**{name: entry for name, entry in (stored or {}).items() if name not in counted}, **counted}
    if arguments.out:
        write_stats(Path(arguments.out), counted)
        print(f"wrote {arguments.out}")
    if arguments.write:
        assert isinstance(metadata.storage, LocalStorage)
        print(f"wrote {replace_stats(metadata.storage.root, counted)}")
    return 0


def _stored_stats(metadata: DatasetMetadata) -> Stats | None:
    try:
        return metadata.stats
    except DatasetError as error:  # a broken stats.json is a reason to count, not to give up
        print(f"stored statistics cannot be used: {error}", file=sys.stderr)
        return None


def _counted_stats(arguments: argparse.Namespace, metadata: DatasetMetadata) -> Stats:
    from lerobot_ray.data.recount import count_stats
    from lerobot_ray.data.runners import Processes, with_progress

    cameras = not arguments.skip_cameras
    if arguments.ray:
        from lerobot_ray.on_ray.stats import count_stats_on_ray

        return count_stats_on_ray(metadata, cameras=cameras, address=arguments.address)
    with Processes(arguments.workers) as processes:
        return count_stats(metadata, run=with_progress(processes, label="stats"), cameras=cameras)


def _preview(arguments: argparse.Namespace) -> int:
    from lerobot_ray.data.preview import collect_preview
    from lerobot_ray.data.ranges import numbers_in

    metadata = _open(arguments)
    out = Path(arguments.out or f"{metadata.repo_id.rsplit('/', 1)[-1]}_preview.html")
    targets = [out] if out.suffix in (".html", ".htm", ".png") else [out / "preview.html", out / "preview.png"]
    episodes = numbers_in(arguments.episodes, flag="--episodes") if arguments.episodes else None
    preview = collect_preview(metadata, episodes=episodes, frames=max(1, arguments.frames))
    for target in targets:
        if target.suffix == ".png":
            from lerobot_ray.data.preview_sheet import sheet

            _write_bytes(target, sheet(preview))
        else:
            from lerobot_ray.data.preview_page import page

            _write_text(target, page(preview))
        print(f"wrote {target}")
    return 0


def _finish(arguments: argparse.Namespace) -> int:
    from lerobot_ray.data.recording import SCRATCH_DIR
    from lerobot_ray.data.writer import DatasetWriter

    _, root = _named(arguments)
    if root is None or not (Path(root).expanduser() / SCRATCH_DIR).is_dir():
        raise DatasetError(f"{root or arguments.dataset} holds no unfinished recording; there is nothing to finish.")
    writer = DatasetWriter.resume(root)
    writer.finalize()
    print(f"{writer.root}: {writer.num_episodes:,} episodes, {writer.num_frames:,} frames")
    return 0


def _push(arguments: argparse.Namespace) -> int:
    from lerobot_ray.hub.dataset import push_dataset

    url = push_dataset(
        arguments.root,
        arguments.repo_id,
        private=not arguments.public,
        videos=not arguments.no_videos,
        license=arguments.license,
    )
    print(f"Dataset pushed to {url}")
    return 0


def _write_text(path: Path, text: str) -> None:
    _write_bytes(path, text.encode())


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}.") from error


def _terminal_width() -> int:
    return min(160, max(60, shutil.get_terminal_size((110, 24)).columns))


if __name__ == "__main__":
    sys.exit(main())
