"""What people send: its limits, and what is in a zip."""

import struct
import zipfile
import zlib
from pathlib import Path

from ..data.files import is_image_file, open_image
from ..inference.folder import is_mask_name

MAX_FILE_BYTES = 50_000_000
MAX_UPLOAD_PIXELS = 50_000_000  # below that of `data.files`: several people share the machine
MAX_FILES = 100  # of one batch
MAX_BATCH_BYTES = 500_000_000  # of one batch, unpacked
MAX_ZIP_BYTES = 200_000_000
MAX_DIRECTORY_BYTES = 1_000_000  # of a zip: some 5000 entries
MAX_NAME_BYTES = 150  # of a file from a zip, without its ending; file systems allow 255


def check_photo(path: str | Path | None) -> Path:
    """
    The path of an uploaded photo that the page takes.

    Raises:
        ValueError: nothing was uploaded, the file or the image is too large, or it is no image. Messages name the file
            without its folder on the server.
    """
    if path is None:
        raise ValueError("There is no photo yet. Upload one, paste it or use the camera.")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name}: the server has deleted the photo by now. Upload it again.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{path.name}: the file has {path.stat().st_size / 1e6:.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f} MB. "
            "Reduce it first."
        )
    with naming(path):
        open_image(path, MAX_UPLOAD_PIXELS).close()
    return path


class naming:
    """Inside, errors about a file become `ValueError`s that name it without its folder on the server."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, OSError | ValueError):
            raise ValueError(without_folder(str(error), self.path)) from error


def without_folder(message: str, path: Path) -> str:
    return message.replace(str(path), path.name)


def collect_files(uploads: list[Path], folder: Path) -> tuple[list[Path], dict[Path, str], int]:
    """
    The image files of the uploads, zips unpacked into numbered folders in `folder`; what is wrong with those that a
    zip did not give; and how many other files the zips held. Names in a zip are cut to their last part, long ones
    shortened: nothing is written outside of `folder`.

    Raises:
        ValueError: as [`segment_batch`].
    """
    if not uploads:
        raise ValueError("There is no file yet. Choose images, or a zip of images.")
    files, refused, left_out, num_bytes = [], {}, 0, 0
    for upload in uploads:
        if upload.suffix.lower() != ".zip":
            files.append(upload)
            check_batch(len(files), num_bytes)
            continue
        with open_zip(upload) as packed:
            members = [member for member in packed.infolist() if not member.is_dir()]
            images = [member for member in members if is_batch_image(member.filename)]
            left_out += len(members) - len(images)
            check_batch(len(files) + len(images), num_bytes + sum(member.file_size for member in images))
            for member in images:
                target = folder / f"{len(files):04d}" / short_name(member.filename)
                target.parent.mkdir(parents=True)
                files.append(target)
                try:
                    num_bytes += unpack(packed, member, target, MAX_BATCH_BYTES - num_bytes)
                except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
                    refused[target] = f"{target.name}: damaged, encrypted or packed in an unknown way ({error})."
    if not files:
        raise ValueError("There is no image in the zip. It must hold JPEG, PNG, TIFF, BMP or WebP files.")
    return files, refused, left_out


def open_zip(path: Path) -> zipfile.ZipFile:
    """
    The zip, its directory read.

    Raises:
        ValueError: no zip, a damaged one, or one with a directory that is larger than `MAX_DIRECTORY_BYTES`.
    """
    try:
        if directory_bytes(path) > MAX_DIRECTORY_BYTES:
            raise ValueError(f"{path.name}: the zip has too many entries. A batch has at most {MAX_FILES} images.")
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path.name}: the zip is damaged or of an unknown kind. Pack it again.") from error


def directory_bytes(path: Path) -> int:
    """
    Size of a zip's directory as its end record states it, read before the directory is: `zipfile` reads all of it into
    memory. A zip in the format for more than 4 GB counts as too large.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))  # the record, with the longest comment behind it
        tail = file.read()
    start = tail.rfind(b"PK\x05\x06")
    if start < 0 or len(tail) - start < 22:
        raise zipfile.BadZipFile("no end record")
    if b"PK\x06\x07" in tail[max(0, start - 20) : start]:
        return MAX_DIRECTORY_BYTES + 1
    return struct.unpack_from("<I", tail, start + 12)[0]


def short_name(name: str) -> str:
    """The last part of a name in a zip, its stem cut so that the names of a mask and its overlay fit a file system."""
    path = Path(name.replace("\\", "/"))
    stem = path.stem.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return f"{stem}{path.suffix}"


def is_batch_image(name: str) -> bool:
    """By its name in the zip: an image, no mask, and none of the files that macOS adds."""
    path = Path(name.replace("\\", "/"))
    return is_image_file(path) and not is_mask_name(path) and "__MACOSX" not in path.parts


def check_batch(num_files: int, num_bytes: int) -> None:
    if num_files > MAX_FILES:
        raise ValueError(f"A batch must have at most {MAX_FILES} images, got {num_files}. Split it.")
    if num_bytes > MAX_BATCH_BYTES:
        raise ValueError(
            f"A batch must unpack to at most {MAX_BATCH_BYTES / 1e6:.0f} MB, got {num_bytes / 1e6:.0f} MB. Split it."
        )


def unpack(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, max_bytes: int) -> int:
    """
    Unpacks one member, and counts its bytes as they come.

    Raises:
        NotImplementedError: packed by another method than the two of every photo zip: of the others `zipfile` unpacks a
            whole megabyte at once, whatever that becomes.
        ValueError: more than `max_bytes`.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("not stored or deflated")
    num_bytes = 0
    with packed.open(member) as source, target.open("wb") as file:
        while chunk := source.read(1 << 20):
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                check_batch(0, MAX_BATCH_BYTES - max_bytes + num_bytes)
            file.write(chunk)
    return num_bytes
