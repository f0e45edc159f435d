"""Writes `docs/modules.md`: every module with the first sentence of what it says about itself.

    .venv/bin/python docs/write_modules.py

`tests/test_modules_page.py` fails when the page is behind.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "modules.md"
HEAD = """# Modules

Where a thing lives: every file of the package and the first sentence of its docstring. The floors and the reasons are
on the page [Architecture](architecture.md). `docs/write_modules.py` writes this page.
"""


def first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0].rstrip(":").replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """The page as it should be."""
    lines = [HEAD]
    package = ROOT / "lerobot_ray"
    folders = [package, *sorted(path for path in package.rglob("*") if (path / "__init__.py").is_file())]
    for folder in folders:
        modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        name = folder.relative_to(ROOT).as_posix()
        lines += [
            f"## {name}",
            "",
            first_sentence(folder / "__init__.py"),
            "",
            "| file | what it is |",
            "| --- | --- |",
        ]
        lines += [f"| `{module.name}` | {first_sentence(module)} |" for module in modules]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
