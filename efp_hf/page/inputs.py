"""Gradio's image and file components, without what photos of patients must not meet: no address is fetched."""

from pathlib import Path
from urllib.parse import unquote

from ..extras import needing
from .temporary_files import upload_folder

with needing("app", __name__):
    import gradio as gr
    from gradio_client.utils import is_http_url_like


class LocalFiles:
    """Of a component that takes files: only uploaded ones, as they were uploaded. Addresses are not fetched."""

    async def async_move_resource_to_block_cache(self, url_or_file_path):
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            _, served, path = str(url_or_file_path).partition("/gradio_api/file=")
            path = unquote(path)
            if not served or not Path(path).resolve().is_relative_to(upload_folder()):
                raise gr.Error("Upload the file: this server fetches nothing from other addresses.")
            url_or_file_path = path
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
    def get_block_name(self):
        return "file"

    def get_block_class(self):
        return "file"
