"""The HTTP API over sockets: rows, limits, rubbish, and who may ask."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from aigveval.app.limits import MEGABYTE, Limits
from aigveval.inference.assessor import Assessor
from aigveval.versions import __version__

from .engines import PageEngine
from .server import running, until, uploads_in
from .test_files import HOSTILE, root  # noqa: F401
from .test_service import HeldEngine
from tests.aigveval.engines import TextEngine

httpx = pytest.importorskip("httpx", reason="needs what the extra `app` brings")

LIMITS = Limits(size_bytes=20 * MEGABYTE, idle_seconds=1.0)


@pytest.fixture(scope="module")
def engine():
    return TextEngine()


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """The root of the server, beside which a secret lies."""
    folder = tmp_path_factory.mktemp("top") / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.mp4").write_text("3.25")
    (folder.parent / "secret.mp4").write_text("2")
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "folder-link").symlink_to(folder.parent)
    return folder


@pytest.fixture(scope="module")
def server(engine, top):
    with running(Assessor(engine, name="text"), limits=LIMITS, root=top) as found:
        yield found


@pytest.fixture
def client(server):
    address, folder = server
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made
    assert until(lambda: uploads_in(folder) == [])


def ask(client, text="3.5", name="a.mp4", **fields):
    files = {"video": (name, text if isinstance(text, bytes) else text.encode())}
    return client.post("/api/score", files=files, data=fields)


def connect(server):
    host, port = server[0].removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def said(connection):
    """Status line and body of an answer."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


HEAD = (
    "POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x"
)
PART = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_an_upload_gets_the_row_of_a_results_file(client, tmp_path):
    answer = ask(client, "3.5", "a dog's clip.mp4", prompt="ein Hund läuft")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    path = tmp_path / "a.mp4"
    path.write_text("3.5")
    (row,) = Assessor(TextEngine(), name="text").score_many([(path, "ein Hund läuft")])
    expected = row.to_dict() | {"video": "a dog's clip.mp4", "seconds": answer.json()["seconds"]}
    assert answer.text == json.dumps(expected, ensure_ascii=False)


def test_a_path_of_the_root(client):
    answer = client.post("/api/score", json={"path": "a.mp4", "prompt": None})
    row = answer.json()
    assert (answer.status_code, row["video"], row["prompt"]) == (200, "a.mp4", None)
    assert (row["overall"]["score"], row["semantic"]) == (3.25, None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_a_path_that_is_not_utf_8(client, top):
    path = os.fsencode(top) + b"/b\xff.mp4"
    Path(os.fsdecode(path)).write_text("3")
    asked = {"content": json.dumps({"path": "b\udcff.mp4"})}
    answer = client.post("/api/score", headers={"content-type": "application/json"}, **asked)
    assert (answer.status_code, answer.json()["video"]) == (200, "b\\udcff.mp4")


@pytest.mark.parametrize("name", [*HOSTILE, "http://example.com/a.mp4", "file:///etc/passwd"])
def test_nothing_else_is_read(client, engine, name):
    before = len(engine.prompts)
    answer = client.post("/api/score", json={"path": name})
    assert answer.status_code in (403, 404) and list(answer.json()) == ["error"]
    assert len(engine.prompts) == before


def test_a_bad_clip_is_a_row_with_its_error(client):
    answer = ask(client, "unreadable")
    assert (answer.status_code, answer.json()["error"]) == (422, "not a video")
    assert answer.json()["overall"] is None
    fault = ask(client, "bug")
    assert fault.status_code == 500 and "something other than the video" in fault.json()["error"]
    assert ask(client).status_code == 200


@pytest.mark.parametrize("name", ["../../x.mp4", "<img src=x onerror=alert(1)>.mp4"])
def test_names_from_outside_are_text(client, name):
    row = ask(client, name=name, prompt="<script>alert(1)</script>").json()
    assert row["video"] == name.rpartition("/")[2]
    assert row["prompt"] == "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": b"{}"}, "send a form with `video`, or JSON with `path`"),
        ({"json": []}, 'the body must be like {"path": "clip.mp4", "prompt": "a dog runs"}'),
        ({"json": {"path": 3}}, "`path` must be the name of a file"),
        ({"json": {"path": "a.mp4", "prompt": 3}}, "`prompt` must be text or null, and "),
        ({"json": {"path": "a.mp4", "promt": "x"}}, "unknown: promt"),
        ({"json": {"path": "a.mp4", "explain": True}}, "the model text was not trained to"),
        ({"files": {"film": b"3"}}, "unknown or given twice: film"),
        ({"files": [("video", b"3"), ("video", b"3")]}, "one video a request"),
        ({"data": {"video": "3"}, "files": {"prompt": (None, "x")}}, "`video` must be a file"),
        ({"files": {"prompt": (None, b"x")}}, "the form needs a file called `video`"),
        ({"files": {"video": b"3"}, "data": {"explain": "maybe"}}, "`explain` must be true or"),
        ({"files": {"video": b"3"}, "data": {"prompt": "x" * 50_000}}, "a text of more than"),
        ({"files": {"video": b"3"}, "data": {"prompt": "x" * 10_001}}, "the prompt has more than"),
        ({"json": {"path": "x" * 70_000}}, "more than 64000 bytes of JSON"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_a_line(client, fields, expected):
    answer = client.post("/api/score", **fields)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"].startswith(expected)


def test_health_version_and_openapi(client):
    assert client.get("/api/health").json() == {"status": "ok", "waiting": 0}
    version = client.get("/api/version").json()
    assert (version["aigveval"], version["model"]) == (__version__, "text")
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/score", "/api/health", "/api/version"} <= set(paths)
    body = paths["/api/score"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}


def test_32_uploads_at_once_get_their_own_rows(client):
    def upload(number):
        answer = ask(client, str(1 + number / 100), f"{number}.mp4", prompt=f"prompt {number}")
        row = answer.json()
        return row["video"], row["prompt"], row["overall"]["score"]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(upload, range(96)))
    assert found == [(f"{n}.mp4", f"prompt {n}", 1 + n / 100) for n in range(96)]


def test_a_file_that_says_it_is_too_large_is_refused_before_it_comes(server, client):
    with connect(server) as connection:
        connection.sendall(f"{HEAD}\r\nContent-Length: {2 * 10**9}\r\n\r\n".encode() + PART)
        status, body = said(connection)
    assert status == 413
    assert json.loads(body)["error"] == "the request is larger than 21 MB, the limit here"


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_file_that_turns_out_too_large_ends_at_the_limit_in_little_memory(server, client):
    piece = chunk(b"\0" * 65536)
    before, most, sent = resident_bytes(), 0, 0
    with connect(server) as connection:
        connection.sendall(f"{HEAD}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        connection.sendall(chunk(PART))
        try:
            while sent < 2 * 10**9:
                connection.sendall(piece)
                sent += 65536
                if sent % 2**20 == 0:
                    most = max(most, resident_bytes())
                    assert sum(path.stat().st_size for path in uploads_in(server[1])) <= 20e6
        except OSError:  # it hung up
            pass
    assert 20e6 < sent < 60e6  # what lies in the sockets' buffers comes on top
    assert most - before < 15e6
    assert ask(client).status_code == 200


def test_a_client_that_hangs_up_leaves_nothing(server, client):
    for ending in (b"", PART, PART + b"3.5"):
        with connect(server) as connection:
            connection.sendall(f"{HEAD}\r\nContent-Length: 1000000\r\n\r\n".encode() + ending)
            if ending:
                assert until(lambda: uploads_in(server[1]))
        assert until(lambda: uploads_in(server[1]) == [])


def test_a_client_that_sends_nothing_more_is_told_so(server, client):
    with connect(server) as connection:
        connection.sendall(f"{HEAD}\r\nContent-Length: 1000\r\n\r\n".encode() + PART + b"3")
        start = time.monotonic()
        status, body = said(connection)
    assert status == 408 and time.monotonic() - start < 5
    assert json.loads(body)["error"] == "nothing came for 1 seconds, the limit here"


def test_who_hangs_up_while_waiting_takes_no_turn(tmp_path):
    engine = HeldEngine()
    with (
        running(Assessor(engine, name="text")) as server,
        httpx.Client(base_url=server[0], timeout=20) as client,
    ):
        first = threading.Thread(target=ask, args=(client, "1"))
        first.start()
        assert engine.at_work.wait(10)
        with connect(server) as connection:
            body = PART + b"2\r\n--x--\r\n"
            connection.sendall(f"{HEAD}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert until(lambda: client.get("/api/health").json()["waiting"] == 1)
        assert until(lambda: len(uploads_in(server[1])) == 1)
        engine.go.set()
        first.join(10)
        assert ask(client, "3").json()["overall"]["score"] == 3
    assert [score for batch in engine.batches for score in batch] == [1, 3]
    assert not server[1].exists()


def test_rubbish_gets_an_answer_and_the_server_lives_on(server, client):
    dice = random.Random(0)
    before = resident_bytes() if Path("/proc/self/statm").exists() else 0
    for number in range(300):
        rubbish = dice.randbytes(dice.randrange(1, 2000))
        heads = (
            rubbish,
            b"GET /" + rubbish.hex().encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"{HEAD}\r\nContent-Length: {len(rubbish)}\r\n\r\n".encode() + rubbish,
            f"{HEAD}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + rubbish,
            b"POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(rubbish) + rubbish,
        )
        with connect(server) as connection:
            connection.sendall(heads[number % len(heads)])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(200)
            assert not answer or int(answer.split()[1]) in range(400, 500), answer
    assert ask(client).status_code == 200
    if before:
        assert resident_bytes() - before < 30e6


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:80"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"host": "localhost:1"}, 200),
        ({"host": "127.0.0.2:1"}, 200),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, 200),
        ({}, 200),
    ],
)
def test_another_site_in_the_same_browser_is_refused(client, headers, status):
    assert client.get("/api/version", headers=headers).status_code == status


def test_without_the_token_nothing_is_served(tmp_path):
    token = "a long secret ü"
    with running(Assessor(TextEngine(), name="text"), token=token, own_machine=False) as server:
        with httpx.Client(base_url=server[0], timeout=20) as client:
            assert client.get("/api/health").json()["status"] == "ok"
            for path in ("/api/version", "/", "/docs", "/openapi.json", "/config", "/clip/x"):
                assert client.get(path).status_code == 401, path
            assert "needs the token" in client.get("/", headers={"accept": "text/html"}).text
            wrong = {"authorization": b"Bearer a long secret u"}
            assert client.get("/api/version", headers=wrong).status_code == 401
            assert client.get("/?token=wrong").status_code == 401
            assert ask(client).status_code == 401
            right = {"authorization": f"Bearer {token}".encode()}
            assert client.get("/api/version", headers=right).status_code == 200
            answer = client.get("/", params={"token": token, "x": "1"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/?x=1")
            assert "httponly" in answer.headers["set-cookie"].lower()
            assert token not in answer.headers["set-cookie"]
            assert client.get("/").status_code == 200  # with the cookie
            assert ask(client).status_code == 200
        with connect(server) as connection:  # not to another host
            query = quote(token)
            line = f"GET //evil.example/?token={query} HTTP/1.1\r\nHost: x\r\n"
            connection.sendall(f"{line}Connection: close\r\n\r\n".encode())
            assert b"\r\nlocation: /evil.example/\r\n" in connection.recv(65536)


def joined(client, config, event, path, session, encoding="utf-8"):
    """The status of a click on the page with a file that its browser names."""
    kinds = {part["id"]: part["type"] for part in config["components"]}
    several = {part["id"]: part["props"].get("file_count") for part in config["components"]}
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    given = {"file": file, "dropdown": [], "textbox": "", "checkbox": False}
    data = [
        [file] if several[number] == "multiple" else given.get(kinds[number])
        for number in event["inputs"]
    ]
    body = {"data": data, "fn_index": event["id"], "session_hash": session}
    sent = json.dumps(body).encode(encoding)
    kind = {"content-type": "application/json"}
    return client.post("/gradio_api/queue/join", content=sent, headers=kind)


def test_the_page_reads_no_files_but_uploads(server, client, top):
    """Whoever speaks to Gradio's own routes gets no further."""
    secret = top.parent / "secret.mp4"
    places = ("/etc/passwd", str(secret), f"{server[1]}/page/../lock", "x\0", "")
    for path in places[:3]:
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    config = client.get("/config").json()
    kinds = {part["id"]: part["type"] for part in config["components"]}
    events = [
        event
        for event in config["dependencies"]
        if "file" in [kinds[number] for number in event["inputs"]]
    ]
    assert len(events) == 4  # score, compare, batch, open results
    for event in events:
        for path in (*places, "http://example.com/a.mp4", "https://192.0.2.1/a.mp4"):
            answer = joined(client, config, event, path, "s")
            assert answer.status_code == 403, path
            assert answer.json() == {"error": "only uploads of this page can be named here"}
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        answer = joined(client, config, events[0], "http://192.0.2.1/a.mp4", "s", encoding)
        assert answer.status_code == 403, encoding
    uploaded = client.post("/gradio_api/upload", files={"files": ("a.mp4", b"3")}).json()[0]
    assert joined(client, config, events[0], uploaded, "s").status_code == 200


def test_what_is_uploaded_to_the_page_is_held_to_the_limits(server, client):
    large = {"files": ("a.mp4", b"x" * (LIMITS.size_bytes + 1))}
    assert client.post("/gradio_api/upload", files=large).status_code == 413
    sizes = [path.stat().st_size for path in (server[1] / "page").rglob("*") if path.is_file()]
    assert sum(sizes) < 5e6  # the examples


def test_a_server_that_is_stopped_leaves_nothing(tmp_path):
    code = (
        "from aigveval.app.serve import application, listen, serve\n"
        "from aigveval.inference.assessor import Assessor\n"
        "class Engine: explains = supports_contributions = False\n"
        "bound = listen('127.0.0.1', 0)\n"
        f"with application(Assessor(Engine(), name='x'), folder={str(tmp_path)!r}) as app:\n"
        "    bound.listen(); print(bound.getsockname()[1], flush=True)\n"
        "    serve(app, bound)\n"
        "print('stopped')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    assert httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=20).status_code == 200
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{HEAD}\r\nContent-Length: 1000000\r\n\r\n".encode() + PART + b"3")
        assert until(lambda: any(uploads_in(path) for path in tmp_path.iterdir()))
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    assert (rest.strip(), process.returncode) == ("stopped", 0)
    assert list(tmp_path.iterdir()) == []


def test_the_examples_of_the_page_about_it_run(tmp_path, capsys):
    """Against a server in place of the one at port 7860."""
    place = Path(__file__).parents[2]
    text = (place / "docs" / "app.md").read_text("utf-8")
    curls = re.findall(r"^curl .*$", text, re.MULTILINE)
    (python,) = re.findall(r"^```python\n(import json\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(curls) == 2
    with running(Assessor(PageEngine(), name="page"), root=place / "examples/videos") as server:
        for command in curls if shutil.which("curl") else []:
            words = shlex.split(command.replace("http://127.0.0.1:7860", server[0]))
            done = subprocess.run([*words, "--silent"], cwd=place, capture_output=True, text=True)
            row = json.loads(done.stdout)
            assert row["video"] == "scene_freeze.mp4" and row["overall"]["score"] == 3.0
            assert ("explanation" in row) == ('"explain": true' in command)
        exec(python.replace("http://127.0.0.1:7860", server[0]), {})
    assert capsys.readouterr().out == "3.0 3.0 5.0\n"
