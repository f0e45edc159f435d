"""Takes secrets out of what is recorded: values whose name says so, and credentials inside addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
_SECRET_NAME = re.compile(r"(^|[._-])(token|secret|password|passwd|api[_-]?key|access[_-]?key|credentials?)$", re.I)
_USER_IN_URL = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]*://)[^/@\s]+@")
_SECRET_IN_QUERY = re.compile(
    r"(?P<name>[?&][^=&\s]*(?:token|secret|key|sig|signature|credential)[^=&\s]*=)[^&\s]+", re.I
)


def redacted(value: Any, name: str = "") -> Any:
    """The same JSON value with secrets masked. `name` is the key it is stored under."""
    if _SECRET_NAME.search(name) and value not in (None, ""):
        return MASK
    if isinstance(value, Mapping):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name) for item in value]
    return redacted_text(value) if isinstance(value, str) else value


def redacted_text(text: str) -> str:
    """A text with the credentials of addresses in it masked."""
    return _SECRET_IN_QUERY.sub(rf"\g<name>{MASK}", _USER_IN_URL.sub(rf"\g<scheme>{MASK}@", text))


def redacted_words(words: Sequence[str]) -> list[str]:
    """A command line with the values of secret flags masked."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        flag, equals, _ = word.partition("=")
        is_secret = word.startswith("-") and bool(_SECRET_NAME.search(flag.lstrip("-")))
        shown.append(MASK if hide_next else f"{flag}={MASK}" if is_secret and equals else redacted_text(word))
        hide_next = is_secret and not equals
    return shown
