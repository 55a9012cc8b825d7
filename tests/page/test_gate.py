"""What the gate lets through, and what it says of the rest."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from efp_hf.page import gate

FUNCTIONS = {0: SimpleNamespace(api_name="segment"), 1: SimpleNamespace(api_name="measure")}


def app_of(status: int):
    """What stands behind the gate: it answers with this status and the body that reached it."""

    async def app(scope, receive, send):
        read = (await receive())["body"] if scope["method"] == "POST" else b"let through"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": read})

    return app


@pytest.fixture
def ask(tmp_path):
    """Status, text and headers of the answer to a request."""
    tested = gate.Gate(app_of(200), [tmp_path])

    def ask(path="/", body=None, query="", auth=None, cookie="", status=200):
        tested.app = app_of(status)
        blocks = SimpleNamespace(fns=FUNCTIONS)
        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"cookie", cookie.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "app": SimpleNamespace(auth=auth, tokens={"known": "anna"}, cookie_id="x", get_blocks=lambda: blocks),
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(tested(scope, receive, send))
        return sent[0]["status"], sent[1]["body"].decode(), dict(sent[0]["headers"])

    return ask


def test_page_and_api_are_let_through(ask, tmp_path):
    photo = tmp_path / "a" / "photo.jpg"
    for path in (
        "/",
        "/config",
        "/assets/index.js",
        "/gradio_api/info",
        "/gradio_api/heartbeat/a1",
        "/gradio_api/mcp/",
    ):
        assert ask(path)[:2] == (200, "let through"), path
    assert ask(f"/gradio_api/file={photo}")[0] == 200
    body = json.dumps({"data": [1, "a"], "session_hash": "a1"}).encode()
    assert ask("/gradio_api/call/segment", body)[:2] == (200, body.decode())


@pytest.mark.parametrize("path", ["/gradio_api/proxy=http://a", "/monitoring", "/gradio_api/deep_link", "/gradio_api/"])
def test_routes_of_gradio_that_the_page_does_not_need_are_closed(ask, path):
    assert ask(path)[0] == 404


def test_files_come_out_of_the_pages_folders_alone(ask, tmp_path):
    (tmp_path / "link.jpg").symlink_to("/etc/passwd")
    for name in ("/etc/passwd", f"{tmp_path}/../x.jpg", f"{tmp_path}/link.jpg", f"{tmp_path}/a\0.jpg", "x.jpg"):
        assert ask(f"/gradio_api/file={name}")[:2] == (403, '{"detail":"This is no file of the page."}'), name
    status, words, _ = ask("/gradio_api/file=https://127.0.0.1/x.jpg")
    assert status == 403 and "fetches nothing from other addresses" in words


def test_served_file_runs_no_script(ask, tmp_path):
    headers = ask(f"/gradio_api/file={tmp_path}/a.svg")[2]
    assert headers[b"x-content-type-options"] == b"nosniff" and b"sandbox" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"[" * 100_000, 413, "at most 10000 values"),
        (b'{"data": "' + b"x" * 2_000_000, 413, "at most 1000000 bytes. Send photos as uploads"),
        (b"[" * 5000 + b"]" * 5000, 400, "The request is no JSON"),
        (b"data", 400, "The request is no JSON"),
        (b"[1]", 422, "must be a JSON object"),
        (b'{"session_hash": "../a"}', 422, "`session_hash` must be at most 64 letters and digits"),
        (b'{"fn_index": 7}', 404, "no endpoint of this `fn_index`"),
        (b'{"fn_index": []}', 404, "no endpoint of this `fn_index`"),
    ],
)
def test_body_that_gradio_would_fail_at_is_refused_in_words(ask, body, status, words):
    answer = ask("/gradio_api/call/segment", body)
    assert answer[0] == status and words in answer[1]


def test_unknown_endpoint_is_named(ask):
    status, words, _ = ask("/gradio_api/call/nothing", b"{}")
    assert status == 404 and "There is no endpoint /nothing" in words


def test_bodies_in_memory_are_bounded_and_given_back(ask, monkeypatch):
    monkeypatch.setattr(gate, "MAX_HELD_BYTES", 100)
    for _ in range(5):
        assert ask("/gradio_api/call/segment", b'{"data": []}')[0] == 200
    assert ask("/gradio_api/call/segment", b'{"data": ["' + b"x" * 100 + b'"]}')[0] == 503
    assert ask("/gradio_api/call/segment", b'{"data": []}')[0] == 200


def test_session_is_not_kept_alive_without_the_password(ask):
    assert ask("/gradio_api/heartbeat/a", auth={"anna": "x"})[0] == 401
    assert ask("/gradio_api/heartbeat/a", auth={"anna": "x"}, cookie="access-token-x=wrong")[0] == 401
    assert ask("/gradio_api/heartbeat/a", auth={"anna": "x"}, cookie="access-token-x=known")[0] == 200


def test_wrong_passwords_are_stopped_for_a_minute(ask, monkeypatch):
    minutes = iter([0] * 12 + [1])
    monkeypatch.setattr(gate, "time", SimpleNamespace(monotonic=lambda: 60 * next(minutes)))
    statuses = [ask("/login", b"password=x", status=400)[0] for _ in range(12)]
    assert statuses == [400] * 10 + [429] * 2
    assert ask("/login", b"password=x")[0] == 200
