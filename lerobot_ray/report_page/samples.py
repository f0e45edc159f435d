"""The section on what was trained on: how often each sample, and each epoch whole or not."""

from __future__ import annotations

import numpy as np

from lerobot_ray.report_page.coverage import Coverage, ended_epochs
from lerobot_ray.report_page.markup import figure, section
from lerobot_ray.report_page.run_folder import RunFolder
from lerobot_ray.report_page.strips import epoch_bars, heat_strip
from lerobot_ray.report_page.words import count, percent


def samples(run: RunFolder) -> str:
    coverage = run.coverage
    if isinstance(coverage, str):
        return section("samples", "Samples", coverage)
    pieces = [
        figure(
            "How often each sample was used",
            heat_strip(coverage.uses, coverage.starts, coverage.episodes.tolist()) + _histogram(coverage),
            note=f"in storage order; the strongest colour is {int(coverage.uses.max())} times, red is never",
            wide=True,
        )
    ]
    if coverage.epochs:
        pieces.append(figure("Share of the samples that each epoch has used", epoch_bars(coverage.epochs), wide=True))
    return section("samples", "Samples", _sentence(coverage), *pieces, _unused(coverage))


def _sentence(coverage: Coverage) -> str:
    least, most = int(coverage.uses.min()), int(coverage.uses.max())
    times = f"{least} times" if least == most else f"{least} to {most} times"
    said = (
        f"The audit proves {count(coverage.rows, 'sample')} over steps {coverage.first_step:,} to "
        f"{coverage.end_step:,}, without a gap or a repeat. "
        f"Each of the {len(coverage.uses):,} samples was used {times}."
    )
    ended = ended_epochs(coverage)
    if ended:
        whole = sum(share == 1 for share in ended)
        each = "The one full epoch" if len(ended) == 1 else f"All {len(ended)} full epochs"
        said += (
            f" {each} used every sample exactly once."
            if whole == len(ended)
            else f" {whole} of {count(len(ended), 'epoch')} used every sample exactly once."
        )
    if coverage.unfinished_rows:
        said += f" {count(coverage.unfinished_rows, 'row')} of the newest steps are not complete yet."
    return said


def _histogram(coverage: Coverage) -> str:
    """How many samples were used so and so often, while those are few numbers."""
    uses, counts = np.unique(coverage.uses, return_counts=True)
    if len(uses) > 8:
        low, middle, high = np.quantile(coverage.uses, [0.05, 0.5, 0.95])
        said = f"{middle:.0f} times or more; 9 of 10 between {low:.0f} and {high:.0f} times."
        return f"<p class=below>Half of the samples were used {said}</p>"
    parts = [
        f"{n:,} ({percent(n / len(coverage.uses))}) {u}×" for u, n in zip(uses.tolist(), counts.tolist(), strict=True)
    ]
    return f"<p class=below>Samples by number of uses: {', '.join(parts)}.</p>"


def _unused(coverage: Coverage) -> str:
    ends = np.append(coverage.starts[1:], len(coverage.uses))
    totals = np.add.reduceat(np.append(coverage.uses, 0), coverage.starts) * (ends > coverage.starts)
    never = coverage.episodes[totals == 0]
    if not len(never) or coverage.uses.max() == 0:
        return ""
    listed = ", ".join(str(number) for number in never[:30].tolist()) + (", …" if len(never) > 30 else "")
    return f"<p class=empty>Never used: {'episode' if len(never) == 1 else 'episodes'} {listed}.</p>"
