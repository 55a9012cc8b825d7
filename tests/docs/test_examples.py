"""Every code block of the README and of the pages is run: Python in one namespace a page, `efp` by its own main."""

import re
import shlex
import shutil
import tomllib
from unittest import SkipTest
from unittest.mock import patch

import pytest
from conftest import ORGANS, REPOSITORY, draw_organs, tiny_model, write_cells
from PIL import Image
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from efp_hf import EFPImageProcessor
from efp_hf.__main__ import main
from efp_hf.data.synthetic import draw_lesion, write_synthetic_isic
from efp_hf.inference.checkpoint import DEFAULT_CHECKPOINT

TRAINING = ("README.md", "docs/training.md", "docs/trust.md", "docs/export.md", "docs/own-data.md")
TINY = ("docs/export.md", "docs/own-data.md")  # whose examples train or export `efp-isic` again, as others do
PAGES = sorted(
    str(path.relative_to(REPOSITORY))
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "efp_hf/metrics/*/README.md", "efp_hf/publishing/*/README.md")
    for path in REPOSITORY.glob(pattern)
)
MARKER = re.compile(r"<!-- (test|parsed only): (.+?) -->\n+\Z")
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def run_commands(example: Example) -> None:
    """
    The lines of a bash block. `<!-- test: OPTIONS -->` before it shortens a run: they are added to `efp train`;
    `<!-- parsed only: REASON -->` stops after the arguments are read.
    """
    marker = MARKER.search(example.document.text[: example.region.start])
    kind, words = marker.groups() if marker else ("", "")
    for line in example.parsed.replace("\\\n", " ").splitlines():  # a line may go on behind a backslash
        for command in line.split("&&"):
            words_of_command = shlex.split(command, comments=True)
            if words_of_command:
                run_command(words_of_command, shlex.split(words) if kind == "test" else [], kind == "parsed only")


def run_command(words: list[str], more: list[str], parsed_only: bool) -> None:
    while re.match(r"[A-Z_]+=", words[0]):  # a variable that is set for this command
        words = words[1:]
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program in ("accelerate", "python") and "efp_hf" in arguments:
        program, arguments = "efp", arguments[arguments.index("efp_hf") + 1 :]
    if program == "efp" and parsed_only:
        with patch(f"efp_hf.commands.{arguments[0]}.run", return_value=0):
            assert main(arguments) == 0, words
    elif program == "efp":
        assert main([*arguments, *(more if arguments[0] == "train" else [])]) == 0, words
    elif program == "cp":
        shutil.copytree(arguments[-2], arguments[-1])
    elif program == "pip":
        extras = re.search(r"\[(.+?)\]", words[-1])
        assert set(extras[1].split(",") if extras else ()) <= set(EXTRAS), words
    else:  # what a contributor does: named here, so that a new kind of command is looked at
        assert program in ("python3", "python", "git", "ruff", "mkdocs", "hf", ".ci/run"), words


SYBIL = Sybil([PythonCodeBlockParser(), CodeBlockParser("bash", run_commands), SkipParser()])


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a clone with photos and pairs of a user, and is the working directory."""
    for name in ("efp_hf", "examples", "results"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    drawn = write_synthetic_isic(tmp_path / "drawn_pairs", num_images=16, height=64, width=64)
    images, masks = sorted(drawn.iterdir(), key=lambda folder: "GroundTruth" in folder.name)
    (tmp_path / "my_images").mkdir()
    images.rename(tmp_path / "my_images" / "images")
    masks.rename(tmp_path / "my_images" / "masks")
    for folder in ("images", "masks"):
        (tmp_path / "organs" / folder).mkdir(parents=True)
    for number in range(16):
        image, labels = draw_organs(number)
        image.save(tmp_path / "organs" / "images" / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / "organs" / "masks" / f"{number}.png")
    (tmp_path / "organs" / "classes.txt").write_text("\n".join(ORGANS))
    write_cells(tmp_path / "cells", 16)
    for folder in ("images", "masks"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
    for number in range(16):
        image, mask = draw_lesion(number, 64, 64)
        image.save(tmp_path / "pairs" / "images" / f"{number}a.png")
        image.convert("L").save(tmp_path / "pairs" / "images" / f"{number}a_2.png")
        mask.save(tmp_path / "pairs" / "masks" / f"{number}a.png")
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(("photo.jpg", "photos/a.jpg", "photos/b.jpg")):
        draw_lesion(number, 90, 120)[0].save(tmp_path / path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny_shipped(tmp_path, monkeypatch):
    """A tiny network under the name of the default checkpoint."""
    folder = tmp_path / "shipped" / DEFAULT_CHECKPOINT
    tiny_model(use_cross_scale=False).save_pretrained(folder)  # traced in a few seconds
    EFPImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    monkeypatch.setattr("efp_hf.inference.checkpoint.SHIPPED", folder.parent)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in TRAINING else page for page in PAGES]
)
def test_examples_run(page, clone, request):
    if page in TINY:
        request.getfixturevalue("tiny_shipped")
    document = SYBIL.parse(REPOSITORY / page)
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest as reason:
            assert str(reason)
        except SystemExit as stopped:
            pytest.fail(f"{page}:{example.line}: {stopped}")


def links(text: str) -> list[str]:
    """Targets of links and images that are no addresses, code blocks left out."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file(page):
    folder = (REPOSITORY / page).parent
    missing = [link for link in links((REPOSITORY / page).read_text()) if not (folder / link.split("#")[0]).exists()]
    assert missing == []


def test_readme_is_short_and_the_changelog_too():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 130
    assert len((REPOSITORY / "CHANGELOG.md").read_text().splitlines()) <= 60


def test_example_that_trains_has_at_most_25_lines():
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "training.md").read_text(), flags=re.DOTALL)
    (training,) = [block for block in blocks if "FadingAttentionLoss()" in block]
    assert len([line for line in training.splitlines() if line.strip()]) <= 25


# files of 0.1.0 that moved or went; the comment on the last is in `find_checkpoint`, which refuses that path
OLD_FILES = re.compile(
    r"\b(?:scripts/(?:predict|train|score|export)|(?:choose_postprocessing|write_card|ship_checkpoint|draw_figures"
    r"|check_runtimes|load_space|measure_(?:parts|robustness|trust)))\.py"
    r"|\befp_hf[./](?:arguments|augmentation|baselines|benchmark|calibration|card|comparison|encoders|export|figures"
    r"|image_io|isic|measures|parts|prediction|report|results|robustness|runtimes|scoring|space|speed|synthetic|trust"
    r"|version)\b"
    r"|(?<!efp_hf/)checkpoints/efp-isic(?!` was a path of earlier versions)"
)
MODULES = sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("efp_hf/**/*.py"))


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_no_name_of_before_is_left(page):
    text = (REPOSITORY / page).read_text()
    assert OLD_FILES.findall(text) == []
    assert re.findall(r"--output_dir|\b(?:True|False)` for a switch", text) == []


def test_no_module_names_a_file_of_before():
    assert len(MODULES) > 50
    found = {module: OLD_FILES.findall((REPOSITORY / module).read_text()) for module in MODULES}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "model_card.md"])  # made by scripts/report.py
def test_no_placeholder_stands_for_an_owner(page):
    assert re.findall(r"(?<![\w./-])(?:org|ORG|your-org)/[\w-]+", (REPOSITORY / page).read_text()) == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_fenced_so_that_they_are_run(page):
    assert re.findall(r"^ {4,}(?:efp|pip|python3?|[A-Z_]+=\S+) .*", (REPOSITORY / page).read_text(), re.MULTILINE) == []


def test_numbers_of_the_prose_are_those_of_the_code():
    from efp_hf.data.split import SHARES
    from efp_hf.metrics import JACCARD_THRESHOLD
    from efp_hf.metrics.correction import BOX_JITTERS, MAX_CLICKS, TARGETS

    shares = "/".join(f"{share * 100:.0f}" for share in SHARES.values())
    assert f"a {shares} split" in (REPOSITORY / "docs" / "training.md").read_text()
    correction = (REPOSITORY / "docs" / "correction.md").read_text()
    _, small, large = (f"{jitter * 100:.0f} %" for jitter in BOX_JITTERS)
    assert f"up to {MAX_CLICKS} clicks" in correction and f"up to {small} and {large} of the box" in correction
    assert f"NoC@{100 * TARGETS[1]:.0f} | the clicks until an image's J reaches {TARGETS[1]}" in correction
    for page in ("README.md", "docs/metrics.md", "docs/correction.md"):
        assert f"J below {JACCARD_THRESHOLD}" in (REPOSITORY / page).read_text()
