"""The page a run ends with: `<run>/report.html`, from what the run left in its folder.

Reading order: `write` (the sections, in order), `run_folder` (what they are made of), a section such as `curves`, then
how things are drawn: `line_chart`, `stack_chart`, `strips`, over `scale`, `thin` and `words`.
"""

from lerobot_ray.report_page.write import write_report

__all__ = ["write_report"]
