"""What is marked in a clip's frames and along its time."""

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from aigveval.assessment import Timeline, Window
from aigveval.reports.html.page import _draw_boxes
from aigveval.reports.html.scores import write_report
from aigveval.reports.plots import _draw_frames, plot_timeline
from aigveval.reports.strips import BAD, FINE, boxes_at, label_of, ranges_of, read_strip
from prompts import Defect
from prompts.facts import Fact

from ..test_assessment import scored
from tests.media import write_video

BOX = (0.2, 0.2, 0.6, 0.7)
SEEN = Fact(
    kind="seen",
    name="dog",
    value=1,
    confidence=0.98,
    start_seconds=0.0,
    end_seconds=1.0,
    at_seconds=0.5,
    box=BOX,
)
GONE = Fact(
    kind="vanishes",
    name="dog",
    confidence=0.9,
    start_seconds=1.0,
    end_seconds=1.1,
    at_seconds=1.0,
    box=BOX,
)
FACTS = (
    Fact(kind="duration", value=2.0),
    SEEN,
    Fact(kind="cut", start_seconds=1.99, end_seconds=1.99),
    GONE,
)
DEFECTS = (
    Defect(name="vanishing_object", severity=4, start_seconds=1.0, end_seconds=1.1),
    Defect(name="blur", severity=2),
)


def row(video="clip.mp4", **fields):
    given = {"explanation": {"motion": "The <dog> is gone."}, "defects": DEFECTS, "problems": ()}
    return scored(str(video), **given | {"evidence": FACTS, "advice": ("Try again.",)} | fields)


def test_boxes_of_a_frame():
    assert boxes_at(0.5, FACTS) == [SEEN] and boxes_at(1.0, FACTS) == [GONE]
    assert boxes_at(0.7, FACTS) == []
    assert [label_of(fact) for fact in (SEEN, GONE)] == ["dog 98 %", "dog vanishes"]


def test_ranges_are_defects_first_and_within_the_clip():
    ranges = ranges_of(row())
    found = [(one.label, round(one.start, 3), round(one.end, 3), one.colour) for one in ranges]
    assert found == [
        ("vanishing object: dog", 0.5, 0.55, BAD),
        ("blur", 0.0, 1.0, BAD),
        ("cut", 0.99, 1.0, BAD),
        ("dog 98 %", 0.0, 0.5, FINE),
    ]
    assert ranges_of(row(evidence=(), advice=())) == []


def test_ranges_mark_what_the_sentences_call_uneven():
    times = {"start_seconds": 0.0, "end_seconds": 1.0}

    def labels(less, percentile):
        evidence = (
            FACTS[0],
            Fact(kind="speed", value=1.0, percentile=percentile),
            Fact(kind="busiest", value=1.0, **times),
            Fact(kind="calmest", value=0.2, **times),
            Fact(kind="sharpest", value=10.0, **times),
            Fact(kind="softest", value=10.0 - less, **times),
        )
        return [one.label for one in ranges_of(row(defects=(), evidence=evidence))]

    assert labels(5, 50) == ["softest", "most movement"]
    assert labels(0.2, 0) == []


def test_a_label_at_the_edge_is_whole():
    ground = np.zeros((72, 128, 3), np.uint8)
    edge = Fact(kind="seen", name="person", value=1, confidence=0.98, at_seconds=0.5,
                box=(0.9, 0.2, 1.0, 0.9))  # fmt: skip
    whole = Image.fromarray(ground)
    _draw_boxes(whole, [edge], (0, 128))
    cropped = Image.fromarray(ground)
    _draw_boxes(cropped, [edge], (10, 100))
    columns = [np.flatnonzero((np.asarray(p) > 150).all(2).any(0)) for p in (whole, cropped)]
    assert columns[0].max() < 126 and columns[1].max() < 98
    assert np.ptp(columns[0]) == np.ptp(columns[1]) > 40


def test_a_label_on_the_right_ends_with_its_box():
    boxes = ((0.1, 0.2, 0.4, 0.9), (0.7, 0.2, 1.0, 0.9))
    facts = [Fact(**{**vars(SEEN), "box": box}) for box in boxes]
    timeline = Timeline(duration_seconds=2.0, windows=[], clip=row(evidence=facts))
    axes = Figure().subplots()
    _draw_frames(axes, timeline, np.zeros((2, 9, 16, 3), np.uint8), np.array([0.5, 1.5]))
    at = [(text.get_ha(), round(text.get_position()[0], 3)) for text in axes.texts]
    assert at == [("left", 0.097), ("right", 0.97)]


def test_the_report_shows_them(tmp_path):
    video = tmp_path / "clip.mp4"
    write_video(video, num_frames=16)
    _, times = read_strip(video, 8, 72)
    at = float(times[3])
    boxed = Fact(**{**vars(SEEN), "at_seconds": at})
    pages = []
    for evidence in (FACTS[:1], (*FACTS[:1], boxed)):
        write_report(tmp_path / "r.html", [row(video, evidence=evidence)])
        pages.append((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert pages[0] != pages[1]  # the box is drawn
    for said in ("The &lt;dog&gt; is gone.", "Try again.", 'class="ranges"', "dog 98 %"):
        assert said in pages[1]


def test_the_plot_of_a_timeline_has_the_frames(tmp_path):

    video = tmp_path / "clip.mp4"
    write_video(video, num_frames=16)
    sizes = []
    for clip in (row(video), row(video, evidence=None, advice=None), row(tmp_path / "gone.mp4")):
        scores = {name: getattr(clip, name) for name in ("overall", "technical", "motion")}
        window = Window(start_seconds=0.0, end_seconds=2.0, scores=scores | {"semantic": None})
        timeline = Timeline(duration_seconds=2.0, windows=[window], clip=clip)
        plot_timeline(timeline, tmp_path / "t.png")
        with Image.open(tmp_path / "t.png") as picture:
            sizes.append(np.asarray(picture).shape)
    assert sizes[0][0] > sizes[1][0]  # a strip above the scores
    assert sizes[2][0] < sizes[0][0]  # without the file there is none


def test_the_plot_of_a_timeline_has_every_cut(tmp_path):
    cuts = [Fact(kind="cut", start_seconds=time, end_seconds=time) for time in (0.5, 1.5)]
    clip = row(tmp_path / "gone.mp4", evidence=(*FACTS[:1], *cuts))
    scores = {name: getattr(clip, name) for name in ("overall", "technical", "motion", "semantic")}
    window = Window(start_seconds=0.0, end_seconds=2.0, scores=scores)
    plot_timeline(Timeline(duration_seconds=2.0, windows=[window], clip=clip), tmp_path / "t.svg")
    shown = (tmp_path / "t.svg").read_text("utf-8")
    assert shown.count("<!-- cut -->") == 2 and shown.count("<!-- vanishing object 4 -->") == 1
