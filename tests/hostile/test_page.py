"""
The page and its API under attack on the loopback address, in a network without routes where `unshare` can make one.

    pytest -m slow tests/hostile/test_page.py --record results/hostile.csv
"""

import asyncio
import hashlib
import json
import os
import socket
import struct
import sys
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from conftest import REPOSITORY
from hostile.page_attacks import (
    HOSTILE_NAMES,
    HOSTILE_VALUES,
    as_file,
    hostile_images,
    hostile_paths,
    hostile_zips,
    png,
)
from hostile.page_server import PATIENCE_SECONDS, PageServer, can_be_alone, network_of
from huggingface_hub.constants import HF_TOKEN_PATH

from efp_hf.data.synthetic import draw_lesion

pytestmark = pytest.mark.slow

API = "/gradio_api"
META = {"_type": "gradio.FileData"}
PASSWORD = {"username": "anna", "password": "se:cret"}
MAX_GROWTH_MB = 60  # of the server's memory by one attack
ENDPOINTS = {  # → what is sent where nothing is wrong; "photo" stands for an uploaded one
    "segment": ["photo", 0.5, False],
    "measure": ["photo", 0, 0.5, False],
    "trust": ["photo", 0.5, False],
    "compare": ["photo", "photo", 0.5, False],
    "look_inside": ["photo"],
    "segment_many": [["photo"], 0.5, False],
}


class Trials:
    """What was tried, and what broke."""

    def __init__(self):
        self.tried, self.broke = 0, []

    def __call__(self, name: str, held: bool, seen: object = "") -> None:
        self.tried += 1
        if not held:
            self.broke.append(f"{name[:100]}: {str(seen)[:200]}")


@pytest.fixture
def trials(request, record_counts, attacked):
    """Counts the trials of a test, asserts that all held, and that the server still works and has not grown."""
    trials, before = Trials(), attacked.memory()
    yield trials
    grown = attacked.memory() - before
    part = f"page: {request.node.name.removeprefix('test_').replace('_', ' ')}"
    record_counts(part, trials.tried, trials.tried - len(trials.broke), memory_grew_by_MB=round(grown))
    assert not trials.broke, f"{len(trials.broke)} of {trials.tried} broke:\n" + "\n".join(trials.broke[:40])
    assert trials.tried
    assert grown < MAX_GROWTH_MB
    assert segmented(attacked)


@pytest.fixture(scope="module")
def servers(tmp_path_factory, tiny_checkpoint):
    """One that anybody may use, one with a password; this process is in the network of the first."""
    with ExitStack() as stack:
        alone = can_be_alone()
        folder = tmp_path_factory.mktemp("attacked")
        attacked = PageServer(folder, "--mcp", "--checkpoint", str(tiny_checkpoint), alone=alone)
        stack.callback(attacked.stop)
        if alone:
            while os.readlink(f"/proc/{attacked.process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.05)
            stack.enter_context(network_of(attacked.process.pid))
        guarded = PageServer(
            tmp_path_factory.mktemp("guarded"),
            "--checkpoint",
            str(tiny_checkpoint),
            alone=False,  # it is in the same network already
            EFP_AUTH=":".join(PASSWORD.values()),
        )
        stack.callback(guarded.stop)
        for server in (attacked, guarded):
            server.wait()
            assert segmented(server) if server is attacked else True
        yield [attacked, guarded]


@pytest.fixture(scope="module")
def attacked(servers):
    return servers[0]


@pytest.fixture(scope="module")
def guarded(servers):
    return servers[1]


@pytest.fixture
def client(attacked):
    with httpx.Client(base_url=attacked.url, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def photo() -> bytes:
    return as_file(draw_lesion(3, 48, 64)[0], "JPEG")


@pytest.fixture
def uploaded(client, photo):
    """An uploaded photo as the endpoints take it."""
    return file_data(upload(client, "photo.jpg", photo).json()[0])


@pytest.fixture
def secret(attacked, photo) -> Path:
    """A good photo that lies on the server, but was not uploaded."""
    path = attacked.files / "secret.jpg"
    path.write_bytes(photo + b"secret")
    return path


def file_data(path: str) -> dict:
    return {"path": path, "meta": META}


def upload(client, name: str, content: bytes) -> httpx.Response:
    return client.post(f"{API}/upload", files=[("files", (name, content))])


def call(client, endpoint: str, data) -> tuple[int, str]:
    """Status and text of an endpoint's answer; `data` is JSON or text that stands for it."""
    body = data if isinstance(data, str | bytes) else json.dumps({"data": data})
    joined = client.post(f"{API}/call/{endpoint}", content=body, headers={"Content-Type": "application/json"})
    if joined.status_code != 200:
        return joined.status_code, joined.text
    answer = client.get(f"{API}/call/{endpoint}/{joined.json()['event_id']}")
    return answer.status_code, answer.text


def segmented(server) -> bool:
    """Whether an ordinary client gets an ordinary answer."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        path = upload(client, "good.jpg", as_file(draw_lesion(4, 40, 50)[0], "JPEG")).json()[0]
        return "event: complete" in call(client, "segment", [file_data(path), 0.5, False])[1]


def is_refused(answer: tuple[int, str]) -> bool:
    """Refused in words that a user understands: no stack trace, no folder of the server, and not an empty error."""
    status, text = answer
    if any(word in text for word in ("Traceback", "site-packages", "/files/uploads", 'File "', '"error": null')):
        return False
    return 400 <= status < 500 or status in (503, 507) or (status == 200 and "event: error" in text)


def is_answered(answer: tuple[int, str]) -> bool:
    return answer[0] == 200 and "event: complete" in answer[1]


def rows_of(answer: tuple[int, str]) -> list[dict]:
    """The rows of an answer of `segment_many`."""
    return json.loads(answer[1].split("data: ", 1)[1].splitlines()[0])[0]


# -- files and addresses


def test_paths_in_place_of_files(client, attacked, secret, uploaded, trials):
    (attacked.uploads / "link.jpg").symlink_to(secret)
    (attacked.uploads / "folder_link").symlink_to(secret.parent)
    content = secret.read_bytes()
    for path in hostile_paths(secret, attacked.uploads):
        for written in dict.fromkeys((path, quote(path, safe="/"), quote(path, safe=""), quote(quote(path, safe="")))):
            with httpx.Client(timeout=60) as raw:
                for route in ("file=", "file/", "proxy=", "stream/"):
                    try:
                        answer = raw.get(f"{attacked.url}{API}/{route}{written}")
                    except httpx.InvalidURL:
                        continue
                    held = 400 <= answer.status_code < 500 and content not in answer.content
                    trials(f"{route}{written}", held, f"{answer.status_code} {answer.content[:50]}")
        for data in (
            file_data(path),
            {**file_data(path), "is_stream": True},
            {**file_data(path), "url": f"{attacked.url}{API}/file={path}"},
            {**file_data(path), "orig_name": "photo.jpg", "mime_type": "image/jpeg", "size": 1},
        ):
            answer = call(client, "segment", [data, 0.5, False])
            trials(f"segment {path}", is_refused(answer), answer)
        answer = call(client, "compare", [uploaded, file_data(path), 0.5, False])
        trials(f"compare {path}", is_refused(answer), answer)
        answer = call(client, "segment_many", [[uploaded, file_data(path)], 0.5, False])
        trials(f"segment_many {path}", is_refused(answer) or rows_of(answer)[1]["error"], answer)
    for link in ("link.jpg", "folder_link"):
        (attacked.uploads / link).unlink()


def test_addresses_in_place_of_files(client, attacked, uploaded, trials):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        hosts = [
            f"127.0.0.1:{port}",
            f"localhost:{port}",
            f"0x7f000001:{port}",
            f"2130706433:{port}",
            f"127.1:{port}",
            f"[::ffff:127.0.0.1]:{port}",
            f"[::1]:{port}",
            f"anna:secret@127.0.0.1:{port}",
            f"127.0.0.1:{attacked.port}{API}/file=/etc/passwd#",
            "169.254.169.254",
            "metadata.google.internal",
            "192.0.2.1",
            "hub.invalid",
        ]
        addresses = [f"{scheme}://{host}/photo.jpg" for host in hosts for scheme in ("http", "https", "HTTP")]
        addresses += [f"{scheme}://127.0.0.1:{port}/photo.jpg" for scheme in ("ftp", "gopher", "ws", "hf", "s3", "jar")]
        addresses += [f"http:/127.0.0.1:{port}/x", f"//127.0.0.1:{port}/x", f" http://127.0.0.1:{port}/x"]
        addresses += [f"http://127.0.0.1:{port}{API}/file=/etc/passwd"]
        for address in addresses:
            for route in ("file=", "file/", "proxy="):
                answer = client.get(f"{attacked.url}{API}/{route}{address}")
                trials(f"{route}{address}", 400 <= answer.status_code < 500, answer.status_code)
            for endpoint, arguments in (
                ("segment", [file_data(address), 0.5, False]),
                ("segment", [{"path": None, "url": address, "meta": META}, 0.5, False]),
                ("segment", [{**file_data(address), "is_stream": True}, 0.5, False]),
                ("segment_many", [[file_data(address)], 0.5, False]),
            ):
                answer = call(client, endpoint, arguments)
                trials(f"{endpoint} {address}", is_refused(answer), answer)
        # an address is allowed that names an uploaded file, but it is not asked either
        own = {**uploaded, "path": f"http://127.0.0.1:{port}{API}/file={uploaded['path']}"}
        trials("own file by another host", is_answered(call(client, "segment", [own, 0.5, False])))
        for address, answer in asyncio.run(ask_tools(attacked.url, [*addresses[:6], str(REPOSITORY / "app.py")])):
            trials(f"tool {address}", answer.isError and "Traceback" not in str(answer.content), answer)
        with pytest.raises(BlockingIOError):
            listening.accept()


async def ask_tools(url: str, images: list[str]) -> list[tuple]:
    """What the MCP server's tool says of each image."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with streamablehttp_client(f"{url}{API}/mcp/") as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            name = next(tool.name for tool in (await session.list_tools()).tools if tool.name.endswith("trust"))
            return [(image, await session.call_tool(name, {"image": image})) for image in images]


def test_routes_that_the_page_does_not_need(client, trials):
    closed = [
        "token",
        "app",
        "deep_link?session_hash=a",
        "component_server",
        "process_recording",
        "vibe-code",
        "vibe-edit",
    ]
    closed += [
        "undo-vibe-edit",
        "vibe-starter-queries",
        "dev/reload",
        "custom_component/image/client/component/style.css",
    ]
    closed += ["runs", "run-history/buckets", "run-history/records", "profiling/traces", "stream/a/b/1/playlist.m3u8"]
    closed += [
        "stream/a/b/1/playlist-file",
        "monitoring",
        "../monitoring",
        "..%2f..%2fetc/passwd",
        "heartbeat/",
        "nothing",
    ]
    routes = [f"{API}/{route}" for route in closed]
    routes += [
        "/monitoring",
        "/monitoring/summary",
        "/monitoring/x",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/pwa_icon",
        "/.git/config",
    ]
    routes += [
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2froutes.py",
        "/svelte/%2e%2e/%2e%2e/routes.py",
        "//etc/passwd",
    ]
    for route in routes:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "NONSENSE"):
            answer = client.request(method, route, json={} if method in ("POST", "PUT", "PATCH") else None)
            trials(f"{method} {route}", 400 <= answer.status_code < 500, answer.status_code)


# -- uploads


@pytest.mark.parametrize("content", ["photo", "script"])
def test_hostile_names(client, attacked, photo, trials, content):
    sent = photo if content == "photo" else b"<html><script>alert(1)</script></html>"
    for name in HOSTILE_NAMES:
        answer = raw_upload(client, name, sent)
        if answer.status_code != 200:
            trials(f"upload {name!r}", is_refused((answer.status_code, answer.text)), answer.text)
            continue
        path = Path(answer.json()[0])
        stays = path.parent.parent == attacked.uploads and path.is_file() and path.read_bytes() == sent
        trials(f"upload {name!r}", stays, path)
        served = client.get(f"{API}/file={quote(str(path))}")
        kind, shown = served.headers["content-type"], served.headers.get("content-disposition", "")
        is_harmless = (
            kind.split(";")[0] in ("image/jpeg", "application/json", "application/octet-stream")
            and (not kind.startswith("application/octet-stream") or shown.startswith("attachment"))
            and served.headers["x-content-type-options"] == "nosniff"
            and "sandbox" in served.headers["content-security-policy"]
            and "x-evil" not in served.headers
        )
        trials(f"served {name!r}", served.status_code == 200 and is_harmless, served.headers)
        answer = call(client, "segment", [file_data(str(path)), 0.5, False])
        trials(f"segment {name!r}", is_answered(answer) if content == "photo" else is_refused(answer), answer)
        answer = call(client, "segment_many", [[file_data(str(path))], 0.5, False])
        trials(
            f"segment_many {name!r}",
            (is_answered(answer) or is_refused(answer)) and "Traceback" not in answer[1],
            answer,
        )
    trials("nothing escaped", not list(attacked.files.glob("escaped*")))
    trials("nothing stays half-uploaded", not attacked.unfinished_uploads())


def raw_upload(client, name: str, content: bytes) -> httpx.Response:
    """An upload whose file name is sent as it is."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode(errors="surrogateescape")
    body = head + b'"\r\nContent-Type: image/jpeg\r\n\r\n' + content + b"\r\n--x--\r\n"
    return client.post(f"{API}/upload", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})


def test_files_that_are_no_photo(client, attacked, photo, trials):
    for name, content in hostile_images(photo).items():
        for ending in ("jpg", "png", "tif"):
            path = upload(client, f"{name}.{ending}", content).json()[0]
            answer = call(client, "segment", [file_data(path), 0.5, False])
            trials(f"segment {name}.{ending}", is_refused(answer), answer)
            answer = call(client, "segment_many", [[file_data(path)], 0.5, False])
            trials(f"segment_many {name}.{ending}", is_answered(answer) or is_refused(answer), answer)
            served = client.get(f"{API}/file={quote(path)}")
            is_image = served.headers["content-type"] in ("image/jpeg", "image/png", "application/octet-stream")
            trials(f"served {name}.{ending}", is_image and served.headers["x-content-type-options"] == "nosniff")
    path = upload(client, "rows.png", png(10, 10, rows=bytes(30_000_000))).json()[0]
    trials("PNG with too many rows", is_answered(call(client, "segment", [file_data(path), 0.5, False])))
    # a photo that is a page, too, is a photo here
    for tail in (b"<script>alert(1)</script>", b"PK\x05\x06" + bytes(18), b"%PDF-1.4", b"<?php system('id'); ?>"):
        path = upload(client, "photo.jpg", photo + tail).json()[0]
        trials(f"photo and {tail[:9]}", is_answered(call(client, "segment", [file_data(path), 0.5, False])))


def endless(head: bytes, block: bytes = bytes(1 << 20), limit: int = 700):
    yield head
    for _ in range(limit):
        yield block


def test_endless_and_false_bodies(client, attacked, trials):
    file = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    text = {"Content-Type": "application/json"}
    bodies = {
        "endless file": ("upload", form, endless(file)),
        "endless field": ("upload", form, endless(field)),
        "endless field behind a file": ("upload", form, endless(file + b"x\r\n" + field)),
        "endless head of a part": ("upload", form, endless(b"--x\r\n" + b"A: ", b"x" * 100_000)),
        "endless heads of a part": ("upload", form, endless(b"--x\r\n", b"A: b\r\n" * 10_000)),
        "endless preamble": ("upload", form, endless(b"", b"y" * 100_000, 20)),
        "endless files": ("upload", form, endless(b"", (file + b"x\r\n") * 100)),
        "field": ("upload", form, [field + b"1\r\n--x--\r\n"]),
        "no end": ("upload", form, [file + b"1"]),
        "no boundary": ("upload", {"Content-Type": "multipart/form-data"}, [file]),
        "long boundary": ("upload", {"Content-Type": "multipart/form-data; boundary=" + "y" * 5000}, [file]),
        "JSON as an upload": ("upload", text, [b"{}"]),
        "nothing as an upload": ("upload", {}, []),
        "base64 as an upload": (
            "upload",
            form,
            [file.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")],
        ),
        **{
            f"endless JSON to {route}": (route, text, endless(b'{"data": ["', b"x" * 100_000))
            for route in ("call/segment", "queue/join", "run/predict", "cancel", "reset", "mcp/")
        },
        "endless login": (
            "../login",
            {"Content-Type": "application/x-www-form-urlencoded"},
            endless(b"username=", b"x" * 10_000),
        ),
    }
    for name, (route, headers, body) in bodies.items():
        try:
            answer = client.post(
                f"{API}/{route}" if not route.startswith("..") else "/login", content=body, headers=headers
            )
            trials(
                name,
                is_refused((answer.status_code, answer.text)) or name == "no end",
                (answer.status_code, answer.text),
            )
        except httpx.TransportError:  # refused while it is still sent
            trials(name, True)
        trials(f"{name}: nothing stays", not attacked.unfinished_uploads(), attacked.unfinished_uploads())
    for length in ("10000000000000", "-1", "0", "abc", "1" * 30):
        with socket.create_connection(("127.0.0.1", attacked.port), timeout=20) as connection:
            connection.sendall(
                f"POST {API}/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                f"Content-Length: {length}\r\n\r\n".encode()
                + file
                + b"abc"
            )
            connection.shutdown(socket.SHUT_WR)
            received = connection.recv(1000)
            trials(f"Content-Length: {length}", not received or b" 4" in received[:15], received)
    time.sleep(0.5)
    trials("nothing stays in the end", not attacked.unfinished_uploads(), attacked.unfinished_uploads())


# -- zips


def test_zip_tricks(client, attacked, photo, secret, trials):
    for name, content in hostile_zips(photo, secret).items():
        path = upload(client, "photos.zip", content).json()[0]
        before = {file.parent for file in attacked.uploads.rglob("*") if file.is_file()}
        start = time.monotonic()
        answer = call(client, "segment_many", [[file_data(path)], 0.5, False])
        trials(name, is_answered(answer) or is_refused(answer), answer)
        trials(f"{name}: soon", time.monotonic() - start < 30, time.monotonic() - start)
        trials(f"{name}: no foreign pixel", "secret" not in answer[1].replace("secret2.jpg", ""))
        left = {path.parent for path in attacked.uploads.rglob("*") if path.is_file()} - {Path(path).parent} - before
        trials(
            f"{name}: only its answer stays",
            all([file.name for file in folder.iterdir()] == ["masks.zip"] for folder in left),
            left,
        )
        if is_answered(answer):
            results = json.loads(answer[1].split("data: ", 1)[1].splitlines()[0])
            with zipfile.ZipFile(results[1]["path"]) as masks:
                names = masks.namelist()
            trials(
                f"{name}: a flat zip of masks", all("/" not in member and ".." not in member for member in names), names
            )
    trials(
        "nothing escaped",
        not [path for path in attacked.files.rglob("*escaped*") if attacked.uploads not in path.parents],
    )
    trials(
        "nothing beside a link",
        not (secret.parent / "secret2.jpg").exists() and not Path("/tmp/escaped_absolute.jpg").exists(),
    )


# -- the API's arguments


def as_body(arguments: list[str]) -> str:
    """A request of arguments that are JSON already, or should be."""
    return f'{{"data": [{", ".join(arguments)}]}}'


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_wrong_arguments(client, uploaded, trials, endpoint):
    good = [
        json.dumps(uploaded if value == "photo" else [uploaded] if value == ["photo"] else value)
        for value in ENDPOINTS[endpoint]
    ]
    for index in range(len(good)):
        for value in HOSTILE_VALUES:
            body = as_body([*good[:index], value, *good[index + 1 :]])
            answer = call(client, endpoint, body)
            trials(f"{endpoint} {index} {value[:30]}", is_answered(answer) or is_refused(answer), answer)
    for body in ("[]", ", ".join(good[:-1]), "null", "{}", '"x"', "5"):
        body = body if body in ("null", "{}", '"x"', "5") else f"[{body.strip('[]')}]"
        answer = call(client, endpoint, f'{{"data": {body}}}')
        trials(f"{endpoint} {body[:30]}", is_refused(answer) or endpoint == "look_inside", answer)
    answer = call(client, endpoint, as_body(good * 30))
    trials(f"{endpoint} too many", is_answered(answer) or is_refused(answer), answer)


def test_wrong_thresholds_are_no_masks(client, uploaded, trials):
    """What would give a mask that nobody asked for."""
    for value in ("NaN", "Infinity", "-1", "2", "true", '"x"', '"NaN"', "[0.5]", "1" + "0" * 400):
        answer = call(client, "segment", as_body([json.dumps(uploaded), value, "false"]))
        trials(f"threshold {value[:20]}", is_refused(answer), answer)
    for value in ('"no"', "2", "[]", "{}", '"false"'):
        answer = call(client, "segment", as_body([json.dumps(uploaded), "0.5", value]))
        trials(f"largest_region {value}", is_refused(answer), answer)


def test_bodies_that_are_no_request(client, trials):
    bodies = {
        "deep lists": "[" * 100_000,
        "deep lists, closed": "[" * 5000 + "]" * 5000,
        "deep objects": '{"a":' * 4000 + "1" + "}" * 4000,
        "deep data": '{"data":' + "[" * 4500 + "]" * 4500 + "}",
        "many lists": '{"data": [' + "[]," * 200_000 + "[]]}",
        "many keys": "{" + ",".join(f'"{k}": 1' for k in range(40_000)) + "}",
        "long number": '{"data": [' + "9" * 500_000 + "]}",
        "no JSON": "data",
        "nothing": "",
        "not UTF-8": b'{"data": ["\xff\xfe"]}',
        "UTF-16": '{"data": []}'.encode("utf-16"),
        "list": "[1, 2]",
        "number": "5",
        "null": "null",
        "key twice": '{"data": [], "data": []}',
        "index of another kind": '{"data": [], "fn_index": "segment"}',
        "negative index": '{"data": [], "fn_index": -1}',
        "large index": '{"data": [], "fn_index": 99999999999999999999}',
        "list as an index": '{"data": [], "fn_index": []}',
        "session of another kind": '{"data": [], "session_hash": {"a": 1}}',
        "long session": json.dumps({"data": [], "session_hash": "x" * 100_000}),
        "session that is a path": '{"data": [], "session_hash": "../../etc"}',
        "event of another kind": '{"data": [], "event_id": [1]}',
        "prototype": '{"__proto__": {"data": []}, "constructor": 1}',
    }
    headers = {"Content-Type": "application/json"}
    for name, body in bodies.items():
        for route in (
            "call/segment",
            "call/v2/segment",
            "run/segment",
            "run/predict",
            "api/segment",
            "queue/join",
            "cancel",
            "reset",
            "mcp/",
        ):
            try:
                answer = client.post(f"{API}/{route}", content=body, headers=headers)
            except httpx.TransportError as error:
                trials(f"{route}: {name}", False, repr(error))
                continue
            seen = answer.status_code, answer.text
            has_words = is_refused(seen) or (answer.status_code < 400 and route in ("cancel", "reset"))
            if name in ("key twice", "index of another kind", "prototype") and answer.status_code == 200:
                has_words = True  # joined; its answer is an error
            trials(f"{route}: {name}", has_words or (answer.status_code == 500 and '"error"' in answer.text), seen)
    for name in (
        "nothing",
        "../segment",
        "segment%00",
        "segment/../measure",
        "__init__",
        "x" * 5000,
        "%ff",
        "lambda",
        "remember",
    ):
        answer = client.post(f"{API}/call/{name}", json={"data": []})
        trials(
            f"call/{name}",
            is_refused((answer.status_code, answer.text)) or answer.status_code == 200,
            answer.status_code,
        )


# -- passwords, and sessions of others


def test_passwords(guarded, uploaded, trials):
    with (
        httpx.Client(base_url=guarded.url, timeout=30) as stranger,
        httpx.Client(base_url=guarded.url, timeout=60) as anna,
    ):
        trials("right password", anna.post("/login", data=PASSWORD).status_code == 200)
        # the browser sends this one without TLS
        trials("right password opens", anna.get("/config").status_code == 200)
        kept = upload(anna, "private.jpg", as_file(draw_lesion(5, 40, 50)[0], "JPEG")).json()[0]
        trials("right password segments", is_answered(call(anna, "segment", [file_data(kept), 0.5, False])))
        for route in (
            "/config",
            f"{API}/info",
            f"{API}/openapi.json",
            f"{API}/file={quote(kept)}",
            f"{API}/upload_progress?upload_id=a",
            f"{API}/queue/data?session_hash=a",
            f"{API}/queue/status",
            f"{API}/heartbeat/a",
            f"{API}/call/segment/a",
            f"{API}/login_check",
        ):
            for cookies in (
                {},
                {"access-token": "x"},
                {"access-token-unsecure-": "None"},
                {"access-token-None": "anna"},
            ):
                header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
                answer = stranger.get(route, headers=header)
                trials(
                    f"GET {route} {cookies}",
                    answer.status_code == 401 and "Traceback" not in answer.text,
                    answer.status_code,
                )
        for route in (
            "upload",
            "queue/join",
            "run/predict",
            "run/segment",
            "api/segment",
            "call/segment",
            "call/v2/segment",
            "cancel",
            "reset",
        ):
            answer = stranger.post(
                f"{API}/{route}", json={"data": [], "session_hash": "a", "fn_index": 0, "event_id": "a"}
            )
            trials(f"POST {route}", answer.status_code == 401, answer.status_code)
        answer = upload(stranger, "stranger.jpg", b"x")
        trials(
            "upload of a stranger",
            answer.status_code == 401 and not list(guarded.uploads.rglob("stranger.jpg")),
            answer.status_code,
        )
        trials("no MCP server", stranger.post(f"{API}/mcp/", json={}).status_code in (401, 404, 405))
        page = stranger.get("/")
        told = [word for word in ("segment_upload", "Largest region", "efp-research") if word in page.text]
        trials("login page tells nothing", page.status_code == 200 and not told, told)
        words = [
            "",
            "secret",
            "se:cret ",
            "SE:CRET",
            "se",
            "anna:se:cret",
            "' or '1'='1",
            "\0",
            "x" * 5000,
            "é",
            "null",
            "true",
            "[]",
        ]
        tries = [{"username": "anna", "password": word} for word in words]
        tries += [
            {"username": name, "password": "se:cret"} for name in ("", "ANNA", "root", "anna\0", "*", "__class__")
        ]
        tries += [{"username": "anna", "password": f"{k:04d}"} for k in range(200)]
        statuses = []
        for data in tries:
            answer = stranger.post("/login", data=data)
            statuses.append(answer.status_code)
            is_out = answer.status_code in (400, 413, 422, 429) and "set-cookie" not in answer.headers
            trials(f"wrong password {data}"[:80], is_out, answer.status_code)
        trials("many tries are stopped", statuses.count(400) <= 25 and 429 in statuses, statuses.count(400))
        trials("anna is still in", is_answered(call(anna, "segment", [file_data(kept), 0.5, False])))
        anna.get("/logout", follow_redirects=False)
        trials("logged out", anna.get("/config").status_code == 401)


def test_files_of_another_session(client, attacked, photo, trials):
    config = client.get("/config").json()
    index = {function["api_name"]: function["id"] for function in config["dependencies"]}
    with httpx.Client(base_url=attacked.url, timeout=60) as anna:
        private = photo + b"private"
        kept = upload(anna, "anna.jpg", private).json()[0]
        anna.post(
            f"{API}/run/predict",
            json={"data": [file_data(kept)], "fn_index": index["remember"], "session_hash": "anna"},
        )
        digest = hashlib.sha256(private).hexdigest()
        guesses = [
            attacked.uploads / guess
            for guess in (digest, "*", "anna.jpg", "..", digest[:32], "0", "tmp", "deep_links", "anna")
        ]
        for guess in guesses:
            for path in (guess, guess / "anna.jpg", guess / "*.jpg", guess / "photo.jpg"):
                answer = client.get(f"{API}/file={quote(str(path))}")
                trials(f"file {path}", answer.status_code in (403, 404), answer.status_code)
                answer = call(client, "segment", [file_data(str(path)), 0.5, False])
                trials(f"segment {path}", is_refused(answer), answer)
        for route in ("queue/data?session_hash=anna", "call/segment/anna", "upload_progress?upload_id=anna"):
            answer = client.get(f"{API}/{route}")
            trials(route, "anna.jpg" not in answer.text)
        # another session says that the file is its own, and closes
        client.post(
            f"{API}/run/predict", json={"data": [file_data(kept)], "fn_index": index["remember"], "session_hash": "eve"}
        )
        with client.stream("GET", f"{API}/heartbeat/eve") as stream:
            next(stream.iter_raw())
        time.sleep(1)
        trials("the other session deletes nothing", Path(kept).exists())
        for state in ("segment_upload", "redraw", "update_tab", "writer", "write"):
            if state in index:
                body = {"data": [None] * 6, "fn_index": index[state], "session_hash": "eve"}
                answer = client.post(f"{API}/run/predict", json=body)
                trials(f"state by {state}", "anna.jpg" not in answer.text, answer.text)
        with anna.stream("GET", f"{API}/heartbeat/anna") as stream:
            next(stream.iter_raw())
        deadline = time.monotonic() + 10
        while Path(kept).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        trials("closed, it is deleted", not Path(kept).exists())
        trials("and not served", client.get(f"{API}/file={quote(kept)}").status_code == 403)


# -- many, slow and gone clients


def test_crowd_of_200(attacked, photo, trials):
    async def one(number: int, client: httpx.AsyncClient, start: asyncio.Event) -> tuple[int, str]:
        await start.wait()
        try:
            sent = await client.post(f"{API}/upload", files=[("files", (f"{number}.jpg", photo + bytes([number])))])
            data = {"data": [file_data(sent.json()[0]), 0.5, False]}
            joined = await client.post(f"{API}/call/segment", json=data)
            if joined.status_code != 200:
                return joined.status_code, joined.text
            answer = await client.get(f"{API}/call/segment/{joined.json()['event_id']}")
            return answer.status_code, answer.text
        except (httpx.HTTPError, ValueError, LookupError) as error:
            return 0, repr(error)

    async def crowd() -> list[tuple[int, str]]:
        # without keeping connections: one that the server ends just when it is used again is no refusal
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=attacked.url, timeout=120, limits=limits) as client:
            start = asyncio.Event()
            waiting = [asyncio.create_task(one(number, client, start)) for number in range(200)]
            await asyncio.sleep(0.1)
            start.set()
            return await asyncio.gather(*waiting)

    for turn in range(2):
        answers = asyncio.run(crowd())
        for number, answer in enumerate(answers):
            held = is_answered(answer) or (answer[0] == 503 and "Queue is full" in answer[1])
            trials(f"turn {turn}, client {number}", held, answer)
        trials(f"turn {turn}: many are answered", sum(map(is_answered, answers)) >= 20, sum(map(is_answered, answers)))
    time.sleep(1)
    threads = len(list(Path(f"/proc/{attacked.process.pid}/task").iterdir()))
    trials("few threads", threads < 120, threads)


def test_slow_clients(attacked, client, uploaded, trials):
    def opened(text: str, receive_buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", attacked.port))
        connection.sendall(text.encode())
        return connection

    body = "POST {}/{} HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nContent-Length: 1000\r\n\r\n{}"
    asset = next(part for part in client.get("/").text.split('"') if part.endswith(".js")).removeprefix(".")
    large = f"GET {asset if asset.startswith('/') else '/' + asset} HTTP/1.1\r\nHost: a\r\n\r\n"
    kinds = {
        "nothing": [opened("") for _ in range(100)],
        "half a head": [opened("GET / HTTP/1.1\r\nHost: a\r\n") for _ in range(100)],
        "half a second head": [opened("GET /theme.css HTTP/1.1\r\nHost: a\r\n\r\nGET /") for _ in range(50)],
        "half a body": [opened(body.format(API, "call/segment", "application/json", "{")) for _ in range(50)],
        "half an upload": [
            opened(
                body.format(
                    API,
                    "upload",
                    "multipart/form-data; boundary=x",
                    '--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\na',
                )
            )
            for _ in range(50)
        ],
        "reads nothing": [opened(large * 200, receive_buffer=1024) for _ in range(20)],
    }
    for number in range(5):
        start = time.monotonic()
        answer = call(client, "segment", [uploaded, 0.5, False])
        trials(
            f"others are served {number}",
            is_answered(answer) and time.monotonic() - start < 10,
            time.monotonic() - start,
        )
        for connection in kinds["half a head"][number::5]:  # a byte at a time does not help
            try:
                connection.sendall(b"X")
            except OSError:
                pass
    time.sleep(2 * PATIENCE_SECONDS + 2)
    for name, connections in kinds.items():
        for connection in connections:
            connection.settimeout(5)
            try:
                while connection.recv(1 << 16):
                    pass
                is_ended = True
            except TimeoutError:
                is_ended = False
            except OSError:
                is_ended = True
            trials(f"{name}: ended", is_ended)
            connection.close()
    trials("nothing stays half-uploaded", not attacked.unfinished_uploads(), attacked.unfinished_uploads())


def test_clients_that_go(attacked, client, photo, uploaded, trials):
    file = b'--x\r\nContent-Disposition: form-data; name="files"; filename="gone.jpg"\r\n\r\n'
    form = "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000000\r\n"
    requests = {
        "in the head": b"POST /gradio_api/upload HTTP/1.1\r\nHost",
        "in an upload": f"POST {API}/upload HTTP/1.1\r\nHost: a\r\n{form}\r\n".encode() + file + bytes(200_000),
        "in a tracked upload": f"POST {API}/upload?upload_id=gone HTTP/1.1\r\nHost: a\r\n{form}\r\n".encode()
        + file
        + bytes(200_000),
        "in JSON": f"POST {API}/call/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode(),
        "in an answer": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "in a heartbeat": f"GET {API}/heartbeat/gone HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        "in an event stream": f"GET {API}/queue/data?session_hash=gone HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        "no HTTP": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a WebSocket": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: eA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
        "two lengths": b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nabcde",
        "length and chunks": b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        "a false chunk": b"POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "a long head": b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 200_000,
        "a foreign host": b"GET / HTTP/1.1\r\nHost: evil.invalid\r\nX-Forwarded-Host: evil.invalid\r\n\r\n",
    }
    for name, sent in requests.items():
        for number in range(10):
            with socket.create_connection(("127.0.0.1", attacked.port), timeout=10) as connection:
                try:
                    connection.sendall(sent)
                    time.sleep(0.01 * number)
                    if number % 2:  # reset instead of a farewell
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass
            trials(f"{name} {number}", attacked.process.poll() is None)
        trials(f"{name}: others are served", is_answered(call(client, "segment", [uploaded, 0.5, False])))
    time.sleep(1)
    trials("nothing stays half-uploaded", not attacked.unfinished_uploads(), attacked.unfinished_uploads())


def test_event_streams(attacked, client, uploaded, trials):
    for name in ("unknown", "", "x" * 65, "a/b", "../x", "a%00b", "é", "a b", "__proto__", "*", "0"):
        for route in ("queue/data?session_hash=", "call/segment/", "call/v2/segment/", "upload_progress?upload_id="):
            answer = client.get(f"{API}/{route}{name}")
            said = (
                answer.status_code in (400, 403, 404, 405, 422)
                or '"unexpected_error"' in answer.text
                or "event: error" in answer.text
            )
            trials(f"{route}{name}", said and "Traceback" not in answer.text, (answer.status_code, answer.text))
    answer = client.get(f"{API}/queue/data")
    trials("no session", answer.status_code == 422, answer.status_code)
    # joined, and never read
    for number in range(150):
        joined = client.post(f"{API}/call/look_inside", json={"data": [uploaded]})
        trials(f"never read {number}", joined.status_code in (200, 503), joined.status_code)
        if number % 20 == 19:
            time.sleep(0.5)
    # an event that another tries to end, and that is read again for as long as the client likes
    readers = []
    for number in range(10):
        joined = client.post(f"{API}/call/segment", json={"data": [uploaded, 0.5, False]})
        while joined.status_code == 503:  # those of above are in the queue
            time.sleep(0.5)
            joined = client.post(f"{API}/call/segment", json={"data": [uploaded, 0.5, False]})
        event = joined.json()["event_id"]
        client.post(f"{API}/cancel", json={"session_hash": "eve", "fn_index": 0, "event_id": event[::-1]})
        answer = client.get(f"{API}/call/segment/{event}")
        trials(f"ended by another {number}", is_answered((answer.status_code, answer.text)), answer.text)
        for _ in range(10):
            readers.append(socket.create_connection(("127.0.0.1", attacked.port), timeout=10))
            readers[-1].sendall(f"GET {API}/call/segment/{event} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    trials("100 readers: others are served", is_answered(call(client, "segment", [uploaded, 0.5, False])))
    for connection in readers:
        connection.close()
    heartbeats = []
    for number in range(150):
        connection = socket.create_connection(("127.0.0.1", attacked.port), timeout=10)
        connection.sendall(f"GET {API}/heartbeat/beat{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        heartbeats.append(connection)
    for number, connection in enumerate(heartbeats):
        trials(f"heartbeat {number}", b"200" in connection.recv(20))
    trials("others are served", is_answered(call(client, "segment", [uploaded, 0.5, False])))
    for connection in heartbeats:
        connection.close()


# -- in the end


MAY_READ = [Path(sys.prefix).resolve(), Path(sys.base_prefix), REPOSITORY]
MAY_READ += [Path(HF_TOKEN_PATH)]  # by the MCP server's client, which asks nobody but the page
MAY_READ += map(Path, ("/proc", "/sys", "/usr", "/lib", "/etc/mime.types", "/dev/null", "/dev/urandom"))


def is_allowed(server: PageServer, kind: str, what: str) -> bool:
    """Whether the server may have done what it noted."""
    if kind == "contact":  # the MCP server asks the page's own API
        return what.startswith(f"('127.0.0.1', {server.port}")
    if kind == "program":  # Matplotlib asks for the machine's fonts
        return what.startswith(("('fc-list'", "fc-list"))
    path = Path(what)
    if path in (server.files / "secret.jpg", server.files / "secret2.jpg"):
        return False
    own = path.is_relative_to(server.files) or path.is_relative_to(server.matplotlib) or what == "/dev/null"
    return own or (kind == "read" and any(path.is_relative_to(folder) for folder in MAY_READ))


def test_server_stayed_in_its_folder_and_alone(servers, record_counts):
    """After all of the above: what the two servers opened, wrote, asked, started, said and left."""
    trials = Trials()
    for server in servers:
        for kind, what in sorted({(kind, what) for kind, *arguments in server.noted() for what in arguments}):
            trials(f"{kind} {what}", is_allowed(server, kind, what))
        log = server.log.read_text(errors="replace")
        for word in ("Traceback", "Error", "private.jpg", "anna.jpg", "photo.jpg", PASSWORD["password"], "/uploads/"):
            trials(f"log without {word}", word not in log, log[max(0, log.find(word) - 1500) :][:3000])
        names = {path.name.partition("-examples-")[0] for path in server.files.iterdir()}
        trials("only uploads and examples lie there", names <= {"uploads", "efp", "secret.jpg"}, names)
        server.stop()
        left = {path.name for path in server.files.iterdir()}
        trials("nothing is left", left <= {"secret.jpg"}, left)
    network = "without routes" if can_be_alone() else "the machine's"
    record_counts("page: the server itself", trials.tried, trials.tried - len(trials.broke), network=network)
    assert not trials.broke, f"{len(trials.broke)} of {trials.tried} broke:\n" + "\n".join(trials.broke[:40])
