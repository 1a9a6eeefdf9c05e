"""The page: tabs to score clips, to compare two, to score a batch, and to open results.

What people see of a clip is HTML of `aigveval.reports.html.card`, in which every text from outside
is escaped; Gradio does the uploads, the tables and the plot.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import pandas as pd
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from prompts import render_defects

from ..assessment import SCORE_FIELDS, Assessment
from ..data.inputs import VIDEO_SUFFIXES
from ..data.manifest import Clip
from ..errors import UsageError, common_start
from ..inference.choice import compare, percent, verdict
from ..reports.html import card as cards
from ..reports.html.page import render
from ..reports.html.scores import write_report
from ..reports.results import SUFFIXES, ResultsFile, read_results
from .files import MOST_LISTED, Keys, Scratch, clips_in, inside, shown_name
from .limits import Refused
from .service import Service
from .work import Job, score_all

_HERE = Path(__file__).parent
_PLAYED = {  # suffix -> what browsers play it as
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/webm",
    ".ogv": "video/ogg",
}
_COLUMNS = ("video", *SCORE_FIELDS, "familiarity", "defects", "error", "prompt")
_NUMBERS = (*SCORE_FIELDS, "familiarity")
_QUIETLY: Any = {"api_visibility": "private", "show_progress": "hidden"}  # of what a part does
_MOST_CARDS = 20
_TABS = ("score", "compare", "batch")
_MOST_ROWS = 5000
_FROM_FOLDER = "or choose from the server's folder"
_MOST_KEPT = 100_000  # rows, of 1.3 KB and with explanations 3 KB and more, of all results to save
_WHAT = (
    "How good is a generated clip to a viewer, where does it fail, and why? Clips stay on this "
    "server, and go when it stops."
)


@dataclass(frozen=True, eq=False)
class Results:
    """Rows that a page shows, and the files of those videos that are at hand, by their names."""

    rows: tuple[Assessment, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    key: str = ""


class Page:
    """The page of one server; clips may be chosen from the folder `root`, None for none."""

    def __init__(self, service: Service, scratch: Scratch, root: Path | None) -> None:
        self.service = service
        self.scratch = scratch
        self.root = root
        self.videos: Keys[tuple[Path, str]] = Keys(most=5000)
        self.results: Keys[Results] = Keys(most=_MOST_KEPT, size=lambda one: 1 + len(one.rows))
        self.jobs: dict[tuple[str, str], Job] = {}  # by session and tab
        self.choices: list[gr.Dropdown] = []  # the lists of clips of the folder

    # ---- files ----------------------------------------------------------------------------------

    def given(self, uploads: Any, chosen: Any, prompts: str | None) -> list[Clip]:
        """The clips of a form, under names that differ.

        Raises:
            Refused: a path is neither an upload nor within --root, or prompts don't match.
        """
        uploads = [uploads] if isinstance(uploads, str) else uploads or []
        chosen = [chosen] if isinstance(chosen, str) else chosen or []
        found = [(self.upload(path), shown_name(path)) for path in uploads]
        found += [(inside(self.root, name), name) for name in chosen]
        if not found:
            raise Refused("no clip yet: drop one, or choose one")
        lines = [line.strip() for line in (prompts or "").splitlines() if line.strip()]
        if len(lines) > 1 and len(lines) != len(found):
            raise Refused(
                f"there are {len(lines)} lines of prompts for {len(found)} clips; write one for "
                "all, or one a line in the order of the clips"
            )
        one = lines[0] if lines else None
        each = lines if len(lines) > 1 else [one] * len(found)
        taken: dict[str, int] = {}
        clips = []
        for (path, name), prompt in zip(found, each):
            taken[name] = taken.get(name, 0) + 1
            number = f" ({taken[name]})" if taken[name] > 1 else ""
            clips.append(Clip(path=path, video=name + number, prompt=prompt))
        return clips

    def upload(self, path: str) -> Path:
        """The file of an upload; `Refused` where it is somewhere else, or gone."""
        if not self.scratch.has_upload(path):
            raise Refused("that is no upload of this page, or no more: drop it again")
        return Path(path).resolve()

    def player(self, path: Path | None, name: str) -> str | None:
        """The address of a video; None where no browser plays it."""
        if path is None or path.suffix.lower() not in _PLAYED:
            return None
        return f"/clip/{self.videos.add((path, name))}"

    def add_routes(self, api: fastapi.FastAPI) -> None:
        """Adds what the page's HTML asks for: videos, and files to be saved."""

        @api.get("/clip/{key}", include_in_schema=False)
        async def clip(key: str) -> FileResponse:
            path, name = self.videos.get(key)
            if not path.is_file():
                raise Refused("the video is gone", 404)
            return FileResponse(
                path,
                media_type=_PLAYED.get(path.suffix.lower(), "application/octet-stream"),
                headers={"content-security-policy": "sandbox", "cache-control": "no-store"},
            )

        @api.get("/save/{key}/{name}", include_in_schema=False)
        def save(key: str, name: str) -> FileResponse:
            found = self.results.get(key)
            suffix = Path(name).suffix.lower()
            if name not in ("report.html", "results.csv", "results.jsonl"):
                raise Refused("there is no such file", 404)
            with self.scratch.upload("") as upload:  # only to have a name that nobody has
                path = upload.path.with_name(upload.path.name + "-save" + suffix)
            try:
                if suffix == ".html":
                    write_report(path, found.rows, files=found.files)
                else:
                    with ResultsFile(path) as file:
                        for row in found.rows:
                            file.write(row)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return FileResponse(
                path,
                media_type="application/octet-stream",
                filename=name,
                background=BackgroundTask(path.unlink, missing_ok=True),
            )

    # ---- what the buttons do --------------------------------------------------------------------

    def start(self, request: gr.Request, tab: str) -> Job:
        """A job in place of the one that was started in this tab of the page."""
        self.cancel(request, tab)
        job = self.jobs[(str(request.session_hash), tab)] = Job()
        return job

    def cancel(self, request: gr.Request, tab: str) -> None:
        """Cancels what was started in a tab of the page."""
        job = self.jobs.pop((str(request.session_hash), tab), None)
        if job is not None:
            job.cancel()

    def leave(self, request: gr.Request) -> None:
        """Cancels all of a page that was closed."""
        for tab in _TABS:
            self.cancel(request, tab)

    async def score(
        self, uploads: Any, chosen: Any, prompt: str, explain: bool, request: gr.Request
    ) -> AsyncIterator[tuple[str, str]]:
        """Progress and cards."""
        try:
            clips = self.given(uploads, chosen, _in_a_line(prompt))
        except Refused as refused:
            yield _problem(str(refused)), ""
            return
        job = self.start(request, "score")
        shown: dict[int, str] = {}
        done = 0
        yield self.progress(0, len(clips)), ""
        async for number, row in score_all(self.service, clips, explain=explain, job=job):
            if len(shown) < _MOST_CARDS:
                shown[number] = await asyncio.to_thread(self.card, row, clips[number].path)
            done += 1
            bar = self.progress(done, len(clips))
            yield bar, "".join(shown[number] for number in sorted(shown))
        more = len(clips) - len(shown)
        said = _said("cancelled") if job.cancelled else ""
        if more and not job.cancelled:
            said = _said(f"{more} more were scored; the tab Batch shows tables")
        yield said, "".join(shown[number] for number in sorted(shown))

    async def compare(
        self,
        first: Any,
        first_chosen: Any,
        second: Any,
        second_chosen: Any,
        prompt: str,
        explain: bool,
        request: gr.Request,
    ) -> AsyncIterator[tuple[str, str]]:
        """Progress, and two clips side by side."""
        said = _in_a_line(prompt)
        try:
            clips = [
                replace(clip, video=f"{letter}: {clip.video}")
                for letter, one in (("A", (first, first_chosen)), ("B", (second, second_chosen)))
                for clip in self.given(*one, said)[:1]
            ]
        except Refused as refused:
            yield _problem(str(refused)), ""
            return
        job = self.start(request, "compare")
        rows: dict[int, Assessment] = {}
        yield self.progress(0, 2), ""
        async for number, row in score_all(self.service, clips, explain=explain, job=job):
            rows[number] = row
            yield self.progress(len(rows), 2), ""
        if job.cancelled:
            yield _said("cancelled"), ""
            return
        details = [
            await asyncio.to_thread(self.card, rows[n], clips[n].path, player=False) for n in (0, 1)
        ]
        both = [rows[0], rows[1]]
        if any(row.error is not None for row in both):
            yield "", "".join(details)
            return
        found = compare(*both)
        side = render(
            "pair.html.j2",
            rows=both,
            said=verdict(["A", "B"], found),
            differences=found.differences,
            chances={name: percent(chance) for name, chance in found.chances.items()},
            players=[self.player(clip.path, clip.video) for clip in clips],
        )
        yield "", side + "".join(details)

    async def batch(
        self, uploads: Any, chosen: Any, prompts: str, explain: bool, request: gr.Request
    ) -> AsyncIterator[tuple[str, Results]]:
        """Progress, and the rows as they come."""
        try:
            clips = self.given(uploads, chosen, prompts)
        except Refused as refused:
            yield _problem(str(refused)), Results()
            return
        job = self.start(request, "batch")
        files = {clip.video: clip.path for clip in clips}
        rows: dict[int, Assessment] = {}
        yield self.progress(0, len(clips)), Results()
        async for number, row in score_all(self.service, clips, explain=explain, job=job):
            rows[number] = row
            known = tuple(rows[number] for number in sorted(rows))
            yield self.progress(len(rows), len(clips)), Results(known, files)
        said = f"cancelled: {len(rows)} of {len(clips)} are scored" if job.cancelled else ""
        yield _said(said), self.kept(tuple(rows[number] for number in sorted(rows)), files)

    def open_results(self, upload: Any) -> tuple[str, Results]:
        """The rows of a file that the command line wrote."""
        if not upload:
            return "", Results()
        try:
            path = self.upload(upload)
            if path.suffix.lower() not in SUFFIXES:
                raise Refused(f"results are files of the kinds {', '.join(SUFFIXES)}")
            rows = read_results(path)
            if not rows:
                raise Refused(f"{path.name}: has no rows")
        except (Refused, UsageError) as error:
            return _problem(str(error).replace(str(upload), shown_name(upload))), Results()
        files = {}
        for row in rows[:_MOST_ROWS]:
            try:
                files[row.video] = inside(self.root, row.video)
            except Refused:
                continue
        said = f"the first {_MOST_ROWS} of {len(rows)} rows" if len(rows) > _MOST_ROWS else ""
        return _said(said), self.kept(tuple(rows[:_MOST_ROWS]), files)

    def kept(self, rows: tuple[Assessment, ...], files: Mapping[str, Path]) -> Results:
        """Results that can be saved."""
        return Results(rows, files, self.results.add(Results(rows, files)))

    # ---- what is shown --------------------------------------------------------------------------

    def progress(self, done: int, total: int) -> str:
        """A bar."""
        others = max(0, self.service.waiting - (total - done))
        queue = f"; {others} of others wait" if others else ""
        return (
            f'<div class="aigveval" role="status">{done} of {total} scored{queue}'
            f'<progress max="{total}" value="{done}" aria-label="clips scored"></progress></div>'
        )

    def card(self, row: Assessment, path: Path | None, *, player: bool = True) -> str:
        """A row as HTML, with its video."""
        address = self.player(path, row.video) if player else None
        return cards.card(row, file=path, player=address)

    def links(self, results: Results) -> str:
        """Links to save rows."""
        if not results.key or not results.rows:
            return ""
        names = {"results.csv": "CSV", "results.jsonl": "JSONL", "report.html": "HTML report"}
        links = "".join(
            f'<a href="/save/{results.key}/{name}" download="{name}">{label}</a>'
            for name, label in names.items()
        )
        return f'<div class="aigveval links">Download {links}</div>'

    def chosen_card(self, results: Results, event: gr.SelectData) -> str:
        """The card of a row of the table, whatever it is sorted by."""
        name, prompt = event.row_value[0], event.row_value[_COLUMNS.index("prompt")]
        for shown, row in zip(short_names(results.rows), results.rows):
            if shown == name and (row.prompt or "") == (prompt or ""):
                return self.card(row, results.files.get(row.video))
        return ""

    # ---- layout ---------------------------------------------------------------------------------

    def build(self) -> gr.Blocks:
        """The page's parts, and what happens when they are used."""
        with gr.Blocks(title="aigveval", analytics_enabled=False, delete_cache=(600, 7200)) as page:
            gr.HTML(
                f'<div class="aigveval"><h1>aigveval</h1><p class="soft">{_WHAT}</p></div>',
                elem_id="head",
            )
            with gr.Tab("Score", id="score"):
                self._score_tab()
            with gr.Tab("Compare", id="compare"):
                self._compare_tab()
            with gr.Tab("Batch", id="batch"):
                self._batch_tab()
            with gr.Tab("Open results", id="results"):
                self._results_tab()
            if self.root is not None:  # what came since the server started is there on a reload
                page.load(self.listed, None, self.choices, **_QUIETLY)
            page.unload(self.leave)
        return page

    def _clips(self, label: str, *, several: bool = True) -> tuple[gr.File, gr.Dropdown]:
        files = gr.File(
            label=label,
            file_count="multiple" if several else "single",
            file_types=sorted({*VIDEO_SUFFIXES, ".webp"}),
            height=170,
        )
        chosen = gr.Dropdown(
            [],
            label=_FROM_FOLDER,
            multiselect=several,
            value=[] if several else None,
            visible=self.root is not None,
        )
        self.choices.append(chosen)
        return files, chosen

    def listed(self) -> list[dict[str, Any]]:
        """The clips that there are to choose now, for each list of them."""
        found = clips_in(self.root)
        label = _FROM_FOLDER
        if len(found) == MOST_LISTED:
            label += f": its first {MOST_LISTED:,} videos"
        return [gr.update(choices=found, label=label) for _ in self.choices]

    def _explain(self) -> gr.Checkbox:
        return gr.Checkbox(
            label="explain the scores, too (takes longer)",
            value=self.service.explains,
            visible=self.service.explains,
        )

    def _buttons(self, label: str, tab: str) -> gr.Button:
        with gr.Row():
            go = gr.Button(label, variant="primary", scale=3, min_width=120)
            stop = gr.Button("Cancel", scale=1, min_width=80)

        def cancel(request: gr.Request) -> None:
            self.cancel(request, tab)

        stop.click(cancel, queue=False, **_QUIETLY)
        return go

    def _score_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                files, chosen = self._clips("clips: drop one or many, or click")
            with gr.Column(scale=1, min_width=280):
                prompt = gr.Textbox(
                    label="prompt",
                    placeholder="the text that it was generated from, such as: a dog runs on the "
                    "beach",
                    lines=2,
                    max_lines=6,
                )
                explain = self._explain()
                go = self._buttons("Score", "score")
                progress = gr.HTML(elem_classes="progress")
        examples = find_examples()
        if examples:
            gr.Examples(
                [[[str(path)], said] for path, said in examples],
                [files, prompt],
                label="Examples",
                example_labels=[path.stem.replace("_", " ") for path, _ in examples],
                cache_examples=False,
                api_visibility="private",
            )
            files.keep_in_cache |= files.temp_files  # uploads go after a while, examples stay
        shown = gr.HTML(elem_id="cards")
        go.click(self.score, [files, chosen, prompt, explain], [progress, shown], **_QUIETLY)

    def _compare_tab(self) -> None:
        with gr.Row():
            with gr.Column(min_width=240):
                first = self._clips("clip A", several=False)
            with gr.Column(min_width=240):
                second = self._clips("clip B", several=False)
        prompt = gr.Textbox(label="prompt of both", lines=1)
        explain = self._explain()
        go = self._buttons("Compare", "compare")
        progress = gr.HTML(elem_classes="progress")
        shown = gr.HTML(elem_id="pair")

        go.click(self.compare, [*first, *second, prompt, explain], [progress, shown], **_QUIETLY)

    def _batch_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                files, chosen = self._clips("clips")
            with gr.Column(scale=1, min_width=280):
                prompts = gr.Textbox(
                    label="prompts: one for all, or one a line in the order of the clips",
                    lines=4,
                    max_lines=12,
                )
                explain = self._explain()
                go = self._buttons("Score the batch", "batch")
                progress = gr.HTML(elem_classes="progress")
        rows = self._table()
        go.click(self.batch, [files, chosen, prompts, explain], [progress, rows], **_QUIETLY)

    def _results_tab(self) -> None:
        file = gr.File(
            label="a file that `aigveval score` wrote: results.jsonl, .csv or .parquet",
            file_types=list(SUFFIXES),
            height=170,
        )
        progress = gr.HTML(elem_classes="progress")
        rows = self._table()
        file.change(self.open_results, file, [progress, rows], **_QUIETLY)

    def _table(self) -> gr.State:
        """A table of rows with what belongs to it; shows whatever the state is set to."""
        rows = gr.State(Results())
        links = gr.HTML()
        table = gr.Dataframe(
            frame_of(()),
            label="click a row to see its clip",
            datatype=[*("number" if name in _NUMBERS else "str" for name in _COLUMNS)],
            interactive=False,
            show_search="filter",
            wrap=False,
            max_height=420,
            visible=False,
            column_widths=["200px", *["95px"] * len(_NUMBERS), "190px", "160px", "220px"],
        )
        shown = gr.HTML(elem_classes="chosen")
        with gr.Row(visible=False) as choice:
            across = gr.Dropdown(list(SCORE_FIELDS), value="technical", label="across")
            up = gr.Dropdown(list(SCORE_FIELDS), value="motion", label="up")
        plot = gr.ScatterPlot(visible=False, x="technical", y="motion", height=320)

        def show(results: Results) -> tuple[Any, ...]:
            some = bool(results.rows)
            return (
                self.links(results),
                gr.update(value=frame_of(results.rows), visible=some),
                gr.update(visible=some),
                "",
            )

        def scatter(results: Results, across: str, up: str) -> Any:
            frame = frame_of(results.rows)
            frame = frame[["video", *dict.fromkeys((across, up))]].dropna()
            return gr.ScatterPlot(
                frame,
                x=across,
                y=up,
                x_lim=[1, 5],
                y_lim=[1, 5],
                tooltip=["video"],
                visible=len(frame) > 1,
            )

        rows.change(show, rows, [links, table, choice, shown], **_QUIETLY)
        for part in (rows, across, up):
            part.change(scatter, [rows, across, up], plot, **_QUIETLY)
        table.select(self.chosen_card, rows, shown, **_QUIETLY)
        return rows


def frame_of(rows: Sequence[Assessment]) -> pd.DataFrame:
    """Rows as a table of what people sort and filter by."""
    found = [
        {
            "video": name,
            **{
                field: None if (score := getattr(row, field)) is None else round(score.score, 2)
                for field in SCORE_FIELDS
            },
            "familiarity": row.familiarity,
            "defects": "" if row.defects is None else render_defects(row.defects),
            "prompt": row.prompt or "",
            "error": row.error or "",
        }
        for name, row in zip(short_names(rows), rows)
    ]
    return pd.DataFrame(found, columns=list(_COLUMNS))


def short_names(rows: Sequence[Assessment]) -> list[str]:
    """The rows' videos without the folders that all lie in."""
    names = [row.video for row in rows]
    same = common_start([name[: name.rfind("/") + 1] for name in names])
    return [name[same.rfind("/") + 1 :] for name in names]


def find_examples() -> list[tuple[Path, str]]:
    """The project's own clips with their prompts: those of the repository, or the bundled two."""
    package = _HERE.parent
    folder = package.parent / "examples" / "videos"
    if (folder / "prompts.json").is_file():
        said = json.loads((folder / "prompts.json").read_text("utf-8"))
    else:
        folder = package / "doctor" / "self_test"
        clips = json.loads((folder / "expected.json").read_text("utf-8"))["clips"]
        said = {clip["video"]: clip["prompt"] for clip in clips}
    return [(folder / name, prompt) for name, prompt in said.items() if (folder / name).is_file()]


def head() -> str:
    """What goes into the page's head: style and script."""
    script = (_HERE / "page.js").read_text("utf-8")
    own = (_HERE / "page.css").read_text("utf-8")
    return f"<style>{cards.style()}{own}</style><script>{script}</script>"


def _in_a_line(prompt: str | None) -> str:
    """One prompt, whatever lines it has."""
    return " ".join((prompt or "").split())


def _said(text: str) -> str:
    return f'<p class="aigveval soft" role="status">{html.escape(text)}</p>' if text else ""


def _problem(text: str) -> str:
    return f'<p class="aigveval problem" role="alert">{html.escape(text)}</p>'
