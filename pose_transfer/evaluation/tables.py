# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of means with confidence intervals, and of paired differences, for the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .statistics import Estimate

Measures = Mapping[str, tuple[str, int]]
"""Key of a measure -> its title, and 1 where more is better, -1 where less is."""


def cell(value: Estimate, signed: bool = False) -> str:
    """The mean and, in brackets, its interval; a dash where nothing had a value."""
    if not value.count:
        return "-"
    form = "+.3f" if signed else ".3f"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def means_table(
    titles: Mapping[str, str], measures: Measures, estimate: Callable[[str, str], Estimate]
) -> list[str]:
    """Lines: a row for each variant, a column for each measure."""
    lines = _head(measures)
    for name, title in titles.items():
        cells = [cell(estimate(name, key)) for key in measures]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def differences_table(
    titles: Mapping[str, str],
    differences: Iterable[tuple[str, str]],
    measures: Measures,
    difference: Callable[[str, str, str], Estimate],
) -> list[str]:
    """Lines: first variant against second, in bold where the interval leaves out zero."""
    lines = _head(measures)
    for first, second in differences:
        cells = []
        for key, (_, sign) in measures.items():
            found = difference(first, second, key)
            word = "better" if found.mean * sign > 0 else "worse"
            text = f"{cell(found, signed=True)} {word}" if found.count else "-"
            cells.append(f"**{text}**" if found.clear else text)
        lines.append(f"| {titles[first]}, against {titles[second]} | " + " | ".join(cells) + " |")
    return lines


def _head(measures: Measures) -> list[str]:
    heads = [title for title, _ in measures.values()]
    return ["|  | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
