"""What the page takes: uploaded files, no addresses, numbers for numbers. All else is refused in words."""

from html import escape
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from ..extras import needing
from .temporary_files import upload_folder

with needing("app", __name__):
    import gradio as gr
    from gradio.exceptions import InvalidPathError
    from gradio_client.utils import is_http_url_like

NO_UPLOAD = "Upload the file: this server reads no other files."


def refusal(words: str) -> gr.Error:
    """An error for who sent something wrong; the server's log stays without it."""
    return gr.Error(escape(words), duration=20, print_exception=False)


class Page(gr.Blocks):
    """Where Gradio refuses a value with a stack trace and its own names, one sentence says what is wrong."""

    async def preprocess_data(self, block_fn, inputs, *arguments, **options):
        for component, value in zip(block_fn.inputs, inputs, strict=False):
            check_value(component, value)
        try:
            return await super().preprocess_data(block_fn, inputs, *arguments, **options)
        except gr.Error:
            raise
        except InvalidPathError as error:
            raise refusal(NO_UPLOAD) from error
        except Exception as error:
            raise refusal("What was sent is not what this endpoint takes. See /gradio_api/info.") from error


def check_value(component: gr.components.Component, value) -> None:
    """
    Raises:
        gr.Error: a value of another type than the component's, where Gradio would guess or fail.
    """
    if value is None:
        return
    if isinstance(component, gr.Number | gr.Slider) and not is_number(value):
        kind = "a number"
    elif isinstance(component, gr.Checkbox) and value not in (True, False):
        kind = "true or false"
    else:
        return
    got = repr(value[:50]) if isinstance(value, str) else f"a value of type {type(value).__name__}"
    raise refusal(f"`{component.label}` must be {kind}, got {got}.")


def is_number(value) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, bool)


class LocalFiles:
    """Of a component that takes files: only uploaded ones, as they were uploaded. Addresses are not fetched."""

    async def async_move_resource_to_block_cache(self, url_or_file_path):
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            _, served, path = str(url_or_file_path).partition("/gradio_api/file=")
            path = unquote(path)
            if not served or not Path(path).resolve().is_relative_to(upload_folder()):
                raise refusal("Upload the file: this server fetches nothing from other addresses.")
            url_or_file_path = path
        if url_or_file_path is not None and not Path(url_or_file_path).resolve().is_relative_to(upload_folder()):
            raise refusal(NO_UPLOAD)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class PhotoInput(LocalFiles, gr.Image):
    """An image whose file reaches the handler unchanged, also when it is no image: the handler says what is wrong."""

    def preprocess(self, payload):
        return None if payload is None else payload.path

    def get_block_name(self):
        return "image"

    def get_block_class(self):
        return "image"


class FilesInput(LocalFiles, gr.File):
    """Files whose paths reach the handler; Gradio's own makes an empty file of each, and leaves it."""

    def preprocess(self, payload):
        return None if payload is None else [file.path for file in payload]

    def get_block_name(self):
        return "file"

    def get_block_class(self):
        return "file"


class NumbersInput(gr.JSON):
    """A list of numbers; the schema that Gradio gives of JSON is none, and MCP clients refuse it."""

    items: ClassVar = {"type": "number"}

    def api_info(self):
        return {"type": "array", "items": self.items}

    def get_block_name(self):
        return "json"

    def get_block_class(self):
        return "json"


class PointsInput(NumbersInput):
    """A list of [x, y]."""

    items: ClassVar = {"type": "array", "items": {"type": "number"}}
