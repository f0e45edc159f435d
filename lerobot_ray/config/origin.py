"""Where a setting was given, in the words of the one who gave it: a flag as typed, or a file and a key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lerobot_ray.core.errors import nearest

Path = tuple[str, ...]
"""A setting's place: ("dataset", "repo_id")."""


@dataclass(frozen=True)
class Origin:
    """Spells settings for messages."""

    file: str = ""
    """The file that settings came from which no flag gave."""
    elsewhere: Mapping[Path, str] = field(default_factory=dict)
    """Settings that came, with all below them, from another file -> that file."""
    flags: Mapping[Path, str] = field(default_factory=dict)
    """Settings given as flags -> their text."""
    known: Collection[str] = ()
    """Every setting there is, dotted, to suggest from."""

    def subject(self, path: Sequence[str]) -> str:
        """The setting as it was given: `--a.b=text`, or `file: a.b`."""
        flag = self._flag(path)
        if flag is not None:
            text = self.flags[flag]
            return f"--{'.'.join(flag)}={text if len(text) <= 80 else text[:77] + '...'}"
        file = self._file(path)
        return f"{file}: {'.'.join(path)}" if file else ".".join(path)

    def spelled(self, path: Sequence[str], like: Sequence[str]) -> str:
        """The setting `path` as one would write it where `like` was given."""
        return ("--" if self._flag(like) is not None else "") + ".".join(path)

    def suggestion(self, path: Sequence[str], siblings: Collection[str]) -> str:
        """` Did you mean …?` for an unknown setting, or nothing."""
        wanted = ".".join(path)
        same_name = [known for known in self.known if known.split(".")[-1] == path[-1]]
        sibling = nearest(path[-1], siblings)
        if sibling is not None and len(path) > 1:
            found: str | None = ".".join([*path[:-1], sibling])
        else:
            found = min(same_name, key=len) if same_name else nearest(wanted, {*self.known, *siblings})
        return f" Did you mean {self.spelled([found], path)}?" if found else " See --help." if self.known else ""

    def from_file(self, path: Sequence[str]) -> str:
        """`file: ` when nothing at or below `path` was given as a flag, else nothing."""
        is_flag = self._flag(path) is not None or self.flag_below(path) is not None
        file = self._file(path)
        return f"{file}: " if file and not is_flag else ""

    def flag_below(self, path: Sequence[str]) -> Path | None:
        """A flag for something inside `path`, if there is one."""
        return next((flag for flag in self.flags if len(flag) > len(path) and flag[: len(path)] == tuple(path)), None)

    def _file(self, path: Sequence[str]) -> str:
        above = (tuple(path[:n]) for n in range(len(path) + 1))
        return next((self.elsewhere[part] for part in above if part in self.elsewhere), self.file)

    def _flag(self, path: Sequence[str]) -> Path | None:
        """The flag that gave `path`: its own, or one that gave a whole section."""
        return next((tuple(path[:n]) for n in range(len(path), 0, -1) if tuple(path[:n]) in self.flags), None)
