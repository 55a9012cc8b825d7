"""
What comes from the network is checked here, before Gradio: by itself it fetches addresses for anybody, reads bodies of
any size into memory, and has routes that the page does not need.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..extras import needing
from .upload_stream import SILENT_SECONDS, UploadStream, lack_of_room

with needing("app", __name__):
    from gradio_client.utils import is_http_url_like
    from starlette.formparsers import MultiPartException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse

# What the page, its API and the MCP server need of Gradio's routes
ROUTES = re.compile(
    r"/|/(config|theme\.css|robots\.txt|favicon\.ico|login|logout)/?|/(assets|static|svelte)/.+"
    r"|/gradio_api/((info|openapi\.json|app_id|user|login_check|startup-events|theme\.css|upload|upload_progress"
    r"|queue/join|queue/data|queue/status|cancel|reset)/?"
    r"|heartbeat/[\w-]{1,64}|(call/v2|call|run|api)/\w+(/\w+)?/?|mcp(/.*)?|file=.+)"
)
UPLOAD = re.compile(r"/gradio_api/upload/?")
ENDPOINT = re.compile(r"/gradio_api/(?:call/v2|call|run|api)/(\w+)/?")
WITH_NAMES = re.compile(r"/gradio_api/call/v2/\w+/?")  # of arguments
EVENTS = re.compile(r"/gradio_api/(queue/data|call/.+)/?")
WITHOUT_PASSWORD = re.compile(r"/gradio_api/(heartbeat/.+|cancel/?|reset/?)")  # Gradio does not ask for it there
FILE = "/gradio_api/file="
IDENTIFIER = re.compile(r"[\w-]{1,64}")
MAX_LOGIN_BYTES = 10_000
MAX_JSON_BYTES = 1_000_000
MAX_MCP_BYTES = 20_000_000  # photos come to the tools as text, a third longer than they are
MAX_VALUES = 10_000  # of a JSON body: a megabyte of empty lists takes 20 in memory
MAX_HELD_BYTES = 200_000_000  # of the bodies that are in memory at once
MAX_WRONG_PASSWORDS = 10  # of one address in a minute


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


class Gate:
    """The ASGI layer between the network and Gradio's app. Files are served out of `folders` alone."""

    def __init__(self, app, folders: Iterable[Path]):
        self.app = app
        self.folders = tuple(folders)
        self.held_bytes = 0
        self.wrong_passwords, self.minute = Counter(), 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        held = bytearray()
        answered = False

        async def answer(message):
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message["headers"] = [*message.get("headers", []), *added_headers(request)]
                if request.url.path.startswith("/login") and message["status"] == 400:
                    self.wrong_passwords[client_address(request)] += 1
            await send(message)

        try:
            if request.method == "POST" and UPLOAD.fullmatch(request.url.path):
                self.check(request)
                receive = await self.open_upload(request)
            elif request.method == "POST":
                await self.read_body(request, held)  # before a refusal: a client that still sends would not hear it
                self.check(request)
                check_body(request, held)
                receive = replay(bytes(held), receive)
            else:
                self.check(request)
            await self.app(scope, receive, answer)
        except Refused as refused:
            await JSONResponse({"detail": str(refused)}, refused.status)(scope, receive, send)
        except ClientDisconnect:
            return
        except TypeError as error:
            if answered or not WITH_NAMES.fullmatch(request.url.path):
                raise
            # Gradio's words for missing and unknown arguments
            await JSONResponse({"detail": str(error)}, 422)(scope, receive, send)
        except (KeyError, RuntimeError):
            # Gradio's event streams raise what they have said already, and where a session has lost two readers
            if not (answered and EVENTS.fullmatch(request.url.path)):
                raise
            await send({"type": "http.response.body"})
        finally:
            self.held_bytes -= len(held)

    def check(self, request: Request) -> None:
        """What the head of a request says."""
        path = request.url.path
        if not ROUTES.fullmatch(path):
            raise Refused(404, "There is nothing here.")
        if path.startswith(FILE):
            self.check_file(path.removeprefix(FILE))
        for name in ("session_hash", "upload_id"):
            if not all(IDENTIFIER.fullmatch(value) for value in request.query_params.getlist(name)):
                raise Refused(400, f"`{name}` must be at most 64 letters and digits.")
        if WITHOUT_PASSWORD.fullmatch(path) and not is_logged_in(request):
            raise Refused(401, "Log in first.")
        if path.startswith("/login"):
            minute = int(time.monotonic() // 60)
            if minute != self.minute:
                self.wrong_passwords, self.minute = Counter(), minute
            if self.wrong_passwords[client_address(request)] >= MAX_WRONG_PASSWORDS:
                raise Refused(429, "There were too many wrong passwords. Try again in a minute.")

    def check_file(self, name: str) -> None:
        if is_http_url_like(name):
            raise Refused(403, "This server fetches nothing from other addresses.")
        try:
            is_served = any(Path(name).resolve().is_relative_to(folder) for folder in self.folders)
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, a loop of links
            is_served = False
        if not is_served:
            raise Refused(403, "This is no file of the page.")

    async def open_upload(self, request: Request) -> UploadStream:
        if words := await asyncio.to_thread(lack_of_room):
            raise Refused(507, words)
        try:
            return UploadStream(request.headers.get("content-type", ""), request.receive)
        except MultiPartException as error:
            raise Refused(400, error.message) from error

    async def read_body(self, request: Request, held: bytearray) -> None:
        """Reads a body, which is not an upload, into `held`."""
        path = request.url.path
        if path.startswith("/login"):
            max_bytes = MAX_LOGIN_BYTES
        else:
            max_bytes = MAX_MCP_BYTES if path.startswith("/gradio_api/mcp") else MAX_JSON_BYTES
        chunks = request.stream()
        while True:
            try:
                chunk = await asyncio.wait_for(anext(chunks, None), SILENT_SECONDS)
            except TimeoutError:
                raise Refused(408, "The request is too slow. Try again.") from None
            if chunk is None:
                return
            held += chunk
            self.held_bytes += len(chunk)
            if len(held) > max_bytes:
                raise Refused(413, f"A request must have at most {max_bytes} bytes. Send photos as uploads.")
            if self.held_bytes > MAX_HELD_BYTES:
                raise Refused(503, "The server is busy. Try again.")


def check_body(request: Request, body: bytes) -> None:
    """A body of JSON that Gradio would fail at, or hold for long."""
    path = request.url.path
    if path.startswith("/login"):
        return
    if sum(body.count(mark) for mark in b"[{,") > MAX_VALUES:
        raise Refused(413, f"A request must have at most {MAX_VALUES} values.")
    if path.startswith("/gradio_api/mcp"):
        return
    try:
        values = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request is no JSON.") from error
    if not isinstance(values, dict):
        raise Refused(422, "The request must be a JSON object.")
    for name in ("session_hash", "event_id"):
        value = values.get(name)
        if value is not None and not (isinstance(value, str) and IDENTIFIER.fullmatch(value)):
            raise Refused(422, f"`{name}` must be at most 64 letters and digits.")
    endpoints = request.app.get_blocks().fns
    endpoint = ENDPOINT.fullmatch(path)
    index = values.get("fn_index")
    if index is not None:
        if not (isinstance(index, int) and index in endpoints):
            raise Refused(404, "There is no endpoint of this `fn_index`.")
    elif endpoint and endpoint[1] not in {function.api_name for function in endpoints.values()}:
        raise Refused(404, f"There is no endpoint /{endpoint[1]}. The server lists them at /gradio_api/info.")


def replay(body: bytes, receive):
    """A `receive` that gives the body that was read, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return messages.pop() if messages else await receive()

    return receive_again


def is_logged_in(request: Request) -> bool:
    app = request.app
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return app.auth is None or any(request.cookies.get(name) in app.tokens for name in names)


def client_address(request: Request) -> str:
    return request.client.host if request.client else ""


def added_headers(request: Request) -> list[tuple[bytes, bytes]]:
    """A file is what its type says; were it a page after all, none of its scripts would run."""
    headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
    if request.url.path.startswith(FILE):
        headers.append((b"content-security-policy", b"sandbox; default-src 'none'"))
    return headers
