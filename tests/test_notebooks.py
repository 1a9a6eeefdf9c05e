"""The notebooks of examples/: clean in the repository, and run from top to bottom.

With AIGVEVAL_DATA they work on clips of FETV, as they do for a reader who has them; without it on
parts of the example scene.
"""

import csv
import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# As `python -m ipykernel_launcher`, but without searching for garbage while much is imported.
KERNEL = "import gc; gc.set_threshold(50_000); from ipykernel.kernelapp import main; main()"
OURS = ("aigveval", "encoders", "prompts", "small_data")
SECONDS = 900  # for one cell; on an idle machine, a whole notebook takes about a minute


def test_all_are_there():
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    """Outputs would rot, and make every change of a notebook a change of pictures."""
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    advice = f"clean it: jupyter nbconvert --clear-output --inplace examples/{path.name}"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, advice
        assert not cell.metadata, advice
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert len(text) < 20_000 and str(Path.home()) not in text


@pytest.fixture(scope="module")
def warm():
    """A client without a notebook yet; its kernel is the interpreter of this test.

    It stays for one notebook after the other, as it imports for long what all of them need: other
    libraries, as `run` forgets our own.
    """
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        spec = Path(folder) / "jupyter/kernels/python3"
        spec.mkdir(parents=True)
        command = [sys.executable, "-c", KERNEL, "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps({"argv": command, "display_name": "Python 3", "language": "python"})
        )
        patch.setenv("JUPYTER_PATH", str(Path(folder) / "jupyter"))
        patch.setenv("IPYTHONDIR", str(Path(folder) / "ipython"))  # nobody's own settings
        found = [str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))
        client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", timeout=SECONDS)
        with client.setup_kernel():
            yield client


@pytest.fixture
def folder(tmp_path):
    """A copy of the examples."""
    for path in [*NOTEBOOKS, EXAMPLES / "small_data.py"]:
        shutil.copy(path, tmp_path)
    shutil.copytree(EXAMPLES / "videos", tmp_path / "videos")
    return tmp_path


def run(client, folder, name, expression):
    """Run a notebook; gives the value that a JSON expression then has in it, and its pictures.

    In its folder, and without any name or module of ours that the notebook before had.
    """
    notebook = nbformat.read(folder / name, as_version=4)
    first = f"%reset -f\nimport os, sys; os.chdir({str(folder)!r})\n"
    first += "for name in list(sys.modules):\n"
    first += f"    if name.partition('.')[0] in {OURS}: del sys.modules[name]\n"
    first += "del os, sys"
    last = f"import json; print(json.dumps({expression}))"
    cells = [first, *(cell.source for cell in notebook.cells if cell.cell_type == "code"), last]
    client.nb = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    client.reset_execution_trackers()
    for number, cell in enumerate(client.nb.cells):
        client.execute_cell(cell, number)
    pictures = [
        output
        for cell in client.nb.cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    (last,) = client.nb.cells[-1].outputs
    return json.loads(last["text"]), len(pictures)


@pytest.mark.slow
def test_score(warm, folder):
    frames = "rows._repr_html_().count('data:image/jpeg')"
    shown = f"[table.to_dict('index'), str(clean), best, {frames}]"
    (scores, found, best, strips), pictures = run(warm, folder, "01_score.ipynb", shown)
    assert len(scores) == 7 and pictures == 2 and found == "videos/scene_clean.mp4"
    assert best == "scene_clean" and strips == 7
    assert scores["scene_blocking"]["technical"] < scores["scene_clean"]["technical"]
    assert scores["scene_freeze"]["motion"] < scores["scene_clean"]["motion"]
    with open(folder / "out/score/results.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 7
    assert "scene_blur" in (folder / "out/score/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_finetune(warm, folder):
    shown = (
        "[gain.to_dict(), len(test), [sorted({row.prompt for row in part}) for part in "
        "(test, read_training_manifest(parts.files['train']))], card.text]"
    )
    (gain, count, (tested, trained), card), pictures = run(
        warm, folder, "02_finetune_lora.ipynb", shown
    )
    assert not set(tested) & set(trained) and len(tested) + len(trained) == 8 and count >= 12
    assert gain["after"] > gain["before"] + 0.2
    assert pictures == 2
    assert f"| SROCC | {gain['after']:.2f} [" in card
    assert "Trained by `aigveval fit` on train.csv, starting from lite." in card


@pytest.mark.slow
def test_ntire(warm, folder):
    shown = "[main.value, list(evaluation.scores), list(found.scores)]"
    (main, scores, names), pictures = run(warm, folder, "03_ntire_evaluation.ipynb", shown)
    assert -1 <= main <= 1 and {"technical", "motion", "overall"} <= set(scores) and pictures == 1
    with zipfile.ZipFile(folder / "out/ntire/submission.zip") as archive:
        submitted = json.loads(archive.read("output.json"))
    assert [row["video"] for row in submitted] == names and len(names) >= 24


@pytest.mark.slow
def test_encoders(warm, folder):
    shown = (
        "[len(X['motion']), table.to_dict('records'), "
        "'aigveval.model.modeling' in __import__('sys').modules]"
    )
    (count, table, loaded), pictures = run(
        warm, folder, "04_encoders_in_your_pipeline.ipynb", shown
    )
    assert count >= 40 and pictures == 1 and len(table) == 4
    assert not loaded  # our model had no part in it
    found = {(row["model"], row["score"]): row for row in table}
    assert all(row["low"] <= row["SROCC"] <= row["high"] for row in table)
    assert found["SVR", "technical"]["SROCC"] > 0.4


def test_small_data_without_any(folder, monkeypatch):
    """What a reader without the data gets: whole prompts, and damage with its nominal drop."""
    monkeypatch.delenv("AIGVEVAL_DATA", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "small_data", raising=False)
    import small_data

    assert not small_data.has_human_scores()
    manifest = small_data.rated_clips(folder / "out", prompts=2)
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["prompt"] for row in rows}) == 2
    assert len({Path(row["video"]).name for row in rows}) == len(rows) == 10
    clean, damaged = rows[0], rows[2]
    assert clean["technical"] == clean["overall"] == "4.500"
    assert (damaged["generator"], damaged["technical"]) == ("blur", "1.500")
    assert float(damaged["overall"]) == pytest.approx((1.5 + 4.5 + 4.5) / 3, abs=1e-3)


def test_small_data_of_people(folder, data_dir, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "small_data", raising=False)
    import small_data

    assert small_data.has_human_scores()
    rows = small_data.sources(folder / "out")
    assert len({row["prompt"] for row in rows}) == len(rows) == 8
    with open(small_data.rated_clips(folder / "out"), newline="", encoding="utf-8") as file:
        rated = list(csv.DictReader(file))
    assert len(rated) == 32 and not any("real" in row["generator"] for row in rated)
    assert "motion_rater1" in rated[0]
