"""The body of an upload as it comes: it is ended with its temporary files where it is too long, too slow or no file."""

import asyncio
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from ..extras import needing
from .temporary_files import KEEP_SECONDS, upload_folder
from .uploads import MAX_BATCH_BYTES

with needing("app", __name__):
    from gradio_client.utils import strip_invalid_filename_characters
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
    from starlette.formparsers import MultiPartException

MAX_UPLOAD_BYTES = MAX_BATCH_BYTES + 1_000_000  # of one request, the parts' heads among them
MAX_FOLDER_BYTES = 5_000_000_000  # of all photos and results on the disk
MIN_FREE_BYTES = 1_000_000_000
SILENT_SECONDS = 30  # without a byte of a body that is not complete


def lack_of_room() -> str | None:
    """Why nothing more can be uploaded for now."""
    folder = upload_folder()
    held = 0
    for path in folder.rglob("*"):
        try:
            held += path.lstat().st_size
        except OSError:  # deleted meanwhile
            continue
    if held > MAX_FOLDER_BYTES or shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        return f"There is no room for more photos on the server. Try again in {KEEP_SECONDS // 60} minutes."
    return None


class UploadStream:
    """
    Stands for the `receive` of an upload. Gradio's parser deletes what it has written where a [`MultiPartException`]
    comes, and only then: all that ends an upload early is one.
    """

    def __init__(self, content_type: str, receive):
        self.receive = receive
        self.num_bytes = 0
        self.is_complete = False
        self.deadline = time.monotonic() + KEEP_SECONDS
        self.field = self.value = self.disposition = b""
        kind, options = parse_options_header(content_type)
        self.parser = None
        if kind == b"multipart/form-data" and b"boundary" in options:  # anything else Gradio refuses at once
            callbacks = {
                "on_part_begin": self.begin_part,
                "on_header_field": self.on_header_field,
                "on_header_value": self.on_header_value,
                "on_header_end": self.end_header,
                "on_headers_finished": self.check_part,
                "on_end": self.end,
            }
            with readable():
                self.parser = MultipartParser(options[b"boundary"], callbacks)

    async def __call__(self) -> dict:
        seconds = min(SILENT_SECONDS, self.deadline - time.monotonic())
        try:
            message = await asyncio.wait_for(self.receive(), seconds)
        except TimeoutError:
            raise MultiPartException("The upload is too slow. Try again.") from None
        if message["type"] == "http.disconnect":
            raise MultiPartException("The upload was broken off.")
        self.num_bytes += len(message["body"])
        if self.num_bytes > MAX_UPLOAD_BYTES:
            raise MultiPartException(
                f"The upload is above the maximum allowed size of {MAX_UPLOAD_BYTES / 1e6:.0f} MB. Split it."
            )
        if self.parser is not None:
            with readable():
                self.parser.write(message["body"])
            if not (self.is_complete or message.get("more_body")):
                raise MultiPartException("The upload is not complete. Try again.")
        return message

    def begin_part(self):
        self.disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int):
        self.field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int):
        self.value += data[start:end]

    def end_header(self):
        if self.field.lower() == b"content-disposition":
            self.disposition = self.value
        self.field = self.value = b""

    def check_part(self):
        """Gradio holds a part that is no file in memory, whatever its length."""
        _, options = parse_options_header(self.disposition)
        if b"filename" not in options:
            raise MultiPartException("An upload must hold files alone.")
        name = Path(options[b"filename"].decode(errors="replace")).name
        if name and strip_invalid_filename_characters(name) in (".", ".."):  # Gradio's refusal leaves the file
            raise MultiPartException(f"A file must have a name, got {name!r}. Rename it.")

    def end(self):
        self.is_complete = True


@contextmanager
def readable():
    """Inside, what the parser of multipart bodies cannot read ends the upload."""
    try:
        yield
    except FormParserError as error:
        raise MultiPartException(f"The upload cannot be read ({error}).") from error
