"""The snippets of docs/order-and-determinism.md run as printed, in a folder where a run has left its audit."""

from __future__ import annotations

import re
from pathlib import Path

from tests.data.test_audit import ORDER, SELECTION, train

PAGE = Path(__file__).parents[2] / "docs" / "order-and-determinism.md"


def test_snippets_run(tmp_path, monkeypatch, capsys):
    train(tmp_path / "outputs" / "train" / "my_run", from_step=0, until_step=9, world_size=2)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(snippets) == 4
    names = {"order": ORDER, "selection": SELECTION}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{PAGE.name}, snippet {number}", "exec"), names)
        names |= {"order": ORDER, "selection": SELECTION}
    assert capsys.readouterr().out.count("stream_index") == 12
