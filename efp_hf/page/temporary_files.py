"""Photos and results on the server: where they lie, whose they are, and when they are deleted."""

import atexit
import os
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from ..data.synthetic import write_examples

KEEP_SECONDS = 900  # how long a photo and its results stay on the server
CLEAN_SECONDS = 60


def upload_folder() -> Path:
    """Where Gradio puts what is uploaded."""
    return Path(os.environ["GRADIO_TEMP_DIR"]).resolve()


def make_folders() -> Path:
    """The folder for uploads, and one with the drawn examples, which is returned; both are deleted at the end."""
    upload_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    examples = Path(tempfile.mkdtemp(prefix="efp-examples-")).resolve()
    for folder in (upload_folder(), examples):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_examples(examples)
    return examples


def new_answer_folder() -> Path:
    """A new folder for files that are made for one answer; like the uploads it is deleted after `KEEP_SECONDS`."""
    return Path(tempfile.mkdtemp(dir=upload_folder()))


class SessionFiles:
    """The files and folders of each open page, to delete them when it is closed."""

    def __init__(self):
        self.sessions: defaultdict[str, set[Path]] = defaultdict(set)

    def add(self, session: str, *paths: str | Path) -> None:
        self.sessions[session].update(Path(path) for path in paths)

    def delete(self, session: str) -> None:
        for path in self.sessions.pop(session, ()):
            is_shared = any(path in paths for paths in list(self.sessions.values()))  # a file of the same contents
            if path.is_relative_to(upload_folder()) and not is_shared:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def keep_clean(folder: Path) -> None:
    """Deletes what is too old in `folder`, for ever: Gradio's `delete_cache` knows only files of its components."""
    while True:
        time.sleep(CLEAN_SECONDS)
        delete_old_files(folder, KEEP_SECONDS)


def delete_old_files(folder: Path, max_age: float) -> int:
    """Deletes the files below `folder` that are older than `max_age` seconds, and empty folders → how many files."""
    deleted, limit = 0, time.time() - max_age
    for path in sorted(Path(folder).rglob("*"), reverse=True):  # what lies in a folder comes before the folder
        try:
            if path.is_dir() and not path.is_symlink():
                if path.stat().st_mtime < limit:
                    path.rmdir()
            elif path.lstat().st_ctime < limit:
                path.unlink()
                deleted += 1
        except OSError:  # deleted meanwhile, or a folder that is not empty
            continue
    return deleted
