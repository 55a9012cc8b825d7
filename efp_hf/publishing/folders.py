"""The folders that are uploaded: of a model, and of the Space that shows it."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import ModelCard, SpaceCard

from ..configuration_efp import EFPConfig
from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import DEFAULT_CHECKPOINT, SHIPPED_CHECKPOINTS, TRAINING_IMAGES, find_checkpoint
from ..inference.export import CARD, EXPORT_FORMATS, export_model, save_for_hub
from ..inference.runtimes import runtime_of
from ..inference.task import class_names_of
from ..lesion.structures import LABELS
from ..metrics.card import LESION
from ..modeling_efp import EFPForSegmentation

PACKAGE = Path(__file__).parents[1]
CLONE = PACKAGE.parent
EVAL_RESULTS = ".eval_results"  # folder of YAML files: https://huggingface.co/docs/hub/eval-results
SPACE = Path(__file__).with_name("space")  # what a Space has beside app.py and the package
SPACE_FILES = ("app.py", "requirements.txt", "LICENSE")  # beside the card
APP = '''\
"""The web page from a clone or on a Space; installed, it is `efp app`, which has the same options."""

import sys

from efp_hf.commands.app import main

if __name__ == "__main__":
    sys.exit(main())
'''
LEFT_OUT = ("study", "checkpoints")  # folders of the package: numbers of the project, and weights of other models
PACKAGE_SUFFIXES = (".py", ".css", ".js", ".html", ".md", ".jinja")
CHECKPOINT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", CARD, TRAINING_IMAGES)
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
IMAGES_OF_DATA = re.compile(r"<!-- images of the data -->.*?<!-- /images of the data -->\n", re.DOTALL)
BASE_MODEL = re.compile(rf"^base_model: (?=(?:{'|'.join(SHIPPED_CHECKPOINTS)})$)", re.MULTILINE)
DRAWING = re.compile(r"!\[[^\]]*\]\(([\w./-]+\.svg)\)")


def write_model_folder(
    checkpoint: str | Path,
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    folder: Path,
    repo: str,
    exports: Iterable[str] = (),
    with_fingerprint: bool = True,
) -> None:
    """
    Write a checkpoint as it will lie on the Hub: what [`save_for_hub`] writes, `.eval_results/`, the drawings of the
    card, and a folder a runtime. The card's code names the repository.

    Args:
        checkpoint: a shipped one or a folder, that `model` and `processor` were loaded from.
        folder: new.
        repo: its name on the Hub, "owner/name".
        exports: "onnx", "openvino" or "executorch", exported on the way, or folders that [`export_model`] wrote.
        with_fingerprint: take `training_images.csv` along.

    Raises:
        ValueError: an export that is neither a runtime nor such a folder, or two of one runtime.
        ImportError: as [`export_model`].
    """
    source = Path(find_checkpoint(checkpoint))
    given = exported_folders(exports)
    fingerprint = source / TRAINING_IMAGES if with_fingerprint and (source / TRAINING_IMAGES).is_file() else None
    save_for_hub(model, processor, folder, fingerprint=fingerprint)
    if (source / CARD).is_file():
        text = published_card(source / CARD, source.name, repo)
        write_card(folder / CARD, text)
        for name in DRAWING.findall(text):
            if (source / name).is_file() and (source / name).resolve().is_relative_to(source.resolve()):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
    if (source / EVAL_RESULTS).is_dir():
        shutil.copytree(source / EVAL_RESULTS, folder / EVAL_RESULTS)
    for runtime, exported in given.items():
        if exported is None:
            export_model(model, processor, folder / runtime, runtime)
        else:
            leave_out = shutil.ignore_patterns(TRAINING_IMAGES)  # one in the repository is enough
            shutil.copytree(exported, folder / runtime, ignore=leave_out)


def exported_folders(exports: Iterable[str]) -> dict[str, Path | None]:
    """Runtime → the folder that is exported for it, or `None` where it has yet to be made."""
    found = {}
    for export in exports:
        path = None if export in EXPORT_FORMATS else Path(export).expanduser()
        runtime = export if path is None else runtime_of(path)
        if runtime not in EXPORT_FORMATS:
            raise ValueError(
                f"`--exports` must be {', '.join(EXPORT_FORMATS)} or folders of `efp export`, got {export}. "
                "Name a runtime to export on the way."
            )
        if runtime in found:
            raise ValueError(f"`--exports` must name a runtime once, got two of {runtime}. Leave one out.")
        found[runtime] = path
    return found


def write_space_folder(checkpoint: str | Path, folder: Path, repo: str, with_fingerprint: bool = True) -> None:
    """
    Write the Space that shows a checkpoint: `app.py`, its requirements, its card, and the package with the checkpoint,
    without the study.

    Args:
        checkpoint: a shipped one or a folder.
        folder: new.
        repo: the model's name on the Hub.
    """
    source = Path(find_checkpoint(checkpoint))
    name = source.resolve().name
    for path in sorted(PACKAGE.rglob("*")):
        inside = path.relative_to(PACKAGE)
        hidden = any(part.startswith(("__pycache__", ".")) for part in inside.parts)
        left_out = hidden or inside.parts[0] in LEFT_OUT or SPACE in path.parents
        if path.suffix in PACKAGE_SUFFIXES and path.is_file() and not left_out:
            copy(path, folder / PACKAGE.name / inside)
    for path in SPACE.iterdir():
        copy(path, folder / path.name)
    shown = "" if name == DEFAULT_CHECKPOINT else f'["--checkpoint", {json.dumps(name)}, *sys.argv[1:]]'
    (folder / "app.py").write_text(APP.replace("main()", f"main({shown})"), encoding="utf-8")
    for file in CHECKPOINT_FILES:
        if (source / file).is_file() and (with_fingerprint or file != TRAINING_IMAGES):
            copy(source / file, folder / PACKAGE.name / "checkpoints" / name / file)
    own_card = folder / PACKAGE.name / "checkpoints" / name / CARD
    if own_card.is_file():
        write_card(own_card, published_card(own_card, name, repo))
    write_card(folder / CARD, space_card(class_names_of(EFPConfig.from_pretrained(source)), repo))


def space_card(classes: tuple[str, ...], repo: str) -> str:
    """The card of a Space that shows the model `repo`, which finds these classes."""
    card = SpaceCard(name_repository((SPACE / CARD).read_text(encoding="utf-8"), DEFAULT_CHECKPOINT, repo))
    card.data.models = [repo]
    if classes == LABELS:
        card.text = card.text.replace("corrected by clicks or a box", "and its dermoscopic structures as layers")
    elif classes != LESION:
        card.data.title = "Segmentation with EFP"
        card.data.short_description = f"Finds {len(classes)} kinds of things in an image. Research use."
        card.data.tags = ["image-segmentation", "mcp-server"]
        card.text = (
            f"\n# Segmentation with EFP\n\nFinds {', '.join(classes)} in an image, by the model "
            f"[{repo}](https://huggingface.co/{repo}).\n**Research use, not a diagnosis.**\n"
        )
    return str(card)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_card(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def published_card(card: Path, name: str, repo: str) -> str:
    """
    A checkpoint's card as it lies on the Hub: without the figure of the data's images, with the repository's name in
    its code, and with the owner's name before a shipped checkpoint that it was trained from.
    """
    text = IMAGES_OF_DATA.sub("", card.read_text(encoding="utf-8"))
    text = name_repository(text, name_in_card(text) or name, repo)
    return BASE_MODEL.sub(rf"\g<0>{repo.partition('/')[0]}/", text, count=1)


def name_in_card(text: str) -> str | None:
    """The name that a card's results are of, which is how its code calls the checkpoint."""
    return ModelCard(text, ignore_metadata_errors=True).data.model_name


def name_repository(text: str, name: str, repo: str) -> str:
    """
    A card in which the repository's name stands where the checkpoint's did: in code blocks in quotes and after
    `--checkpoint`, and in addresses of the Hub.
    """
    quoted = rf"(?<=[\"']){re.escape(name)}(?=[\"'])"
    alone = re.compile(rf"{quoted}|(?<=--checkpoint ){re.escape(name)}(?![\w/-]|\.\w)")
    text = CODE_BLOCK.sub(lambda block: alone.sub(repo, block[0]), text)
    return re.sub(rf"(huggingface\.co/){re.escape(name)}(?![\w/-]|\.\w)", rf"\g<1>{repo}", text)


def files_of(folder: Path) -> dict[str, int]:
    """The files of a folder, by their names in it, → bytes."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }
