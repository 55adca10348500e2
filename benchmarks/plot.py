"""One picture: how many times better than what stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Row

_OURS_BETTER, _OURS_WORSE = "#2a7f62", "#b5523b"


def bars(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """(label, times better) of every comparison, in order of the rows."""
    found = []
    for row in rows:
        for rival in row.rivals:
            times = row.times_better(rival)
            if times is not None:
                found.append((f"{row.what}  vs  {rival.name}", times))
    return found


def save(rows: Sequence[Row], path: Path) -> bool:
    """A PNG of less than 100 KB. False, and no file, when nothing was compared."""
    found = bars(rows)
    if not found:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.8 + 0.3 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(found))
    values = [times for _, times in found]
    axes.barh(places, values, color=[_OURS_BETTER if times >= 1 else _OURS_WORSE for times in values], height=0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.tick_params(axis="x", labelsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [label for label, _ in found], fontsize=7)
    axes.invert_yaxis()
    for place, times in zip(places, values, strict=True):
        axes.annotate(
            f"{times:.1f}x", (max(times, 1), place), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center"
        )
    axes.set_xlim(min(0.5, min(values) * 0.8), max(values) * 1.6)
    axes.set_xlabel("times better (log scale); 1: the same", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, metadata={"Software": None})
    return True
