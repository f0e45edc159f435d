"""The page of modules says what the modules say."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_what_the_script_writes():
    spec = importlib.util.spec_from_file_location("write_modules", DOCS / "write_modules.py")
    write_modules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_modules)
    page = (DOCS / "modules.md").read_text(encoding="utf-8")
    assert page == write_modules.page(), "run: .venv/bin/python docs/write_modules.py"
    assert "| `order.py` |" in page
    assert "|  |" not in page  # every module says what it is
