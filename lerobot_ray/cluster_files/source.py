"""YAML text with the line of every field, so that a message can name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from lerobot_ray.cluster_files.findings import Finding, Path

MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document:
    """One YAML document: its value, and where its fields stand."""

    value: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of a field, or of the nearest one above it that is in the file."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_documents(text: str) -> tuple[list[Document], list[Finding]]:
    """Every document of a YAML text, and what is wrong with the text itself."""
    loader = yaml.SafeLoader(text)
    documents: list[Document] = []
    findings: list[Finding] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            lines: dict[Path, int] = {}
            repeated: list[tuple[Path, int, int]] = []
            _walk(node, (), lines, repeated)
            value = loader.construct_document(node)
            if value is None:  # only comments between two dashes
                continue
            findings += [
                Finding(
                    level="error",
                    message=f"is written twice, first in line {first}; the second would silently win.",
                    remedy="Keep one.",
                    path=path,
                    line=line,
                )
                for path, line, first in repeated
            ]
            documents.append(Document(value, lines))
    except yaml.YAMLError as error:
        findings.append(_syntax_error(error, text))
    finally:
        loader.dispose()
    return documents, findings


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], repeated: list[tuple[Path, int, int]]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        own: set[str] = set()
        for key, value in node.value:
            below = (*path, str(key.value))
            line = key.start_mark.line + 1
            if key.tag == MERGE:  # its fields become fields of this mapping; those written here win
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    _walk(merged, path, lines, repeated)
                continue
            if key.value in own:
                repeated.append((below, line, lines[below]))
            own.add(key.value)
            lines[below] = line
            _walk(value, below, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _walk(value, (*path, place), lines, repeated)


def _syntax_error(error: yaml.YAMLError, text: str) -> Finding:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark is not None else None
    problem = getattr(error, "problem", None) or str(error)
    shown = text.splitlines()[mark.line].strip() if mark is not None and mark.line < len(text.splitlines()) else ""
    has_tab = mark is not None and "\t" in text.splitlines()[mark.line] if shown else False
    return Finding(
        level="error",
        message=f"is not YAML: {problem}" + (f", at «{shown}»." if shown else "."),
        remedy="Indent with spaces, not tabs."
        if has_tab
        else "Look for a missing colon, quote or bracket there or in the line above.",
        line=line,
    )
