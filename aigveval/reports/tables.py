"""Tables of an evaluation or a leaderboard, for the terminal and as text, Markdown and LaTeX."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, as_text, one_line
from ..files import check_not_one_of, write_text
from ..metrics import LISTED_CLIPS, METRICS, MOST_PAIRS, Estimate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from ..evaluation.evaluate import Evaluation
    from ..evaluation.figures import Difference, Group
    from ..evaluation.leaderboard import Leaderboard, Place

Cell = str | int | float | Estimate | None

LABELS = {
    **{name: metric.label for name, metric in METRICS.items()},
    "plcc_fitted": "PLCC, logistic",
    "rmse_fitted": "RMSE, logistic",
    "pair_accuracy": "pair accuracy",
    "pair_accuracy_ties": "pair accuracy, ties",
    "within_generators": "inside generators",
    "between_generators": "generators' means",
    "within_prompts": "inside prompts",
}
TABLE_SUFFIXES = (".json", ".md", ".tex", ".txt")
_PROMPT_CHARS = 60
WIDTH = 150  # where there is no terminal: four scores with their intervals fit
_GROUP_FIGURES = tuple(name for name in METRICS if name != "main")
_HUMAN = (
    *_GROUP_FIGURES,
    "pair_accuracy",
    "within_generators/srocc",
    "within_prompts/srocc",
    "within_prompts/pair_accuracy",
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table to be shown in any form.

    Args:
        title: one line.
        header: names of the columns; the first column holds text.
        rows: cells; None is shown as a dash.
        note: what the reader has to know, one paragraph.
    """

    title: str
    header: list[str]
    rows: list[list[Cell]]
    note: str = field(default="")


def label(name: str) -> str:
    """A figure's name for people; parts as `inside prompts: SROCC`."""
    return ": ".join(LABELS.get(part, part) for part in name.split("/"))


def tables(evaluation: Evaluation, *, details: bool = False) -> list[Table]:
    """All tables of an evaluation; `details` adds one with every prompt."""
    first = _overview(evaluation), _parts(evaluation), _human(evaluation), *_comparison(evaluation)
    found = [table for table in first if table.rows]
    for score, values in evaluation.scores.items():
        names = evaluation.generators[score]
        if names:
            title = f"{score}, by generator"
            found.append(group_table(title, "generator", values.generators, names))
    if details:
        for score, values in evaluation.scores.items():
            names = evaluation.prompts[score]
            if len(names) < values.clips:
                found.append(group_table(f"{score}, by prompt", "prompt", values.prompts, names))
    return found


def _overview(evaluation: Evaluation) -> Table:
    settings = evaluation.settings
    rows: list[list[Cell]] = [["clips", *(values.clips for values in evaluation.scores.values())]]
    rows += _figure_rows(values.figures for values in evaluation.scores.values())
    note = (
        f"Scores on {settings['scale']}. Pairs whose human scores differ by no more than "
        f"{settings['tie_margin']:g} are tied: left out of pair accuracy; with ties, they count as "
        "right where the predictions are close enough to be tied too."
    )
    if max(values.clips for values in evaluation.scores.values()) > LISTED_CLIPS:
        note += f" Of all pairs, {MOST_PAIRS:,} are drawn at random."
    if settings["draws"]:
        drawn = " and ".join(sorted(set(settings["resampled"].values())))
        note += (
            f" Brackets: {settings['level']:.0%} bootstrap intervals, {settings['draws']} samples "
            f"of {drawn}."
        )
    return Table(
        title="Agreement with human scores", header=["", *evaluation.scores], rows=rows, note=note
    )


def _figure_rows(columns: Iterable[dict[str, Estimate]], prefix: str = "") -> list[list[Cell]]:
    several = list(columns)
    names = [n for n in LABELS if any(n in values for values in several)]
    return [[prefix + label(name), *(values.get(name) for values in several)] for name in names]


def _parts(evaluation: Evaluation) -> Table:
    rows: list[list[Cell]] = []
    for part in ("within_generators", "between_generators", "within_prompts"):
        columns = [values.parts.get(part, {}) for values in evaluation.scores.values()]
        rows += _figure_rows(columns, prefix=f"{LABELS[part]}: ")
    return Table(
        title="Inside and between groups",
        header=["", *evaluation.scores],
        rows=rows,
        note="Inside generators or prompts: mean over those with three clips or more; pairs "
        "are of one prompt. Generators' means: one point per generator, the model level.",
    )


def _human(evaluation: Evaluation) -> Table:
    rows: list[list[Cell]] = []
    for name in _HUMAN:
        for who in ("one rater", "predictions"):
            columns = [
                (values.human if who == "one rater" else values.beside_human).get(name)
                for values in evaluation.scores.values()
            ]
            if any(columns):
                rows.append([f"{label(name)}, {who}", *columns])
    return Table(
        title="Human ceiling",
        header=["", *evaluation.scores],
        rows=rows,
        note="Each rater against the mean of the other raters, averaged over raters; and the "
        "predictions against the same means of the others.",
    )


def _comparison(evaluation: Evaluation) -> list[Table]:
    return [
        Table(
            title=f"{score}: first minus second predictor",
            header=["", "first", "second", "difference", "p"],
            rows=[
                [label(name), each.first, each.second, each.difference, _p(each)]
                for name, each in values.comparison.items()
            ],
            note=f"First: {evaluation.predictions}, on {evaluation.settings['prediction_scale']}; "
            f"second: {evaluation.against}, on {evaluation.settings['against_scale']}. Paired "
            "bootstrap: both are measured on the same samples; p is two-sided.",
        )
        for score, values in evaluation.scores.items()
    ]


def _p(difference: Difference) -> Cell:
    value = difference.p_value
    return None if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def group_table(
    title: str, kind: str, groups: Sequence[Group], names: Sequence[str], *, most: int | None = None
) -> Table:
    """A row per generator or prompt, the best rated first."""
    ordered = sorted(groups, key=lambda group: -(group.rating.value or 0.0))[:most]
    figures = [n for n in _GROUP_FIGURES if any(n in group.figures for group in ordered)]
    rows: list[list[Cell]] = [
        [
            one_line(names[group.number], limit=_PROMPT_CHARS),
            group.clips,
            group.prediction.value,
            group.rating.value,
            *(group.figures.get(name) for name in figures),
        ]
        for group in ordered
    ]
    header = [kind, "clips", "prediction", "human", *(LABELS[name] for name in figures)]
    return Table(title=title, header=header, rows=rows)


def board_tables(board: Leaderboard) -> list[Table]:
    """The leaderboard as a table, the ranking score first."""
    scores = [board.by, *(name for name in board.places[0].scores if name != board.by)]
    rows: list[list[Cell]] = [
        [
            place.generator,
            _rank(place),
            place.groups,
            place.clips,
            *(place.scores[name] for name in scores),
        ]
        for place in board.places
    ]
    settings = board.settings
    note = f"Ranked by the mean of {board.by}."
    if settings["draws"]:
        note += (
            f" Brackets: {settings['level']:.0%} bootstrap intervals, {settings['draws']} samples "
            f"of {settings['resampled']}. Generators that share a letter do not differ "
            f"significantly in {board.by} (t-test on the bootstrap's standard error, Holm, alpha "
            f"{settings['alpha']:g})."
        )
    header = ["generator", "rank", "group", "clips", *scores]
    return [Table(title="Leaderboard", header=header, rows=rows, note=note)]


def _rank(place: Place) -> str:
    low, high = place.ranks.low, place.ranks.high
    if low is None or high is None:
        return str(place.rank)
    return f"{place.rank} [{math.floor(low)}, {math.ceil(high)}]"


# ---- as text ------------------------------------------------------------------------------------


def show(cell: Cell) -> str:
    """A cell as plain text."""
    if isinstance(cell, Estimate):
        if cell.value is None:
            return "-"
        interval = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
        return f"{cell.value:.3f}{interval}"
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return "-" if cell is None else str(cell)


def as_rich(table: Table) -> RichTable:
    """For a terminal."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(
        title=Text(table.title),
        caption=Text(table.note),
        show_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for index, name in enumerate(table.header):
        rich.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*(Text(show(cell)) for cell in row))
    return rich


def as_plain(found: Sequence[Table]) -> str:
    """Tables as text of fixed width."""
    from rich.console import Console

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(
            file=nowhere, width=WIDTH, color_system=None, record=True, force_jupyter=False
        )
        _print(console, found)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def print_tables(found: Sequence[Table]) -> None:
    """Prints tables on standard output."""
    from rich.console import Console

    console = Console()
    _print(console if console.is_terminal else Console(width=WIDTH), found)


def _print(console: Console, found: Sequence[Table]) -> None:
    for index, table in enumerate(found):
        if index:
            console.print()
        console.print(as_rich(table))


def as_markdown(found: Sequence[Table]) -> str:
    """For a README or a paper in Markdown."""
    parts = []
    for table in found:
        rule = ["---", *["--:"] * (len(table.header) - 1)]
        cells = [[_markdown(show(cell)) for cell in row] for row in table.rows]
        lines = [f"### {_markdown(table.title)}", ""]
        lines += [f"| {' | '.join(row)} |" for row in (map(_markdown, table.header), rule, *cells)]
        if table.note:
            lines += ["", _markdown(table.note)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    for mark in "\\`*_|<":
        text = text.replace(mark, f"\\{mark}")
    return text


def as_latex(found: Sequence[Table]) -> str:
    """For a paper: one `table` each, with the rules of the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in found:
        columns = "l" + "r" * (len(table.header) - 1)
        caption = f"{table.title}. {table.note}".rstrip().removesuffix(".") + "."
        body = [" & ".join(map(_latex_cell, row)) + " \\\\" for row in table.rows]
        parts.append(
            "\n".join(
                [
                    "\\begin{table}",
                    "\\centering",
                    f"\\caption{{{_latex(caption)}}}",
                    f"\\begin{{tabular}}{{{columns}}}",
                    "\\toprule",
                    " & ".join(map(_latex, table.header)) + " \\\\",
                    "\\midrule",
                    *body,
                    "\\bottomrule",
                    "\\end{tabular}",
                    "\\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _latex_cell(cell: Cell) -> str:
    if isinstance(cell, Estimate) and cell.value is not None and cell.low is not None:
        return f"${cell.value:.3f}$ {{\\scriptsize $[{cell.low:.3f}, {cell.high:.3f}]$}}"
    if isinstance(cell, Estimate) and cell.value is not None:
        return f"${cell.value:.3f}$"
    return f"${cell:.3f}$" if isinstance(cell, float) else _latex(show(cell))


def _latex(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in text)


# ---- files --------------------------------------------------------------------------------------


def check_outputs(
    paths: Sequence[Path], report: Path | None = None, *, sources: Sequence[Path] = ()
) -> None:
    """Fails before the work is done rather than after it.

    Raises:
        InputError: a file has a suffix that says nothing, cannot be written, or is a source.
    """
    for path in paths:
        if path.suffix.lower() not in TABLE_SUFFIXES:
            known = ", ".join(TABLE_SUFFIXES)
            raise InputError(f"{as_text(path)}: tables are written as {known}")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{as_text(report)}: a report is an .html file")
    for path in [*paths, *([report] if report else [])]:
        check_not_one_of(path, sources)
        folder = path.parent
        if path.is_dir():
            raise InputError(f"{as_text(path)}: is a folder")
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"{as_text(path)}: cannot be written, see the folder {folder}")


def write_tables(path: Path, found: Sequence[Table], plain: dict[str, Any]) -> None:
    """Writes the tables as Markdown, LaTeX or text, or `plain` as JSON, by the suffix.

    Raises:
        InputError: it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = json.dumps(plain, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    else:
        text = {".md": as_markdown, ".tex": as_latex}.get(suffix, as_plain)(found)
    write_text(path, text)
