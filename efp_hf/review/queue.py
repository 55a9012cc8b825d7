"""The images that wait for a person, segmented in the background, the most doubtful first."""

import threading
from pathlib import Path

from transformers.exporters.base import ExportedModel

from ..image_processing_efp import EFPImageProcessor
from ..inference.folder import find_images, predict_files
from ..inference.prediction_table import FORMULA_SIGNS, table_text
from ..modeling_efp import EFPForSegmentation
from .decisions import Decisions


def find_photos(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """
    The images of a folder, and those that cannot be in a training set together with them, each with the reason.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. Pass one that holds image files.")
    photos, refused = {}, {}
    for path in find_images([str(folder)]):
        if any("\udc80" <= sign <= "\udcff" for sign in path.name):  # bytes that are no UTF-8
            refused[path] = f"{path}: its name must be UTF-8. Rename it."
        elif path.name.startswith(tuple(f"'{sign}" for sign in FORMULA_SIGNS)):
            refused[path] = f"{path}: the set could not tell it from {path.name[1:]}. Rename it."
        elif (other := photos.setdefault(Path(table_text(path.name)).stem, path)) != path:
            refused[path] = f"{path}: the set could not tell it from {other.name}. Rename one of them."
    return list(photos.values()), refused


class Queue:
    """
    Images with the Jaccard that their masks are expected to have; [`next`] gives each browser another one.

    Args:
        images: all of the folder; those that are decided, or refused ([`Decisions.refusals`]), are not segmented.
        failed: image → why it cannot be reviewed; unreadable ones are added.
    """

    def __init__(
        self,
        images: list[Path],
        decisions: Decisions,
        model: EFPForSegmentation | ExportedModel,
        processor: EFPImageProcessor,
        failed: dict[Path, str] | None = None,
        batch_size: int = 4,
    ):
        self.images, self.decisions = {table_text(image.name): image for image in images}, decisions
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.failed = dict(failed or {})
        self.expected: dict[Path, float] = {}
        self.shown: dict[str, Path] = {}  # browser → the image that it shows
        self.lock = threading.Lock()
        self.is_stopped = False
        self.error = ""
        self.size, self.counts, self.known = -1, {}, {}  # of the table; image → its rows; decided image → the last one
        decided = self.decided()
        self.waiting = [image for image in images if image not in decided and image not in self.failed]

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.segment_all, daemon=True)
        thread.start()
        return thread

    def segment_all(self) -> None:
        """Fills `expected`, until all are done or `is_stopped`."""
        try:
            for prediction in predict_files(self.waiting, self.model, self.processor, self.batch_size):
                if self.is_stopped:
                    return
                with self.lock:
                    if prediction.error is None:
                        self.expected[prediction.path] = prediction.expected_jaccard
                    else:
                        self.failed[prediction.path] = prediction.error
        except (RuntimeError, MemoryError) as error:  # of the model: no later image will fare better
            self.error = f"The segmentation broke off: {error}. Start again."

    def next(self, browser: str) -> Path | None:
        """
        The undecided image with the lowest expected Jaccard of those that are segmented and no other browser shows;
        `None` where there is none. It is now shown by this browser.
        """
        decided = self.decided()
        if not self.decisions.table.exists():
            return None
        with self.lock:
            elsewhere = {image for other, image in self.shown.items() if other != browser}
            left = [
                image
                for image in self.expected
                if image not in elsewhere and image not in self.failed and image not in decided
            ]
            image = min(left, key=lambda image: (self.expected[image], image.name), default=None)
            if image is None:
                self.shown.pop(browser, None)
            else:
                self.shown[browser] = image
            return image

    def show(self, browser: str, image: Path) -> None:
        """An image that was decided before is shown again."""
        with self.lock:
            self.shown[browser] = image

    def release(self, browser: str) -> None:
        """The browser is closed."""
        with self.lock:
            self.shown.pop(browser, None)

    def fail(self, image: Path, why: str) -> None:
        """An image that can no longer be read."""
        with self.lock:
            self.failed[image] = why

    def decided(self) -> dict[Path, dict[str, str]]:
        """Image → the row of its decision; the files of an image are looked at again where it has another row."""
        table = self.decisions.table
        try:
            size = table.stat().st_size
            if size != self.size:
                with self.decisions.locked() as (_, rows):
                    self.look_up(rows)
                self.size = size
        except OSError as error:
            self.error = f"{table} cannot be read ({error.strerror}). Bring its folder back, and start again."
        return self.known

    def look_up(self, rows: dict[str, list[dict[str, str]]]) -> None:
        counts = {image: len(rows.get(name, ())) for name, image in self.images.items()}
        changed = {image for image in counts if counts[image] != self.counts.get(image)}
        known = {image: row for image, row in self.known.items() if image not in changed}
        for image in sorted(changed):
            if self.decisions.is_decided(image, rows):
                known[image] = rows[table_text(image.name)][-1]
        refused = self.decisions.refusals(changed - known.keys(), rows)
        with self.lock:
            self.failed |= refused
        self.counts, self.known = counts, known

    def progress(self) -> dict[str, int]:
        """Counts: `images` that can be reviewed, `waiting` at the start, `segmented` of these, `decided`, `failed`."""
        decided = self.decided()
        with self.lock:
            return {
                "images": len(decided.keys() | (set(self.images.values()) - set(self.failed))),
                "waiting": len(self.waiting),
                "segmented": sum(image in self.expected or image in self.failed for image in self.waiting),
                "decided": len(decided),
                "failed": len(self.failed),
            }
