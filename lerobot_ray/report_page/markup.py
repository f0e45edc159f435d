"""Small pieces of HTML. Everything that comes from a run is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape


def text(value: object) -> str:
    """Any value as escaped text."""
    return escape(str(value))


def section(anchor: str, title: str, lead: str, *bodies: str) -> str:
    """A part of the page: `lead` is a plain sentence, the bodies are HTML."""
    lead_html = f"<p class='lead'>{text(lead)}</p>" if lead else ""
    return f"<section id='{anchor}'><h2>{text(title)}</h2>{lead_html}{''.join(bodies)}</section>"


def figure(caption: str, picture: str, *, note: str = "", key: str = "", wide: bool = False) -> str:
    """A picture in its frame. `key` is a legend, as HTML."""
    note_html = f"<span class='note'>{text(note)}</span>" if note else ""
    kind = "wide" if wide else "half"
    return f"<figure class='{kind}'><figcaption>{text(caption)}{key}{note_html}</figcaption>{picture}</figure>"


def grid(draw: Callable[[tuple[int, int]], Sequence[str]], *, half: tuple[int, int], third: tuple[int, int]) -> str:
    """Figures in two columns, or in three where that leaves no hole. `draw` makes them in the shape it is given."""
    pieces = [piece for piece in draw(half) if piece]
    is_three = len(pieces) % 3 == 0 and len(pieces) % 2 == 1
    if is_three:
        pieces = [piece for piece in draw(third) if piece]
    return f"<div class='grid{' three' if is_three else ''}'>{''.join(pieces)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Iterable[int] = ()) -> str:
    """A table of cells that are HTML already; columns in `numeric` are set right."""
    right = set(numeric)

    def cells(kind: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{kind}{' class=n' if number in right else ''}>{value}</{kind}>" for number, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table></div>"


def pairs(values: Iterable[tuple[str, str]]) -> str:
    """Names with their values, as plain text."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values)
    return f"<dl class='pairs'>{rows}</dl>"


def folded(title: str, body: str) -> str:
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def badge(word: str, kind: str) -> str:
    """A word on a ground that is good, warn, bad or plain."""
    return f"<span class='badge {kind}'>{text(word)}</span>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """(colour class, name) pairs."""
    items = "".join(f"<li><i class='{colour}'></i>{text(name)}</li>" for colour, name in entries)
    return f"<ul class='legend'>{items}</ul>"
