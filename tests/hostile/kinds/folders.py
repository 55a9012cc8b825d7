"""
Damage to folders: those that `efp predict` looks through (`photos`), those of a dataset (`data`), and what is given
for an output, a checkpoint or a dataset on the command line (`arguments`).
"""

import os
import shutil
from pathlib import Path

from ..damage import Case, Outcome, kind
from .images import encoded, jpeg

TRAIN_IMAGES = "ISIC2018_Task1-2_Training_Input"
TRAIN_MASKS = "ISIC2018_Task1_Training_GroundTruth"

# Folders of photos: `place.folder` has three good ones, which are segmented whatever else is there


@kind("photos")
def loop_of_links(rng, place):
    path = place.folder / "loop"
    path.symlink_to(place.folder)
    return Case(path, Outcome.UNSEEN)


@kind("photos")
def loop_named_as_an_image(rng, place):
    path = place.folder / "loop.png"
    path.symlink_to(place.folder)
    return Case(path, Outcome.REFUSED)


@kind("photos")
def very_deep(rng, place):
    path = place.folder
    for _ in range(60):
        path = path / ("d" * 20)
    path.mkdir(parents=True)
    (path / "x.png").write_bytes(encoded(place.photo, "PNG"))
    return Case(path, Outcome.UNSEEN)


@kind("photos")
def hidden_files(rng, place):
    for name in (".a.png", ".DS_Store", "._ISIC_1.jpg", ".123-x.png"):
        (place.folder / name).write_bytes(rng.bytes(50))
    return Case(place.folder / ".a.png", Outcome.UNSEEN)


@kind("photos")
def thousands_of_other_files(rng, place):
    for number in range(3000):
        (place.folder / f"{number}.txt").touch()
    return Case(place.folder / "0.txt", Outcome.UNSEEN)


@kind("photos")
def hundreds_of_empty_images(rng, place):
    for number in range(300):
        (place.folder / f"x{number}.jpg").touch()
    return Case(place.folder / "x7.jpg", Outcome.REFUSED)


@kind("photos")
def folder_without_permission_inside(rng, place):
    path = place.folder / "locked"
    path.mkdir()
    path.chmod(0)
    return Case(path, Outcome.UNSEEN)


@kind("photos")
def endings_in_mixed_case(rng, place):
    path = place.folder / "upper.JPEG"
    path.write_bytes(jpeg(place))
    return Case(path, Outcome.READ)


@kind("photos")
def masks_among_the_photos(rng, place):
    path = place.folder / "other_segmentation.png"
    path.write_bytes(encoded(place.truth.astype("uint8") * 255, "PNG"))
    return Case(path, Outcome.UNSEEN)


@kind("photos")
def zip_in_the_folder(rng, place):
    path = place.folder / "photos.zip"
    path.write_bytes(b"PK\x03\x04" + rng.bytes(100))
    return Case(path, Outcome.UNSEEN)


@kind("photos")
def names_that_differ_in_case_alone(rng, place):
    for name in ("same.png", "SAME.png"):
        (place.folder / name).write_bytes(encoded(place.photo, "PNG"))
    return Case(place.folder / "SAME.png", Outcome.JUDGED, place.photo)


# Roots of a dataset: `place.folder` is a whole one in the layout of ISIC


def root(name: str, outcome: Outcome = Outcome.REFUSED, words: tuple = (), doors=None):
    def register(change):
        def write(rng, place):
            path = change(rng, place) or place.folder
            return Case(path, outcome, words=words)

        kind("data", name, doors)(write)
        return change

    return register


@root("image folder missing")
def _(rng, place):
    shutil.rmtree(place.folder / TRAIN_IMAGES)


@root("mask folder missing", words=(TRAIN_MASKS,))
def _(rng, place):
    shutil.rmtree(place.folder / TRAIN_MASKS)
    return place.folder / TRAIN_MASKS


@root("image folder empty", words=(TRAIN_IMAGES,))
def _(rng, place):
    for path in (place.folder / TRAIN_IMAGES).iterdir():
        path.unlink()
    return place.folder / TRAIN_IMAGES


@root("mask folder empty", words=(TRAIN_MASKS,))
def _(rng, place):
    for path in (place.folder / TRAIN_MASKS).iterdir():
        path.unlink()
    return place.folder / TRAIN_MASKS


@root("image folder is a file", words=(TRAIN_IMAGES,))
def _(rng, place):
    shutil.rmtree(place.folder / TRAIN_IMAGES)
    (place.folder / TRAIN_IMAGES).write_text("x")


@root("mask folder is a link to itself", words=(TRAIN_MASKS,))
def _(rng, place):
    path = place.folder / TRAIN_MASKS
    shutil.rmtree(path)
    path.symlink_to(path)
    return path


@root("image folder is a link to itself", words=(TRAIN_IMAGES,))
def _(rng, place):
    path = place.folder / TRAIN_IMAGES
    shutil.rmtree(path)
    path.symlink_to(path)
    return path


@root("image folder without permission", words=(TRAIN_IMAGES,))
def _(rng, place):
    (place.folder / TRAIN_IMAGES).chmod(0)
    return place.folder / TRAIN_IMAGES


@root("root without permission")
def _(rng, place):
    place.folder.chmod(0)


@root("root is a file")
def _(rng, place):
    shutil.rmtree(place.folder)
    place.folder.write_text("x")


@root("root is empty")
def _(rng, place):
    shutil.rmtree(place.folder)
    place.folder.mkdir()


@root("root is not there")
def _(rng, place):
    shutil.rmtree(place.folder)


@root("root is a link to itself")
def _(rng, place):
    shutil.rmtree(place.folder)
    place.folder.symlink_to(place.folder)


@root("hidden files in the folders", Outcome.READ)
def _(rng, place):
    for folder in (TRAIN_IMAGES, TRAIN_MASKS):
        for name in (".DS_Store", "._ISIC_9000000.jpg", ".ISIC_9000000_segmentation.png"):
            (place.folder / folder / name).write_bytes(rng.bytes(50))


@root("licence and super-pixels beside the images", Outcome.READ)
def _(rng, place):
    for name in ("LICENSE.txt", "ATTRIBUTION.txt", "ISIC_9000000_superpixels.png"):
        (place.folder / TRAIN_IMAGES / name).write_bytes(rng.bytes(50))


@root("folder among the images", Outcome.READ)
def _(rng, place):
    (place.folder / TRAIN_IMAGES / "more").mkdir()
    (place.folder / TRAIN_IMAGES / "loop").symlink_to(place.folder / TRAIN_IMAGES)


@root("two images of one id", words=("two images",))
def _(rng, place):
    first = sorted((place.folder / TRAIN_IMAGES).iterdir())[0]
    shutil.copy(first, first.with_suffix(".png"))
    return first.with_suffix(".png")


@root("folders are links to the real ones", Outcome.READ)
def _(rng, place):
    shutil.move(place.folder / TRAIN_IMAGES, place.outside / "images")
    (place.folder / TRAIN_IMAGES).symlink_to(place.outside / "images")


@root("folder of another case", Outcome.REFUSED)
def _(rng, place):
    (place.folder / TRAIN_IMAGES).rename(place.folder / TRAIN_IMAGES.lower())


# What is given on the command line: `inputs` is the argument


def argument(name: str, give, doors=None):
    def write(rng, place):
        path = Path(give(rng, place))
        return Case(path, Outcome.JUDGED, inputs=[str(path)])

    kind("arguments", name, doors)(write)


def made(path: Path, make) -> Path:
    make(path)
    return path


argument("below a file", lambda rng, place: made(place.folder / "file", lambda p: p.write_text("x")) / "out")
argument("a file", lambda rng, place: made(place.folder / "file", lambda p: p.write_text("x")))
argument("a link to nothing", lambda rng, place: made(place.folder / "link", lambda p: p.symlink_to("nothing")))
argument("a link to itself", lambda rng, place: made(place.folder / "link", lambda p: p.symlink_to(p)))
argument("below a link to itself", lambda rng, place: made(place.folder / "link", lambda p: p.symlink_to(p)) / "out")
argument("a name too long", lambda rng, place: place.folder / ("n" * 300))
argument("a path too long", lambda rng, place: place.folder / "/".join(["n" * 200] * 30))
argument("without permission", lambda rng, place: made(place.folder / "locked", lambda p: p.mkdir(0)))
argument(
    "below a folder without permission", lambda rng, place: made(place.folder / "locked", lambda p: p.mkdir(0)) / "out"
)
argument("a folder that can only be read", lambda rng, place: made(place.folder / "locked", lambda p: p.mkdir(0o500)))
argument("a pipe", lambda rng, place: made(place.folder / "pipe", os.mkfifo))
argument("a device", lambda rng, place: "/dev/null")
argument("home of nobody", lambda rng, place: "~nobody-of-this-name/out")
argument("not UTF-8", lambda rng, place: os.fsdecode(os.fsencode(place.folder) + b"/out\xe4\xff"))
argument("several lines", lambda rng, place: place.folder / "two\nlines")
argument("an address", lambda rng, place: "https://127.0.0.1:9/nothing")
argument("a name that looks like an option", lambda rng, place: place.folder / "--output")
argument("a Hub id that is not cached", lambda rng, place: "someone/no-such-thing")
argument("a folder of the system", lambda rng, place: "/proc/self/out")
