"""The snippets of docs/tracking.md, run as they stand, and its table of metric names against the report."""

from __future__ import annotations

import re
from pathlib import Path

from tests.report_runs import RunShape, make_run

DOC = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")


def test_python_snippets_run(tmp_path, capsys):
    run_dir = make_run(tmp_path, RunShape(steps=50, has_audit=False, has_eval=False))
    names = {"run_dir": run_dir}
    snippets = re.findall(r"```python\n(.*?)```", DOC, flags=re.S)
    assert len(snippets) == 3
    for snippet in snippets:
        exec(compile(snippet, "docs/tracking.md", "exec"), names)
    said = capsys.readouterr().out
    assert "[(0, 50, 'finished')]" in said
    assert "1 {'train/loss': 0.5}" in said
    assert "finished" in said.splitlines()[-1]


def test_defaults_are_those_of_the_code():
    from lerobot_ray.config.tracking import MLflowConfig
    from lerobot_ray.tracking.guarded import GuardedTrackers

    assert f"| `--mlflow.experiment` | `{MLflowConfig().experiment}` |" in DOC
    options = GuardedTrackers.__init__.__kwdefaults__
    assert f"a queue of {options['queue_size']:,} log calls".replace(",", " ") in DOC
    assert f"all get {options['close_timeout_s']:.0f} s together" in DOC
    assert f"or {options['stop_timeout_s']:.0f} s when" in DOC
