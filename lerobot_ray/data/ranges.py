"""Episode numbers as people write them, 0, 3–7, 12: into words and out of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lerobot_ray.core.errors import ConfigError


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as people write them: 0, 3–7, 12."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


def numbers_in(text: str, *, flag: str) -> list[int]:
    """The numbers that 0,1,5-8 names; ConfigError, with the flag it was given as, for what is neither."""
    numbers: list[int] = []
    for part in text.strip("[]").split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match:
            raise ConfigError(f"{flag} {text}: {part.strip()!r} is not a number or a range such as 5-8.")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers
