"""What was found, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.measure import Row, Samples, Section

ABSENT = "not measured"


@dataclass(frozen=True, slots=True)
class Report:
    machine: Mapping[str, str]
    notes: tuple[str, ...]  # what could not be measured, and why
    rows: tuple[Row, ...]
    sections: tuple[Section, ...] = ()


def markdown(report: Report) -> str:
    """A page: the machine, one table per part, then the ready-made sections."""
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in report.machine.items()]
    lines += ["", "Medians of rounds taken in turns. `x`: how many times better than what stands beside it.", ""]
    for note in report.notes:
        lines += [f"**{note}**", ""]
    for part in dict.fromkeys(row.part for row in report.rows):
        lines += [f"## {part.capitalize()}", "", *table([row for row in report.rows if row.part == part]), ""]
    for section in report.sections:
        lines += [f"## {section.part.capitalize()}", "", section.markdown.strip(), ""]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    lines = ["| what | llamabda | beside it | x | aim | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            _plain(row.what),
            f"**{quantity(row.ours.median, row.unit)}**",
            "<br>".join(f"{quantity(rival.median, row.unit)} {_plain(rival.name)}" for rival in row.rivals),
            "<br>".join(_times(row, rival) for rival in row.rivals),
            _plain(row.aim),
            _plain(row.note),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def quantity(value: float | None, unit: str) -> str:
    """Three digits that count, and the unit; 12300 becomes 12,300."""
    if value is None:
        return ABSENT
    if value == 0:
        return f"0 {unit}".rstrip()
    size = abs(value)
    digits = next((n for n, edge in ((0, 99.95), (1, 9.995), (2, 0.9995)) if size >= edge), 3)
    return f"{value:,.{digits}f} {unit}".rstrip()


def as_json(report: Report) -> str:
    """Everything, each round included."""
    content = {
        "machine": dict(report.machine),
        "notes": list(report.notes),
        "rows": [asdict(row) | {"times_better": _ratios(row)} for row in report.rows],
        "sections": [asdict(section) for section in report.sections],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _ratios(row: Row) -> dict[str, float | None]:
    return {rival.name: row.times_better(rival) for rival in row.rivals}


def _times(row: Row, rival: Samples) -> str:
    times = row.times_better(rival)
    return "" if times is None else f"{times:.2f}" if times < 10 else f"{times:.0f}"


def _plain(text: str) -> str:
    """A cell of a table holds no bar."""
    return text.replace("|", "\\|")
