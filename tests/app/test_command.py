"""`aigveval app` on the command line, the Space and the container."""

import json
import re
import runpy
import shlex
import socket
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.inference.assessor import Assessor

from tests.aigveval.engines import TextEngine

SPACE = Path(__file__).parents[2] / "examples" / "space"


def run(*options, **environment):
    done = CliRunner().invoke(app, ["app", *options], env={"COLUMNS": "200", **environment})
    return done.exit_code, done.stderr.strip()


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    expected = "aigveval app needs what `pip install 'aigveval[app]'` brings"
    assert run() == (2, f"error: {expected}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: others could reach it; give --token, which they"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: others could reach it"),
        (["--host", "0.0.0.0", "--token", "short"], "--token needs at least 8 characters"),
        (["--host", "192.0.2.1", "--token", "long enough"], "can't listen on 192.0.2.1"),
        (["--model", "no-such-model", "--port", "0"], "no-such-model"),
    ],
)
def test_what_it_refuses(options, expected):
    pytest.importorskip("gradio", reason="needs what the extra `app` brings")
    code, said = run(*options)
    said = said.removeprefix("loading no-such-model ...\n")
    assert code == 2 and said.startswith("error: ") and expected in said
    assert len(said.splitlines()) == 1


def test_a_port_that_is_taken():
    pytest.importorskip("gradio", reason="needs what the extra `app` brings")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run("--port", port) == (
            2,
            f"error: can't listen on 127.0.0.1:{port}: Address already in use",
        )


def test_it_serves_what_its_options_say(monkeypatch, tmp_path):
    pytest.importorskip("gradio", reason="needs what the extra `app` brings")
    from aigveval.app import serve
    from aigveval.inference import assessor

    seen = {}
    monkeypatch.setattr(
        assessor, "load", lambda model, **options: Assessor(TextEngine(), name=model)
    )
    monkeypatch.setattr(serve, "serve", lambda app, bound: seen.update(app=app, bound=bound))
    options = ["--port", "0", "--max-megabytes", "3", "--max-seconds", "9", "--root", str(tmp_path)]
    done = CliRunner().invoke(app, ["app", *options])
    assert done.exit_code == 0
    assert done.stderr.startswith("loading lite ...\n")
    assert re.fullmatch(
        r"aigveval is at http://127\.0\.0\.1:\d+; Ctrl-C stops it", done.stdout.splitlines()[0]
    )
    guard = seen["app"]
    assert (guard.limits.size_bytes, guard.limits.seconds) == (3_000_000, 9.0)
    assert (guard.token, guard.own_machine) == (None, True)
    assert not guard.scratch.path.exists()
    done = CliRunner().invoke(
        app, ["app", "--port", "0", "--host", "0.0.0.0"], env={"AIGVEVAL_TOKEN": "a long one"}
    )
    assert done.exit_code == 0
    assert (seen["app"].token, seen["app"].own_machine) == (b"a long one", False)
    if socket.has_ipv6:
        done = CliRunner().invoke(app, ["app", "--port", "0", "--host", "::1"])
        assert done.stdout.startswith("aigveval is at http://[::1]:") or "listen" in done.stderr
    monkeypatch.setattr(assessor, "load", lambda *_, **__: pytest.fail("loaded in vain"))
    code, said = run("--port", "0", "--root", str(tmp_path / "none"))
    assert (code, said) == (2, f"error: {tmp_path / 'none'}: not a folder, --root needs one")


def test_the_space_runs_as_it_is(monkeypatch):
    pytest.importorskip("gradio", reason="needs what the extra `app` brings")
    from starlette.testclient import TestClient

    import aigveval
    from aigveval.app import serve

    def ask(app, bound):
        client = TestClient(app, base_url="http://some.space")
        assert client.get("/api/health").json() == {"status": "ok", "waiting": 0}
        answer = client.post("/api/score", files={"video": ("a.mp4", b"3.5")})
        assert answer.json()["overall"]["score"] == 3.5
        assert "aigveval" in client.get("/").text
        seen.append(app.own_machine)

    seen = []
    monkeypatch.setattr(
        aigveval, "load", lambda name: Assessor(TextEngine(), name=name), raising=False
    )
    monkeypatch.setattr(serve, "serve", ask)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "0")
    monkeypatch.delenv("AIGVEVAL_TOKEN", raising=False)
    runpy.run_path(str(SPACE / "app.py"))
    monkeypatch.setenv("AIGVEVAL_TOKEN", "")  # a secret that was emptied
    runpy.run_path(str(SPACE / "app.py"))
    assert seen == [False, False]


def test_the_space_says_what_it_is():
    head = (SPACE / "README.md").read_text("utf-8").split("---")[1]
    fields = dict(line.split(": ", 1) for line in head.strip().splitlines())
    assert fields["sdk"] == "gradio" and (SPACE / fields["app_file"]).is_file()
    needs = (SPACE / "requirements.txt").read_text("utf-8").splitlines()
    assert [line for line in needs if not line.startswith("#")] == ["aigveval[app]"]


def test_the_container_s_steps():
    """Nobody builds it here: what it copies is there, and its commands are ours."""
    text = (SPACE / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line and line[0] not in "# "]
    names = [name for name, _ in steps]
    assert names[0] == "FROM" and names[-1] == "CMD"
    assert set(names) <= set(
        "FROM ARG ENV RUN WORKDIR COPY USER VOLUME EXPOSE HEALTHCHECK CMD".split()
    )
    for name, rest in steps:
        if name == "COPY":
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            assert all((SPACE.parents[1] / source).exists() for source in sources), rest
    users = [rest for name, rest in steps if name == "USER"]
    assert users == ["app"]  # who runs it from there on
    group = typer.main.get_command(app)
    (score,) = re.findall(r"aigveval (score .*?);", text)
    commands = [shlex.split(score.replace("$WEIGHTS", "lite")), json.loads(steps[-1][1])[1:]]
    for words in commands:
        context = group.make_context("aigveval", list(words))
        name, command, rest = group.resolve_command(context, list(words))
        command.make_context(name, rest, parent=context)
    assert commands[1][:3] == ["app", "--host", "0.0.0.0"]
