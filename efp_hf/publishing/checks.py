"""What is wrong with a folder that is to be uploaded, one sentence each. Nothing is asked of the network."""

import math
import pickle
import re
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, RepoCard, SpaceCard, parse_eval_result_entries
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..inference.checkpoint import TRAINING_IMAGES
from ..inference.export import CARD, EXPORT_FORMATS
from .folders import CODE_BLOCK, EVAL_RESULTS, PACKAGE, SPACE_FILES, files_of

TASK = "image-segmentation"
MAX_BYTES = 10**9  # of a folder: what a Space may hold, and a hundred times a checkpoint
MODEL_FILES = (CARD, TRAINING_IMAGES, "config.json", "preprocessor_config.json", "model.safetensors")
EXPORT_SUFFIXES = (".json", ".onnx", ".data", ".xml", ".bin", ".pte")
TEXT_SUFFIXES = (".md", ".py", ".json", ".csv", ".yaml", ".txt", ".svg", ".js", ".css", ".html", ".jinja")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".dcm", ".ico")
PICTURE_BYTES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".npy", ".npz")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")
PLACEHOLDER = re.compile(r"(?<![\w./-])(?:org|ORG|OWNER|your-org|username)/[\w.-]+")
ADDRESS = re.compile(r"https?://\S+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
MAX_SHORT_DESCRIPTION = 60  # characters


def model_problems(folder: Path, repo: str) -> list[str]:
    """What is wrong with the folder of a model that is to be `repo` on the Hub."""
    files = files_of(folder)
    return [
        *repository_problems(folder, files),
        *(f"{name}: is not there. A model needs it." for name in MODEL_FILES[2:] if name not in files),
        *unexpected_files(files),
        *card_problems(folder, repo),
        *eval_results_problems(folder, files),
    ]


def space_problems(folder: Path, repo: str) -> list[str]:
    """What is wrong with the folder of a Space that shows the model `repo`."""
    files = files_of(folder)
    package = f"{PACKAGE.name}/"
    others = [name for name in files if not name.startswith(package) and name not in (CARD, *SPACE_FILES)]
    return [
        *repository_problems(folder, files),
        *(f"{name}: is not there. A Space needs it." for name in SPACE_FILES if name not in files),
        *(f"{name}: is no file of the Space. Remove it." for name in others),
        *space_card_problems(folder, repo),
    ]


def repository_problems(folder: Path, files: dict[str, int]) -> Iterator[str]:
    """What no repository may hold: pictures, pickled files, tokens, files that are empty, links, or too many bytes."""
    total = sum(files.values())
    if total > MAX_BYTES:
        yield f"The files must be at most {MAX_BYTES / 1e6:.0f} MB, got {total / 1e6:.0f} MB. Leave some out."
    for name, size in files.items():
        path = folder / name
        suffix = path.suffix.lower()
        if path.is_symlink():
            yield f"{name}: is a link. Put the file itself there."
            continue
        if size == 0 and path.name != "__init__.py":
            yield f"{name}: is empty. Write it again."
            continue
        with path.open("rb") as file:
            beginning = file.read(16)
        if suffix in PICTURES or (suffix != ".bin" and beginning.startswith(PICTURE_BYTES)):
            yield f"{name}: is a picture, which may show a patient. Remove it; a card may have drawings as .svg."
        if suffix in PICKLES or is_pickled(path, beginning):
            yield f"{name}: is a pickled file, which can run code when it is loaded. Use safetensors."
        if suffix in TEXT_SUFFIXES:
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                yield f"{name}: must be text in UTF-8. Write it again."
                continue
            if TOKEN.search(text):
                yield f"{name}: holds what looks like a token of the Hub. Remove it, and revoke the token."
            if suffix == ".svg" and re.search(r"<image\b|data:image", text):
                yield f"{name}: holds a picture, which may show a patient. Draw it without one."


def is_pickled(path: Path, beginning: bytes) -> bool:
    """By what is in the file: a pickle of protocol 2 or newer, or an archive of PyTorch around one."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    if beginning[:1] == pickle.PROTO and 2 <= beginning[1] <= pickle.HIGHEST_PROTOCOL:
        with path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == pickle.STOP
    return False


def unexpected_files(files: dict[str, int]) -> Iterator[str]:
    for name in files:
        folder = name.rpartition("/")[0]
        suffix = Path(name).suffix
        expected = (
            name in MODEL_FILES
            or (not folder and suffix == ".py")
            or suffix == ".svg"
            or (folder == EVAL_RESULTS and suffix == ".yaml")
            or (folder in EXPORT_FORMATS and suffix in EXPORT_SUFFIXES)
        )
        if not expected:
            yield f"{name}: is no file of a model. Remove it."


def read_card(folder: Path, kind: type[RepoCard], missing: str) -> RepoCard:
    """
    The card of a folder.

    Args:
        missing: what to say where there is none.

    Raises:
        ValueError: there is none, or its metadata cannot be read.
    """
    if not (folder / CARD).is_file():
        raise ValueError(f"{CARD}: {missing}")
    try:
        return kind((folder / CARD).read_text(encoding="utf-8"))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{CARD}: the metadata cannot be read ({short(error)}). Mend the lines between `---`."
        ) from error


def card_problems(folder: Path, repo: str) -> Iterator[str]:
    """Of a model's card: its metadata as the Hub reads them, the code's repository, the links."""
    try:
        card = read_card(folder, ModelCard, "the model has no card. Write one with `efp score --card` or `efp card`.")
    except ValueError as error:
        yield str(error)
        return
    data = card.data
    for field, value in (("pipeline_tag", TASK), ("library_name", "transformers")):
        if data.get(field) != value:
            yield f"{CARD}: `{field}` must be {value}, got {data.get(field)}. Change it."
    yield from license_problems(data)
    for field, what in (("base_model", "a model"), ("datasets", "a dataset")):
        value = data.get(field)
        for name in [] if value is None else value if isinstance(value, list) else [value]:
            if not is_repository(name):
                yield f"{CARD}: `{field}` must name {what} of the Hub, owner/name, got {name}. Mend it or leave it out."
    yield from result_problems(data)
    thumbnail = data.get("thumbnail")
    if thumbnail is not None and not is_address(thumbnail):
        yield f"{CARD}: `thumbnail` must be an address, https://…, got {thumbnail}. Change it or leave it out."
    widget = data.get("widget")
    if widget is not None:
        examples = widget if isinstance(widget, list) else [widget]
        for example in examples:
            if not isinstance(example, dict) or not is_address(example.get("src")):
                yield f"{CARD}: each example of `widget` must have a `src`, https://…, got {example}. Change it."
    if data.get("inference") is not None and not isinstance(data.get("inference"), (bool, dict)):
        yield f"{CARD}: `inference` must be true or false, got {data.get('inference')}. Change it."
    if not any(repo in block for block in CODE_BLOCK.findall(card.text)):
        yield f"{CARD}: no code loads {repo}. The code must name the checkpoint as `model-index` does."
    yield from text_problems(folder, CARD, card.text, repo)


def license_problems(data) -> Iterator[str]:
    license = data.get("license")
    for name in license if isinstance(license, list) and license else [license]:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
            yield f"{CARD}: `license` must be an identifier of the Hub, such as apache-2.0, got {name}. Change it."
        elif name == "other" and not (data.get("license_name") and data.get("license_link")):
            yield f"{CARD}: the license `other` needs `license_name` and `license_link`. Add them."


def result_problems(data) -> Iterator[str]:
    """Of `model-index`, which the Hub shows as the model's scores."""
    results = data.get("eval_results")
    if not results:
        yield f"{CARD}: `model-index` holds no scores. Write them with `efp score --card`."
    for result in results or []:
        name = f"{CARD}: `model-index`: {result.metric_name or result.metric_type}"
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield f"{name}: the value must be a number, got {value}. Score again."
        if result.task_type != TASK:
            yield f"{name}: the task must be {TASK}, got {result.task_type}. Change it."


def text_problems(folder: Path, name: str, text: str, repo: str) -> Iterator[str]:
    """Placeholders that were left, and links to files that are not in the folder."""
    for placeholder in sorted(set(PLACEHOLDER.findall(ADDRESS.sub("", text)))):
        if placeholder.partition("/")[0] == repo.partition("/")[0]:
            continue
        yield f"{name}: `{placeholder}` stands for a name. Write the name."
    for link in LINK.findall(CODE_BLOCK.sub("", text)):
        target = link.split("#")[0]
        if target and "://" not in link and not link.startswith("mailto:") and not (folder / target).exists():
            yield f"{name}: links to {target}, which is not in the folder. Remove the link, or write a whole address."


def eval_results_problems(folder: Path, files: dict[str, int]) -> Iterator[str]:
    """
    Of `.eval_results/*.yaml`, by https://huggingface.co/docs/hub/eval-results: each result names a dataset that is a
    benchmark of the Hub, one of its tasks, and a value.
    """
    for name in files:
        if not name.startswith(f"{EVAL_RESULTS}/") or not name.endswith(".yaml"):
            continue
        try:
            found = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
            if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
                raise ValueError("it must be a list of results")
            entries = parse_eval_result_entries(found)
        except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
            message = f"{error} is missing" if isinstance(error, KeyError) else short(error)
            yield f"{name}: the results cannot be read ({message}). Each needs dataset.id, dataset.task_id and value."
            continue
        for entry in entries:
            if not is_repository(entry.dataset_id):
                yield f"{name}: `dataset.id` must be a dataset of the Hub, owner/name, got {entry.dataset_id}. Mend it."
            if not isinstance(entry.task_id, str) or not entry.task_id:
                yield f"{name}: `dataset.task_id` must be a task of its eval.yaml, got {entry.task_id}. Mend it."
            value = entry.value
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                yield f"{name}: `value` must be a number, got {value}. Change it."
            if entry.date is not None and not is_date(entry.date):
                yield f"{name}: `date` must be as 2026-01-31, got {entry.date}. Change it."
            if entry.source_url is not None and not is_address(entry.source_url):
                yield f"{name}: `source.url` must be an address, https://…, got {entry.source_url}. Change it."


def space_card_problems(folder: Path, repo: str) -> Iterator[str]:
    """Of a Space's card, by https://huggingface.co/docs/hub/spaces-config-reference."""
    try:
        card = read_card(folder, SpaceCard, "the Space has no card.")
    except ValueError as error:
        yield str(error)
        return
    data = card.data
    for field in ("title", "emoji"):
        if not data.get(field):
            yield f"{CARD}: `{field}` is missing. Add it."
    for field in ("colorFrom", "colorTo"):
        if data.get(field) not in COLORS:
            yield f"{CARD}: `{field}` must be one of {', '.join(COLORS)}, got {data.get(field)}. Change it."
    if data.get("sdk") != "gradio":
        yield f"{CARD}: `sdk` must be gradio, got {data.get('sdk')}. Change it."
    version = data.get("sdk_version")
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(version)):
        yield f"{CARD}: `sdk_version` must be a version of Gradio, such as 6.31.0, got {version}. Change it."
    if not re.fullmatch(r"3\.\d+(\.\d+)?", str(data.get("python_version"))):
        yield f"{CARD}: `python_version` must be a version in quotes, got {data.get('python_version')}. Change it."
    if not isinstance(data.get("app_file"), str) or not (folder / data.get("app_file")).is_file():
        yield f"{CARD}: `app_file` must be a file of the Space, got {data.get('app_file')}. Change it."
    if len(str(data.get("short_description") or "")) > MAX_SHORT_DESCRIPTION:
        yield f"{CARD}: `short_description` must have at most {MAX_SHORT_DESCRIPTION} characters. Shorten it."
    if data.get("models") != [repo]:
        yield f"{CARD}: `models` must name {repo}, got {data.get('models')}. Change it."
    yield from license_problems(data)
    yield from text_problems(folder, CARD, card.text, repo)


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def is_repository(name) -> bool:
    """Whether a text is the name of a repository with its owner."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith("/") and not name.endswith("/")


def is_address(text) -> bool:
    return isinstance(text, str) and ADDRESS.fullmatch(text) is not None


def is_date(text) -> bool:
    try:
        datetime.fromisoformat(str(text))
    except ValueError:
        return False
    return True
