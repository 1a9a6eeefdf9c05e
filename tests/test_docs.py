"""README and docs: every command parses, every name exists, every link leads somewhere.

The two commands of the README are run by `.ci/run`; what a page shows of Python is run here where
it needs nothing but the example clips.
"""

import ast
import configparser
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
OURS = ("aigveval", "encoders", "prompts")


def blocks(kind):
    """(page:line, text) of all fenced blocks of a language."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 2
            found.append(pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def commands(text):
    """The commands of a shell block, each as a list of words."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|)\s", line):
            if words := shlex.split(part, comments=True):
                yield words


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands(text):
    """Options are known and have values of the right type; files and extras are there."""
    from aigveval.cli.app import app

    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    group = typer.main.get_command(app)
    for words in commands(text):
        if words[0] == "aigveval" and "--help" not in words:
            context = group.make_context("aigveval", words[1:], resilient_parsing=False)
            name, command, rest = group.resolve_command(context, words[1:])
            while hasattr(command, "commands"):  # such as `aigveval data check`
                name, command, rest = command.resolve_command(context, rest)
            command.make_context(name, rest, parent=context)
        elif words[0] == "python" and words[1].endswith(".py"):
            script = ROOT / words[1]
            assert script.is_file(), words
            # Scripts share the functions of their neighbours, and with them options.
            texts = "".join(path.read_text("utf-8") for path in script.parent.glob("*.py"))
            assert all(f'"{word}"' in texts for word in words[2:] if word[:2] == "--"), words
        elif words[:2] == ["pip", "install"]:
            for extra in re.findall(r"\.\[(\w+)\]", " ".join(words)):
                assert extra in settings["options.extras_require"], words


@pytest.mark.parametrize("text", blocks("python"))
def test_names_in_python(text):
    """What is imported of ours exists, and the code is Python."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("text", blocks("json"))
def test_json(text):
    for line in text.strip().splitlines():
        assert json.loads(line)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_options_in_yaml(text):
    """Keys are those of `aigveval fit`; mistyped ones would be errors there."""
    from dataclasses import fields

    from aigveval.train.config import FitConfig

    known = {field.name for field in fields(FitConfig)} | {"preset", "stages", "grpo"}
    assert set(yaml.safe_load(text)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads]
            assert anchor in slugs, target


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 260


@pytest.mark.slow
def test_the_readme_s_python_runs(tmp_path, monkeypatch, make_encoder, capsys):
    make_encoder("semantic_lite")  # skips where there are no weights
    shutil.copytree(ROOT / "examples/videos", tmp_path / "examples/videos")
    shutil.copy(ROOT / "examples/videos/scene_clean.mp4", tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"not a video")  # what the last line shows too
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text("utf-8")
    exec(re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1], {})
    first, second, scored, failed = capsys.readouterr().out.splitlines()
    assert all(1 <= float(score) <= 5 for score in first.split())
    assert "flicker" in second
    name, score = scored.split()
    assert name == "a.mp4" and 1 <= float(score) <= 5
    assert re.fullmatch(r"b\.mp4 \D+", failed)  # the reason
