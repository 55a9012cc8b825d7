"""An upload is ended where it is too long, too slow or no file."""

import asyncio

import pytest
from starlette.formparsers import MultiPartException

from efp_hf.page import upload_stream
from efp_hf.page.upload_stream import UploadStream, lack_of_room

FORM = "multipart/form-data; boundary=x"
FILE = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\nabc'
END = b"\r\n--x--\r\n"


def read(*bodies: bytes, content_type: str = FORM, wait: float = 0) -> bytes:
    """All that comes through."""
    messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    if messages:
        messages[-1]["more_body"] = False

    async def receive():
        await asyncio.sleep(wait)
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def read_all():
        stream, come = UploadStream(content_type, receive), b""
        while True:
            message = await stream()
            come += message["body"]
            if not message["more_body"]:
                return come

    return asyncio.run(read_all())


def test_upload_comes_through_as_it_is_sent():
    sent = FILE % b"photo.jpg" + END
    assert read(sent) == sent
    assert read(*(bytes([byte]) for byte in sent)) == sent


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nabc' + END], "must hold files alone"),
        ([FILE % b"photo.jpg"], "not complete"),
        ([], "broken off"),
        ([b"nothing" + END], "cannot be read"),
        ([FILE % b".." + END], "A file must have a name"),
    ],
)
def test_what_is_no_whole_file_ends_the_upload(sent, words):
    with pytest.raises(MultiPartException) as ended:
        read(*sent)
    assert words in ended.value.message


def test_too_long_and_too_slow_an_upload_is_ended(monkeypatch):
    monkeypatch.setattr(upload_stream, "MAX_UPLOAD_BYTES", 10)
    with pytest.raises(MultiPartException) as ended:
        read(FILE % b"photo.jpg" + END)
    assert "above the maximum allowed size" in ended.value.message  # Gradio's status is by these words
    monkeypatch.setattr(upload_stream, "SILENT_SECONDS", 0.01)
    with pytest.raises(MultiPartException) as ended:
        read(FILE % b"photo.jpg" + END, wait=0.2)
    assert "too slow" in ended.value.message


def test_full_folder_takes_no_upload(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "photo.jpg").write_bytes(bytes(100))
    assert lack_of_room() is None
    monkeypatch.setattr(upload_stream, "MAX_FOLDER_BYTES", 99)
    assert "no room for more photos on the server. Try again in 15 minutes" in lack_of_room()
