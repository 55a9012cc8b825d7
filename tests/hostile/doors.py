"""
The entry points that meet the damage: each door is a function `(write, stage)` that prepares good input, lets a kind
write its damage into it, runs the product, and says by an `AssertionError` what it did wrong.
"""

import csv
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.__main__ import main
from efp_hf.data.synthetic import draw_lesion, write_synthetic_isic
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.folder import predict_files, table_row, write_mask

from .damage import Case, Kind, Outcome, Place

MAX_DIFFERENT = 0.005  # share of a mask's pixels: a batch of another size rounds otherwise
REDUCED_SIDE, MAX_DIFFERENT_REDUCED = 256, 0.03  # a large JPEG is decoded at a part of its size
MAX_CONFIDENCE_APART = 0.002
SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
GOOD_ROWS = {"train": 3, "validation": 1, "test": 1}


def write_assets(assets: Path, checkpoint_of: Callable[[], EFPForSegmentation]) -> None:
    """What all cases start from: a checkpoint, photos, a dataset, a training's folder and tables that are right."""
    torch.manual_seed(0)
    model, processor = checkpoint_of(), EFPImageProcessor(size={"height": 64, "width": 64})
    photos = assets / "photos"
    photos.mkdir(parents=True)
    for number in range(3):
        draw_lesion(number, 50 + 10 * number, 60)[0].save(photos / f"good{number}.{'jpg' if number % 2 else 'png'}")
    with torch.inference_mode():  # half of each photo above the threshold: a mask then shows what the pixels are
        inputs = processor([Image.open(path).convert("RGB") for path in sorted(photos.iterdir())], return_tensors="pt")
        logits = model(**inputs).logits[:, 1]
        model.decoder.classifier.bias -= logits.median()
        model.decoder.classifier.weight *= 1 / logits.std()
        model.decoder.classifier.bias *= 1 / logits.std()
    model.save_pretrained(assets / "checkpoint")
    processor.save_pretrained(assets / "checkpoint")
    write_synthetic_isic(assets / "data", num_images=GOOD_ROWS["train"], height=48, width=64)
    number = 100
    for split in ("validation", "test"):
        images = assets / "data" / f"ISIC2018_Task1-2_{SPLITS[split]}_Input"
        masks = assets / "data" / f"ISIC2018_Task1_{SPLITS[split]}_GroundTruth"
        images.mkdir()
        masks.mkdir()
        image, mask = draw_lesion(number, 48, 64)
        image.save(images / f"ISIC_9{number:06d}.png")
        mask.save(masks / f"ISIC_9{number:06d}_segmentation.png")
        number += 1
    write_synthetic_isic(assets / "undivided", num_images=20, height=48, width=64)
    lines = [f"ISIC_9{k:06d},patient{k // 2},lesion{k}" for k in range(20)]
    (assets / "undivided" / "metadata.csv").write_text("\n".join(["isic_id,patient_id,lesion_id", *lines]) + "\n")
    here = Path.cwd()
    os.chdir(assets)
    try:
        assert main(["predict", "photos", "--checkpoint", "checkpoint", "--output", "masks"]) == 0
        for _ in range(2):
            assert main(["score", "--data", "data", "--checkpoint", "checkpoint"]) == 0
        calibrated = shutil.copytree("checkpoint", "calibrated")
        assert main(["calibrate", "--data", "data", "--checkpoint", calibrated, FEW_IMAGES]) == 0
        assert main([*TRAIN, "--output", "trained", "--max-steps", "4", "--save-steps", "2"]) == 0
    finally:
        os.chdir(here)


FEW_IMAGES = "--allow-few-images"
TRAIN = (
    *("train", "--data", "data", "--checkpoint", "checkpoint", "--use-cpu"),
    *("--per-device-train-batch-size", "2", "--dataloader-num-workers", "0"),
)


@dataclass
class Ran:
    code: int
    out: str
    err: str


@dataclass
class Stage:
    """A case's own folder, which is the working folder, beside the `assets` of all."""

    root: Path
    assets: Path
    rng: np.random.Generator
    seed: int
    printed: Callable[[], tuple[str, str]]  # stdout and stderr since the last call
    writes: list[Path] = field(default_factory=list)  # what a door may write to or into
    may_change: list[Path] = field(default_factory=list)  # files that a door appends to or replaces by wish
    seal: Callable[[], None] = lambda: None  # called when all the input is there: from here on nothing of it may change

    def copy(self, name: str, as_: str | None = None) -> Path:
        source, target = self.assets / name, self.root / (as_ or name)
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))

    def place(self, folder: Path, image_id: str = "damaged") -> Place:
        outside = self.root / "outside"
        outside.mkdir(exist_ok=True)
        return Place.drawn(self.rng, folder, image_id, self.seed, outside)

    def efp(self, *arguments) -> Ran:
        self.seal()
        self.printed()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *self.printed())

    @property
    def checkpoint(self) -> Path:
        return self.assets / "checkpoint"


Write = Callable[[np.random.Generator, Place], Case]
DOORS: dict[str, tuple[tuple[str, ...], Callable[[Write, Stage], None]]] = {}


def door(name: str, *subjects: str) -> Callable:
    """Registers an entry point for kinds of these subjects."""

    def register(function):
        DOORS[f"{name} ({', '.join(subjects)})" if name in DOORS else name] = (subjects, function)
        return function

    return register


# doors that answer in some milliseconds, with nothing that takes seconds to import
FAST_DOORS = ("efp predict", "load_isic", "load_checkpoint", "efp score", "efp card", "efp predict --resume")


def doors_of(kind: Kind) -> list[str]:
    names = [name for name, (subjects, _) in DOORS.items() if kind.subject in subjects]
    return [name for name in names if kind.doors is None or name.split(" (")[0] in kind.doors]


# What is right


@cache
def reference(checkpoint: Path):
    return load_checkpoint(checkpoint)


def expected_row(pixels: np.ndarray, stage: Stage) -> tuple[np.ndarray, dict]:
    """Mask and row of RGB pixels, from an ordinary PNG of them."""
    with stage_file(stage) as path:
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        (prediction,) = predict_files([path], *reference(stage.checkpoint))
    assert prediction.error is None, prediction.error
    return prediction.mask, table_row(prediction)


class stage_file:
    """A PNG outside of the case's folder, for as long as it is needed."""

    def __init__(self, stage: Stage):
        self.path = stage.root.parent / f"expected-{os.getpid()}.png"

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        self.path.unlink(missing_ok=True)


def what_pillow_says(path: Path) -> np.ndarray | None:
    """An upright picture on white as a careful person would read it by hand; `None` for what Pillow cannot read."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":
                return None
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in ("I", "F") or upright.mode.startswith("I;"):
                return None
            rgba = upright.convert("RGBA")
            alpha = np.asarray(rgba)[..., 3]
            if (alpha == 0).all():
                return None
            white = Image.new("RGBA", rgba.size, "white")
            return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    except Exception:
        return None


def check_mask(mask: np.ndarray, expected: np.ndarray) -> None:
    assert mask.shape == expected.shape, f"mask is {mask.shape}, expected {expected.shape}"
    different = np.count_nonzero(mask != expected) / mask.size
    most = MAX_DIFFERENT_REDUCED if min(mask.shape) > REDUCED_SIDE else MAX_DIFFERENT
    assert different <= most or np.count_nonzero(mask != expected) <= 2, (
        f"a wrong mask without a word: {different:.1%} of the pixels differ"
    )


def check_read(case: Case, mask: np.ndarray, row: dict, stage: Stage, note: str = "") -> None:
    """A case was read without an error: it may be, and the mask is that of its pixels."""
    assert case.outcome is not Outcome.REFUSED, "read, where an error was due"
    if note:
        assert case.outcome is not Outcome.READ, f"a note on what is right: {note}"
        return
    assert case.outcome is not Outcome.NOTED, "read without a note, where one was due"
    pixels = case.pixels if case.pixels is not None else what_pillow_says(case.path)
    assert pixels is not None, "read without a word, where Pillow says that it cannot be"
    expected, expected_values = expected_row(pixels, stage)
    check_mask(mask, expected)
    if row.get("mean_confidence") not in ("", None):
        apart = abs(float(row["mean_confidence"]) - float(expected_values["mean_confidence"]))
        assert apart <= MAX_CONFIDENCE_APART, f"wrong pixels without a word: the confidence is {apart:.4f} apart"


def check_refused(case: Case, message: str, *names: str) -> None:
    assert case.outcome is not Outcome.READ, f"refused, where it is right: {message.strip()[-300:]}"
    check_names(message, *(names or (case.path.name, *case.words)))


def check_names(message: str, *names: str) -> None:
    for name in names:
        bare = name.strip()
        forms = (bare, escaped(bare), repr(bare)[1:-1], bare.encode("unicode_escape").decode(), bare[:100])
        assert any(form in message for form in forms), f"{name[:60]!r} is not named: {message.strip()[-300:]!r}"


def check_printed(ran: Ran, codes: tuple[int, ...]) -> None:
    assert "Traceback" not in ran.err + ran.out, f"a traceback: {ran.err[-500:]}"
    assert ran.code in codes, f"exit code {ran.code} instead of {codes}: {ran.err.strip()[-300:]}"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def read_mask_file(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L", f"{path.name} has mode {picture.mode}"
        values = np.asarray(picture)
    assert np.isin(values, (0, 255)).all(), f"{path.name} holds other values than 0 and 255"
    return values == 255


# efp predict


def escaped(name: str) -> str:
    """A name as a table has it: what cannot be printed as an escape."""
    text = os.fsencode(name).decode("utf-8", errors="backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


@door("efp predict", "image", "photos")
def predict(write: Write, stage: Stage) -> None:
    folder = stage.copy("photos")
    good = sorted(folder.iterdir())
    case = write(stage.rng, stage.place(folder))
    output = stage.root / "masks"
    options = ["--checkpoint", stage.checkpoint, "--output", output, "--batch-size", [1, 2, 8][stage.rng.integers(3)]]
    if stage.rng.random() < 0.3:
        options.append("--overlays")
    if stage.rng.random() < 0.3:  # a mask of an earlier run and a file of someone else
        stage.copy("masks")
        stage.may_change += list(output.iterdir())
        (output / "notes.txt").write_text("keep")
        stale = output / f"{case.path.stem}_segmentation.png"
        if len(os.fsencode(stale.name)) < 255 and case.path.stem not in [path.stem for path in good]:
            write_mask(np.zeros((5, 5), bool), stale)
            stage.may_change.append(stale)
        options.append("--overwrite")
    stage.writes.append(output)
    by_name = stage.rng.random() < 0.4 and case.outcome is not Outcome.UNSEEN and "\n" not in str(case.path)
    ran = stage.efp("predict", *([*good, case.path] if by_name else [folder]), *options)
    check_printed(ran, (0, 1))
    table = rows_of(output / "predictions.csv")
    for path in good:
        (row,) = [row for row in table if row["image"] == path.name and not row["error"]]
        mask = read_mask_file(output / f"{path.stem}_segmentation.png")
        check_mask(mask, read_mask_file(stage.assets / "masks" / f"{path.stem}_segmentation.png"))
        assert int(row["lesion_pixels"]) == np.count_nonzero(mask), "the row is another mask's"
    names = (escaped(case.path.name), "'" + escaped(case.path.name))  # a spreadsheet would take some for a formula
    rows = [row for row in table if row["image"] in names]
    if case.outcome is Outcome.UNSEEN:
        assert not rows, "a file that nobody asked for has a row"
        return
    if not rows and not by_name and case.path.is_dir():
        return  # a folder is no image of a folder
    assert len(rows) == 1, f"{len(rows)} rows of the file"
    mask_file = output / f"{case.path.stem}_segmentation.png"
    others = [path.stem for path in good]
    if rows[0]["error"]:
        assert ran.code == 1, "a failed file, and exit code 0"
        check_refused(case, ran.err)
        check_names(rows[0]["error"], case.path.name)
        with_mask = len(os.fsencode(mask_file.name)) < 255 and mask_file.exists()
        assert not with_mask or case.path.stem in others, "a mask of a file that could not be read"
    else:
        assert ran.code == (1 if any(row["error"] for row in table) else 0), "exit code"
        check_read(case, read_mask_file(mask_file), rows[0], stage, rows[0].get("note", ""))


@door("efp predict --data", "shard")
def predict_shards(write: Write, stage: Stage) -> None:
    folder = stage.copy("photos", "shards")
    case = write(stage.rng, stage.place(folder))
    output = stage.root / "masks"
    stage.writes.append(output)
    ran = stage.efp("predict", "--data", folder, "--checkpoint", stage.checkpoint, "--output", output)
    check_printed(ran, (0, 1, 2))
    (what,) = case.inputs
    table = rows_of(output / "predictions.csv") if (output / "predictions.csv").exists() else []
    good = [row for row in table if Path(row["image"]).stem.startswith("good") and not row["error"]]
    for row in good if case.outcome is not Outcome.JUDGED or what != "shard" else ():  # flipped pixels are others
        mask = f"{Path(row['image']).stem}_segmentation.png"
        check_mask(read_mask_file(output / mask), read_mask_file(stage.assets / "masks" / mask))
    if what == "shard":
        assert ran.code or case.outcome is Outcome.JUDGED, "read, where an error was due"
        if ran.code:
            check_names(ran.err, "shards" if not any(row["error"] for row in table) else "")
        return
    assert ran.code == (0 if case.outcome is Outcome.READ else ran.code), ran.err[-300:]
    assert len(good) == 3, "good photos are lost"
    if what == "row":
        (row,) = [row for row in table if row not in good]
        assert bool(row["error"]) == (case.outcome is Outcome.REFUSED) == (ran.code == 1), (
            f"exit code {ran.code}: {row}"
        )


# Datasets


def put_into(data: Path, split: str, write: Write, stage: Stage) -> Case:
    """A damaged image with a right mask, in one of the dataset's splits."""
    images = data / f"ISIC2018_Task1-2_{SPLITS[split]}_Input"
    masks = data / f"ISIC2018_Task1_{SPLITS[split]}_GroundTruth"
    place = stage.place(images)
    case = write(stage.rng, place)
    truth = place.truth
    if case.outcome is not Outcome.UNSEEN:
        pixels = case.pixels if case.pixels is not None else what_pillow_says(case.path)
        if pixels is not None and pixels.shape[:2] != truth.shape:
            truth = np.resize(truth, pixels.shape[:2])
        name = case.path.stem if len(os.fsencode(case.path.stem)) > 230 else f"{case.path.stem}_segmentation"
        Image.fromarray(truth.astype(np.uint8) * 255).save(masks / f"{name}.png")
    case.truth = truth
    return case


def damaged_data(write: Write, stage: Stage, split: str, subject: str) -> tuple[Path, Case]:
    """A dataset whose `split` has a damaged image or mask, or that is damaged itself."""
    data = stage.copy("data")
    if subject == "image":
        return data, put_into(data, split, write, stage)
    if subject == "data":
        return data, write(stage.rng, stage.place(data))
    place = stage.place(data / f"ISIC2018_Task1_{SPLITS[split]}_GroundTruth")
    Image.fromarray(place.photo).save(data / f"ISIC2018_Task1-2_{SPLITS[split]}_Input" / f"{place.image_id}.png")
    return data, write(stage.rng, place)


def load_damaged(subject: str):
    def load(write: Write, stage: Stage) -> None:
        from efp_hf.data.folders import load_isic

        split = str(stage.rng.choice(list(SPLITS)))
        data, case = damaged_data(write, stage, split, subject)
        stage.seal()
        stage.printed()
        stage.writes.append(stage.root / "cache")
        max_side = [None, 40, 512][int(stage.rng.integers(3))]
        try:
            loaded = load_isic(data, max_side=max_side, cache_dir=stage.root / "cache")
            rows = {row["image_id"]: row for part in SPLITS for row in loaded[part]}
        except (OSError, ValueError) as error:
            check_refused(case, str(error), *named_in_data(case, subject))
            return
        said = "".join(stage.printed())
        if case.outcome is Outcome.NOTED and any(word in said for word in (case.path.stem, *case.words)):
            return
        good = sum(GOOD_ROWS.values())
        assert len(rows) == good + (0 if subject == "data" or case.outcome is Outcome.UNSEEN else 1), "rows are lost"
        if subject == "data" or case.outcome is Outcome.UNSEEN:
            assert case.outcome is not Outcome.REFUSED, "read, where an error was due"
            return
        image_id = case.path.stem if subject == "image" else "damaged"
        row = rows.get(image_id) or next((row for name, row in rows.items() if image_id[:20] in name), None)
        assert row is not None, "its row is lost"
        if subject == "image":
            if max_side is not None and max_side < max(case.truth.shape):
                assert case.outcome not in (Outcome.REFUSED, Outcome.NOTED), "read, where an error was due"
                return  # reduced: other pixels, and no photo of its size to compare with
            (result,) = segment([row["image"]], *reference(stage.checkpoint))
            check_read(case, result["segmentation"].numpy(), {}, stage)
        else:
            assert case.outcome not in (Outcome.REFUSED, Outcome.NOTED), "read, where an error was due"
            if max_side != 40:
                found = np.asarray(row["mask"].convert("L")) == 255
                check_mask(found, case.truth)

    return load


def named_in_data(case: Case, subject: str) -> tuple[str, ...]:
    if subject == "data":
        return case.words or (case.path.name,)
    return case.words or (case.path.stem.removesuffix("_segmentation"),)


for _subject in ("image", "mask", "data"):
    door("load_isic", _subject)(load_damaged(_subject))


def score_damaged(subject: str):
    def score(write: Write, stage: Stage) -> None:
        data, case = damaged_data(write, stage, "test", subject)
        output = stage.root / "scores"
        stage.writes.append(output)
        ran = stage.efp("score", "--data", data, "--checkpoint", stage.checkpoint, "--output", output)
        check_printed(ran, (0, 2))
        if ran.code:
            check_refused(case, ran.err, *named_in_data(case, subject))
            assert not (output / "scores.csv").exists(), "a row of scores that were not made"
            return
        assert_accepted(case, ran, subject)
        if case.outcome is Outcome.NOTED:
            return
        (row,) = rows_of(output / "scores.csv")
        more = subject != "data" and case.outcome is not Outcome.UNSEEN
        assert int(row["images"]) == GOOD_ROWS["test"] + more, "images are lost"

    return score


def assert_accepted(case: Case, ran: Ran, subject: str) -> None:
    assert case.outcome is not Outcome.REFUSED, "accepted, where an error was due"
    if case.outcome is Outcome.NOTED:
        check_names(ran.err + ran.out, *named_in_data(case, subject))
    if subject == "image" and case.outcome is Outcome.JUDGED:
        pixels = case.pixels if case.pixels is not None else what_pillow_says(case.path)
        assert pixels is not None, "accepted, where Pillow cannot read it"


for _subject in ("image", "mask", "data"):
    door("efp score", _subject)(score_damaged(_subject))


def train_damaged(subject: str):
    def train(write: Write, stage: Stage) -> None:
        data, case = damaged_data(write, stage, "train", subject)
        output = stage.root / "trained"
        stage.writes.append(output)
        command = [*TRAIN, "--output", output, "--max-steps", "1"]
        command[command.index("data")] = data
        command[command.index("checkpoint")] = stage.checkpoint
        ran = stage.efp(*command)
        check_printed(ran, (0, 2))
        if ran.code:
            check_refused(case, ran.err, *named_in_data(case, subject))
            assert not (output / "model.safetensors").exists(), "weights of a training that was refused"
            return
        assert_accepted(case, ran, subject)
        load_checkpoint(output)
        rows_of(output / "training.csv")

    return train


for _subject in ("image", "mask", "data"):
    door("efp train", _subject)(train_damaged(_subject))


def calibrate_damaged(subject: str):
    def calibrate(write: Write, stage: Stage) -> None:
        data, case = damaged_data(write, stage, "validation", subject)
        checkpoint = stage.copy("checkpoint")
        before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
        stage.writes.append(stage.root / "calibration")
        stage.may_change += list(checkpoint.iterdir())
        ran = stage.efp("calibrate", "--data", data, "--checkpoint", checkpoint, FEW_IMAGES)
        check_printed(ran, (0, 2))
        if ran.code:
            check_refused(case, ran.err, *named_in_data(case, subject))
            assert before == {path.name: path.read_bytes() for path in checkpoint.iterdir()}, "the checkpoint changed"
            return
        assert_accepted(case, ran, subject)
        load_checkpoint(checkpoint)

    return calibrate


for _subject in ("mask", "data"):
    door("efp calibrate", _subject)(calibrate_damaged(_subject))


@door("efp score --masks", "mask")
def score_masks(write: Write, stage: Stage) -> None:
    data = stage.copy("data")
    images, truths = data / "ISIC2018_Task1-2_Test_Input", data / "ISIC2018_Task1_Test_GroundTruth"
    place = stage.place(stage.root / "masks")
    place.folder.mkdir()
    Image.fromarray(place.photo).save(images / f"{place.image_id}.png")
    for folder in (truths, place.folder):
        Image.fromarray(place.truth.astype(np.uint8) * 255).save(folder / f"{place.image_id}_segmentation.png")
    for path in truths.iterdir():
        if path.stem != f"{place.image_id}_segmentation":
            shutil.copy(path, place.folder)
    (place.folder / f"{place.image_id}_segmentation.png").unlink()
    case = write(stage.rng, place)
    stage.writes.append(stage.root / "scores")
    ran = stage.efp("score", "--data", data, "--masks", place.folder)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err)
        assert not (stage.root / "scores" / "scores.csv").exists(), "a row of scores that were not made"
        return
    assert case.outcome is not Outcome.REFUSED, "scored, where an error was due"
    (row,) = rows_of(stage.root / "scores" / "scores.csv")
    union, overlap = (case.truth | place.truth).sum(), (case.truth & place.truth).sum()
    expected = (1 + (overlap / union if union else 1)) / 2
    assert abs(float(row["jaccard"]) - expected) < 1e-4, f"a wrong score without a word: {row['jaccard']}, {expected}"


# Tables


def check_rows_stay(before: bytes, path: Path) -> None:
    """Whole lines of a table that was appended to are still there, and the last row is a row of its own."""
    after = path.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert after.startswith(whole), "earlier rows are lost"
    csv.field_size_limit(10**7)
    rows = list(csv.reader(io.StringIO(after.decode("utf-8"), newline="")))
    csv.field_size_limit(131_072)
    assert len(rows[-1]) == len(rows[0]), f"the new row has {len(rows[-1])} fields of {len(rows[0])}"


def content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def appended(ran: Ran, case: Case, before: bytes | None) -> None:
    """A command that appends to a damaged table: refused by name before the work, or done right."""
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, case.path.name)
        assert content(case.path) == before, "refused, and the table changed"
    elif before is not None:
        check_rows_stay(before, case.path)


@door("efp score", "table")
def score_table(write: Write, stage: Stage) -> None:
    table = stage.copy("scores/scores.csv")
    case = write(stage.rng, stage.place(table.parent, table.name))
    before = content(table)
    stage.may_change.append(table)
    appended(stage.efp("score", "--data", stage.assets / "data", "--checkpoint", stage.checkpoint), case, before)


@door("efp calibrate", "table")
def calibrate_table(write: Write, stage: Stage) -> None:
    folder = stage.copy("calibration")
    checkpoint = stage.copy("checkpoint")
    table = folder / ["postprocessing.csv", "jaccard_temperature.csv"][stage.seed % 2]
    case = write(stage.rng, stage.place(folder, table.name))
    before = content(table)
    stage.may_change += [*folder.iterdir(), *checkpoint.iterdir()]
    ran = stage.efp("calibrate", "--data", stage.assets / "data", "--checkpoint", checkpoint, FEW_IMAGES)
    appended(ran, case, before)


@door("efp train", "table")
def train_table(write: Write, stage: Stage) -> None:
    trained = stage.copy("trained")
    case = write(stage.rng, stage.place(trained, "training.csv"))
    before = content(case.path)
    stage.writes.append(trained)
    stage.may_change += list(trained.rglob("*"))
    command = [*TRAIN, "--output", trained, "--max-steps", "1", "--overwrite"]
    command[command.index("data")] = stage.assets / "data"
    command[command.index("checkpoint")] = stage.checkpoint
    appended(stage.efp(*command), case, before)


@door("efp card", "table")
def card_table(write: Write, stage: Stage) -> None:
    checkpoint = stage.copy("checkpoint")
    if stage.seed % 2:
        table = stage.copy("scores/scores.csv")
    else:
        stage.copy("scores/scores.csv")
        table = stage.copy("trained/training.csv", "checkpoint/training.csv")
    case = write(stage.rng, stage.place(table.parent, table.name))
    stage.may_change.append(checkpoint / "README.md")
    stage.writes.append(checkpoint / "README.md")
    ran = stage.efp("card", "--checkpoint", checkpoint)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, case.path.name)
        assert not (checkpoint / "README.md").exists(), "half a card"


@door("efp predict --resume", "table")
def resume_table(write: Write, stage: Stage) -> None:
    masks = stage.copy("masks")
    case = write(stage.rng, stage.place(masks, "predictions.csv"))
    before = content(case.path)
    stage.writes.append(masks)
    stage.may_change += list(masks.iterdir())
    wish = ["--resume", "--overwrite"][stage.seed % 2]
    # the photos by the same absolute path as in the table
    ran = stage.efp("predict", stage.assets / "photos", "--checkpoint", stage.checkpoint, "--output", masks, wish)
    check_printed(ran, (0, 1, 2))
    if ran.code:
        check_refused(case, ran.err, case.path.name)
        assert content(case.path) == before, "refused, and the table changed"
        return
    photos = sorted(path.name for path in (stage.assets / "photos").iterdir())
    assert sorted(row["image"] for row in rows_of(case.path)) == photos, "the table has not one row a photo"
    for name in photos:
        mask = f"{Path(name).stem}_segmentation.png"
        check_mask(read_mask_file(masks / mask), read_mask_file(stage.assets / "masks" / mask))


@door("load_isic", "table")
def load_metadata(write: Write, stage: Stage) -> None:
    from efp_hf.data.folders import load_isic

    data = stage.copy("undivided")
    case = write(stage.rng, stage.place(data, "metadata.csv"))
    stage.seal()
    stage.writes.append(stage.root / "cache")
    try:
        loaded = load_isic(data, cache_dir=stage.root / "cache")
    except (OSError, ValueError) as error:
        check_refused(case, str(error), case.path.name)
        return
    assert sum(len(loaded[split]) for split in SPLITS) == 20, "rows are lost"


# Checkpoints and exports


def predict_with(checkpoint: Path, case: Case, stage: Stage, names: tuple[str, ...], options=()) -> None:
    output = stage.root / "masks"
    stage.writes.append(output)
    ran = stage.efp("predict", stage.assets / "photos", "--checkpoint", checkpoint, "--output", output, *options)
    check_printed(ran, (0, 1, 2))
    if ran.code == 2:
        check_refused(case, ran.err, *names)
        assert not output.exists() or not any(output.iterdir()), "refused, and something is written"
        return
    table = rows_of(output / "predictions.csv")
    failed = [row for row in table if row["error"]]
    assert (ran.code == 1) == bool(failed), "exit code"
    if failed:
        assert case.outcome is not Outcome.READ and len(failed) == len(table), "some of the photos failed"
        return
    assert case.outcome is not Outcome.REFUSED, "loaded and used, where an error was due"
    check_same_rows(table, rows_of(stage.assets / "masks" / "predictions.csv"))


def check_same_rows(table: list[dict], expected: list[dict]) -> None:
    assert len(table) == len(expected)
    for row, right in zip(table, expected, strict=True):
        for name, apart in (("lesion_share", 0.01), ("mean_confidence", 0.005), ("expected_jaccard", 0.01)):
            assert row[name] and abs(float(row[name]) - float(right[name])) <= apart, (
                f"a wrong mask without a word: {name} is {row[name]} instead of {right[name]}"
            )


def names_of(case: Case, folder: Path) -> tuple[str, ...]:
    """What an error about a checkpoint names: the folder, and the field where it is one of a configuration."""
    return (folder.name, *(word for word in case.words if word != folder.name))


@door("efp predict", "configuration", "weights")
def predict_checkpoint(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    predict_with(folder, case, stage, names_of(case, folder))


@door("load_checkpoint", "configuration", "weights")
def load(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    stage.seal()
    try:
        model, processor = load_checkpoint(folder)
        photos = sorted((stage.assets / "photos").iterdir())
        predictions = list(predict_files(photos, model, processor))
    except (OSError, ValueError) as error:
        check_refused(case, str(error), *names_of(case, folder))
        return
    failed = [prediction for prediction in predictions if prediction.error]
    if failed:
        assert case.outcome is not Outcome.READ and len(failed) == len(predictions), "some of the photos failed"
        return
    assert case.outcome is not Outcome.REFUSED, "loaded and used, where an error was due"
    rows = [table_row(prediction) for prediction in predictions]
    check_same_rows(
        [{name: str(value) for name, value in row.items()} for row in rows],
        rows_of(stage.assets / "masks" / "predictions.csv"),
    )


@door("from_pretrained", "configuration")
def from_pretrained(write: Write, stage: Stage) -> None:
    """The two classes by themselves: an error of theirs is one of the documented types."""
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    stage.seal()
    cls = EFPImageProcessor if case.path.name.startswith("preprocessor") else EFPForSegmentation
    try:
        cls.from_pretrained(folder)
    except (OSError, ValueError) as error:
        check_names(str(error), *[word for word in case.words if word != folder.name])


@door("efp export --to hub", "configuration", "weights")
def export_checkpoint(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    output = stage.root / "exported"
    stage.writes.append(output)
    ran = stage.efp("export", "--to", "hub", "--checkpoint", folder, "--output", output)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, *names_of(case, folder))
        assert not output.exists(), "refused, and something is written"
        return
    assert case.outcome is not Outcome.REFUSED, "exported, where an error was due"
    load_checkpoint(output)


@door("efp train --checkpoint", "configuration", "weights")
def train_checkpoint(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    output = stage.root / "trained"
    stage.writes.append(output)
    command = [*TRAIN, "--output", output, "--max-steps", "1"]
    command[command.index("data")] = stage.assets / "data"
    command[command.index("checkpoint")] = folder
    ran = stage.efp(*command)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, *names_of(case, folder))
        assert not (output / "model.safetensors").exists(), "weights of a training that was refused"
        return
    assert case.outcome is not Outcome.REFUSED, "trained, where an error was due"
    load_checkpoint(output)


@door("efp calibrate", "configuration", "weights")
def calibrate_checkpoint(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    before = {path.name: content(path) for path in folder.iterdir()}
    stage.writes += [stage.root / "calibration", folder]
    stage.may_change += list(folder.iterdir())
    ran = stage.efp("calibrate", "--data", stage.assets / "data", "--checkpoint", folder, FEW_IMAGES)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, *names_of(case, folder))
        assert before == {path.name: content(path) for path in folder.iterdir()}, "the checkpoint changed"
        return
    assert case.outcome is not Outcome.REFUSED, "calibrated, where an error was due"
    load_checkpoint(folder)


@door("efp card", "configuration")
def card_checkpoint(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    scores = stage.copy("scores/scores.csv")
    case = write(stage.rng, stage.place(folder))
    stage.writes.append(folder / "README.md")
    ran = stage.efp("card", "--checkpoint", folder, "--scores", scores)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, *names_of(case, folder))
        assert not (folder / "README.md").exists(), "half a card"


@door("efp score", "configuration", "weights")
def score_checkpoint(write: Write, stage: Stage) -> None:
    folder = stage.copy("checkpoint", "my-checkpoint")
    case = write(stage.rng, stage.place(folder))
    stage.writes.append(stage.root / "scores")
    ran = stage.efp("score", "--data", stage.assets / "data", "--checkpoint", folder)
    check_printed(ran, (0, 2))
    table = stage.root / "scores" / "scores.csv"
    if ran.code:
        check_refused(case, ran.err, *names_of(case, folder))
        assert not table.exists(), "a row of scores that were not made"
        return
    assert case.outcome is not Outcome.REFUSED, "scored, where an error was due"
    (row,), right = rows_of(table), rows_of(stage.assets / "scores" / "scores.csv")[0]
    assert abs(float(row["jaccard"]) - float(right["jaccard"])) < 0.01, "a wrong score without a word"


@door("efp train --resume", "training")
def resume_training(write: Write, stage: Stage) -> None:
    trained = stage.copy("trained")
    case = write(stage.rng, stage.place(trained))
    stage.writes.append(trained)
    stage.may_change += list(trained.rglob("*"))
    command = [*TRAIN, "--output", trained, "--max-steps", "6", "--save-steps", "2", "--resume"]
    command[command.index("data")] = stage.assets / "data"
    command[command.index("checkpoint")] = stage.checkpoint
    ran = stage.efp(*command)
    check_printed(ran, (0, 2))
    if ran.code:
        check_refused(case, ran.err, *(case.words or (trained.name,)))
        return
    assert case.outcome is not Outcome.REFUSED, "resumed, where there was nothing to go on from"
    load_checkpoint(trained)
    steps = json.loads((trained / "checkpoint-6" / "trainer_state.json").read_text())["global_step"]
    assert steps == 6, f"{steps} steps"


def exported(stage: Stage) -> Path:
    return stage.copy(["onnx", "openvino"][stage.seed % 2], "my-export")


@door("efp predict", "export")
def predict_export(write: Write, stage: Stage) -> None:
    folder = exported(stage)
    case = write(stage.rng, stage.place(folder))
    predict_with(folder, case, stage, names_of(case, folder))


@door("load_checkpoint", "export")
def load_export(write: Write, stage: Stage) -> None:
    folder = exported(stage)
    case = write(stage.rng, stage.place(folder))
    stage.seal()
    try:
        load_checkpoint(folder)
    except (OSError, ValueError) as error:
        check_refused(case, str(error), folder.name)
        return
    assert case.outcome is not Outcome.REFUSED, "loaded, where an error was due"


# Arguments


def given(command: Callable[[Stage, str], list]):
    """A command with a strange path: done, or refused in one sentence that names it, with nothing else written."""

    def door_function(write: Write, stage: Stage) -> None:
        folder = stage.root / "somewhere"
        folder.mkdir()
        case = write(stage.rng, stage.place(folder))
        (value,) = case.inputs
        arguments = command(stage, value)
        stage.writes.append(folder)
        stage.writes.append(stage.root / "~nobody-of-this-name")
        stage.writes += [stage.root / "https:", stage.root / "someone"]
        ran = stage.efp(*arguments)
        check_printed(ran, (0, 1, 2))
        if ran.code:
            check_names(ran.err, case.path.name[:50])

    return door_function


def with_output(stage: Stage, value: str, command: str) -> list:
    common = ["--checkpoint", stage.checkpoint, f"--output={value}"]
    return {
        "predict": ["predict", stage.assets / "photos", *common],
        "score": ["score", "--data", stage.assets / "data", *common],
        "export": ["export", "--to", "hub", *common],
        "calibrate": [
            "calibrate",
            "--data",
            stage.assets / "data",
            "--checkpoint",
            stage.copy("checkpoint"),
            common[2],
            FEW_IMAGES,
        ],
        "train": [*train_with(stage, value), "--max-steps", "1"],
    }[command]


def train_with(stage: Stage, output: str) -> list:
    command = [*TRAIN, f"--output={output}"]
    command[command.index("data")] = stage.assets / "data"
    command[command.index("checkpoint")] = stage.checkpoint
    return command


for _command in ("predict", "score", "export", "calibrate", "train"):

    def _with(stage, value, command=_command):
        if command == "calibrate":
            stage.may_change += [
                stage.root / "checkpoint" / name for name in ("config.json", "preprocessor_config.json")
            ]
        return with_output(stage, value, command)

    door(f"efp {_command} --output", "arguments")(given(_with))
door("efp predict --checkpoint", "arguments")(
    given(
        lambda stage, value: [
            "predict",
            stage.assets / "photos",
            f"--checkpoint={value}",
            "--output",
            stage.root / "somewhere" / "masks",
        ]
    )
)
door("efp score --data", "arguments")(
    given(
        lambda stage, value: [
            "score",
            f"--data={value}",
            "--checkpoint",
            stage.checkpoint,
            "--output",
            stage.root / "somewhere" / "scores",
        ]
    )
)


@door("efp predict INPUT", "arguments")
def predict_input(write: Write, stage: Stage) -> None:
    """A strange path among good ones: the good ones are done."""
    folder = stage.root / "somewhere"
    folder.mkdir()
    case = write(stage.rng, stage.place(folder))
    (value,) = case.inputs
    output = stage.root / "masks"
    stage.writes.append(output)
    ran = stage.efp(
        "predict", stage.assets / "photos", "--checkpoint", stage.checkpoint, "--output", output, "--", value
    )
    check_printed(ran, (1, 2))
    check_names(ran.err, case.path.name[:50])
    if ran.code == 1:
        good = [row for row in rows_of(output / "predictions.csv") if not row["error"]]
        assert len(good) == 3, "good photos are lost"


# The page's functions


@cache
def endpoints(checkpoint: Path):
    from efp_hf.page.api import Endpoints

    return Endpoints(*reference(checkpoint))


@cache
def handlers(checkpoint: Path):
    from efp_hf.page.handlers import Handlers

    return Handlers(*reference(checkpoint), evidence="")


def answer(stage: Stage, function: Callable, *arguments) -> tuple[object, str | None]:
    """What a function of the page gives back, or the message that it shows."""
    import gradio as gr

    stage.seal()
    folder = stage.root / "gradio"
    folder.mkdir(exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    stage.writes.append(folder)
    try:
        return function(*arguments), None
    except gr.Error as error:
        message = str(error.message)
        assert message, "an empty message"
        assert str(stage.root) not in message, f"a folder of the server is shown: {message}"
        return None, message


def upload_image(write: Write, stage: Stage) -> Case:
    folder = stage.root / "uploads"
    folder.mkdir()
    return write(stage.rng, stage.place(folder))


def in_html(name: str) -> str:
    from html import escape

    return escape(name)


@door("page: segment", "image")
def page_segment(write: Write, stage: Stage) -> None:
    case = upload_image(write, stage)
    found, message = answer(stage, endpoints(stage.checkpoint).segment, str(case.path), 0.5, False)
    if message is not None:
        check_refused(case, message, in_html(case.path.name))
        return
    data, mask = found
    json.dumps(data, allow_nan=False)
    check_read(case, read_mask_file(Path(mask)), data, stage, data.get("note") or "")


@door("page: click on Segment", "image")
def page_click(write: Write, stage: Stage) -> None:
    case = upload_image(write, stage)
    page = handlers(stage.checkpoint)
    found, message = answer(stage, page.segment_upload, str(case.path), 0.5, False)
    if message is not None:
        check_refused(case, message, in_html(case.path.name))
        return
    photo, view, _ = found
    assert case.outcome is not Outcome.REFUSED, "read, where an error was due"
    assert str(stage.root) not in view, "a folder of the server is shown"
    tab = ["Measure", "Trust", "Look inside"][stage.seed % 3]
    answer(stage, page.update_tab, tab, photo, 0.5, False, None, None)


@door("page: segment_many", "image")
def page_many(write: Write, stage: Stage) -> None:
    good = stage.copy("photos")
    case = upload_image(write, stage)
    files = [*sorted(good.iterdir()), case.path]
    found, message = answer(stage, endpoints(stage.checkpoint).segment_many, [str(path) for path in files], 0.5, False)
    assert message is None, f"good photos are lost: {message}"
    rows, archive = found
    assert len(rows) == len(files), "not one row a file"
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        assert all(f"{path.stem}_segmentation.png" in names for path in good.iterdir()), "good masks are lost"
        assert len(names) == len(set(names)) and "predictions.csv" in names
    assert not any(row["error"] for row in rows[:3]), "good photos failed"
    if rows[3]["error"]:
        check_refused(case, rows[3]["error"], case.path.name)
        assert str(stage.root) not in rows[3]["error"], "a folder of the server is shown"
    else:
        with zipfile.ZipFile(archive) as packed, packed.open(f"{case.path.stem}_segmentation.png") as file:
            mask = np.asarray(Image.open(io.BytesIO(file.read()))) == 255
        check_read(case, mask, rows[3], stage, rows[3].get("note", ""))


@door("page: compare", "mask")
def page_compare(write: Write, stage: Stage) -> None:
    folder = stage.root / "uploads"
    folder.mkdir()
    place = stage.place(folder)
    photo = folder / "photo.png"
    Image.fromarray(place.photo).save(photo)
    case = write(stage.rng, place)
    found, message = answer(stage, endpoints(stage.checkpoint).compare, str(photo), str(case.path), 0.5, False)
    if message is not None:
        # of another size: the photo is named
        check_refused(case, message, photo.name if photo.name in message else in_html(case.path.name))
        return
    assert case.outcome is not Outcome.REFUSED, "compared, where an error was due"
    mask, _ = expected_row(place.photo, stage)
    pixels = found["pixels"]
    assert sum(pixels.values()) <= mask.size
    right = np.count_nonzero(mask & case.truth) / max(1, np.count_nonzero(mask | case.truth))
    if case.truth.any():
        assert abs(found["jaccard"] - right) < 0.01, f"a wrong score without a word: {found['jaccard']}, not {right}"


@door("page: segment_many", "zip")
def page_zip(write: Write, stage: Stage) -> None:
    good = stage.copy("photos")
    folder = stage.root / "uploads"
    folder.mkdir()
    case = write(stage.rng, stage.place(folder))
    files = [*sorted(good.iterdir()), case.path]
    found, message = answer(stage, endpoints(stage.checkpoint).segment_many, [str(path) for path in files], 0.5, False)
    if message is not None:
        # a zip that cannot be opened, or a batch that is too large, is refused as a whole
        assert case.outcome is not Outcome.READ, message
        assert case.path.name in message or "batch" in message, f"neither zip nor limit is named: {message}"
        leftovers = [path for path in (stage.root / "gradio").rglob("*") if path.is_file()]
        assert not leftovers, f"refused, and {leftovers[0].name} is left"
        return
    assert case.outcome is not Outcome.REFUSED or found[0][3:] == [], "read, where an error was due"
    rows, archive = found
    assert not any(row["error"] for row in rows[:3]), "good photos failed"
    assert not any(str(stage.root) in str(row["error"]) for row in rows), "a folder of the server is shown"
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        assert packed.testzip() is None
    assert len(names) == sum(not row["error"] for row in rows) + 1, "not one mask a good row"
    if case.outcome is Outcome.READ:
        assert "good_segmentation.png" in names


@door("page: functions", "page")
def page_arguments(write: Write, stage: Stage) -> None:
    folder = stage.root / "uploads"
    folder.mkdir()
    case = write(stage.rng, stage.place(folder))
    name, value = case.inputs
    photo = str(stage.copy("photos") / "good0.png")
    values = {"image": photo, "truth": photo, "files": [photo], "threshold": 0.5, "largest_region": False}
    values |= {"pixels_per_mm": 0, name: value}
    functions = {
        "segment": ("image", "threshold", "largest_region"),
        "measure": ("image", "pixels_per_mm", "threshold", "largest_region"),
        "trust": ("image", "threshold", "largest_region"),
        "compare": ("image", "truth", "threshold", "largest_region"),
        "look_inside": ("image",),
        "segment_many": ("files", "threshold", "largest_region"),
    }
    taking = [function for function, names in functions.items() if name in names]
    for function in taking:
        arguments = [values[argument] for argument in functions[function]]
        found, message = answer(stage, getattr(endpoints(stage.checkpoint), function), *arguments)
        if message is None and function not in ("segment_many", "segment"):
            json.dumps(found, allow_nan=False)
        if message is None and name in ("image", "truth", "files") and value not in (None, photo):
            assert function == "segment_many" and all(row["error"] for row in found[0]), f"{function} took {value!r}"


def prepare() -> None:
    """Imports that each child would repeat."""
    import datasets  # noqa: F401
    import evaluate  # noqa: F401
    import gradio  # noqa: F401

    import efp_hf.page.api
    import efp_hf.page.handlers
    import efp_hf.training.trainer  # noqa: F401
