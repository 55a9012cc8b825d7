import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from transformers.exporters.base import EXPORT_MANIFEST_FILE

from efp_hf.extras import EXTRAS
from efp_hf.inference.checkpoint import SHIPPED, load_checkpoint
from efp_hf.lesion.structures import LABELS
from efp_hf.publishing.checks import space_problems
from efp_hf.publishing.folders import (
    SPACE,
    files_of,
    name_repository,
    published_card,
    space_card,
    write_model_folder,
    write_space_folder,
)

CODE = ("configuration_efp.py", "image_processing_efp.py", "loss_efp.py", "modeling_efp.py")
SAVED = ("config.json", "model.safetensors", "preprocessor_config.json")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_model_folder_holds_what_the_hub_needs_and_nothing_of_the_training(model_folder):
    assert list(files_of(model_folder)) == sorted(("README.md", *CODE, *SAVED, "training_images.csv"))


def test_card_names_the_repository_in_its_code_and_its_address(model_folder):
    text = (model_folder / "README.md").read_text()
    assert "efp predict photo.jpg --checkpoint me/mine\n" in text and 'load_checkpoint("me/mine")' in text
    assert "https://huggingface.co/me/mine)" in text
    assert "--checkpoint runs/mine --data mine-too" in text  # what was run stays as it was run
    assert "masks.png" not in text and "images of the data" not in text
    assert "- name: mine\n" in text and "# mine\n\n`mine` is at" in text


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ('"efp-isic"', '"me/other"'),
        ("--checkpoint efp-isic.", "--checkpoint me/other."),
        ("efp-isic-nano", "efp-isic-nano"),
        ("exports/efp-isic", "exports/efp-isic"),
        ("efp-isic/onnx", "efp-isic/onnx"),
        ("efp-isic.txt", "efp-isic.txt"),
        ("me/efp-isic", "me/efp-isic"),
    ],
)
def test_name_is_replaced_where_it_stands_alone_in_code(code, named):
    assert name_repository(f"```\n{code}\n```\n{code}", "efp-isic", "me/other") == f"```\n{named}\n```\n{code}"


def test_model_that_a_shipped_one_began_as_is_of_the_same_owner():
    for name, base in (("efp-isic-structures", "me/efp-isic-nano"), ("efp-isic", "timm/tf_efficientnet_lite0.in1k")):
        assert f"\nbase_model: {base}\n" in published_card(SHIPPED / name / "README.md", name, "me/mine")


def test_fingerprint_is_left_out_on_request(mine, tmp_path):
    write_model_folder(mine, *load_checkpoint(mine), tmp_path / "model", "me/mine", with_fingerprint=False)
    write_space_folder(mine, tmp_path / "space", "me/mine", with_fingerprint=False)
    assert not [name for kind in ("model", "space") for name in files_of(tmp_path / kind) if "training_images" in name]


def test_results_and_drawings_of_the_card_go_along_and_other_pictures_stay(mine, tmp_path):
    source = tmp_path / "mine"
    (source / "figures").mkdir(parents=True)
    for path in mine.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    with (source / "README.md").open("a") as card:
        card.write("![curve](figures/curve.svg) ![patient](figures/patient.jpg)")
    for name in ("curve.svg", "other.svg", "patient.jpg"):
        (source / "figures" / name).write_text("<svg/>")
    (source / ".eval_results").mkdir()
    (source / ".eval_results" / "isic.yaml").write_text("- dataset: {id: a/b, task_id: c}\n  value: 1\n")
    write_model_folder(source, *load_checkpoint(source), tmp_path / "model", "me/mine")
    more = set(files_of(tmp_path / "model")) - {"README.md", *CODE, *SAVED, "training_images.csv"}
    assert more == {"figures/curve.svg", ".eval_results/isic.yaml"}


def test_exported_folder_gets_a_folder_of_its_runtime(mine, tmp_path):
    exported = tmp_path / "exports" / "mine-onnx-int8"
    exported.mkdir(parents=True)
    for name in ("model.onnx", "config.json", "training_images.csv"):
        (exported / name).write_text("x")
    (exported / EXPORT_MANIFEST_FILE).write_text('{"export_format": "onnx"}')
    loaded = load_checkpoint(mine)
    write_model_folder(mine, *loaded, tmp_path / "model", "me/mine", exports=[str(exported)])
    found = {name for name in files_of(tmp_path / "model") if name.startswith("onnx/")}
    assert found == {"onnx/model.onnx", "onnx/config.json", f"onnx/{EXPORT_MANIFEST_FILE}"}
    for exports, words in (
        ([exported, "onnx"], "must name a runtime once, got two of onnx"),
        (["coreml"], "must be onnx, openvino, executorch or folders of `efp export`, got coreml"),
        ([str(mine)], "or folders of `efp export`, got .*mine"),
    ):
        with pytest.raises(ValueError, match=words):
            write_model_folder(mine, *loaded, tmp_path / "refused", "me/mine", exports=exports)
        assert not (tmp_path / "refused").exists()


@pytest.fixture(scope="module")
def space(mine, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "efp"
    write_space_folder(mine, folder, "me/mine")
    return folder


def test_space_holds_the_page_and_the_checkpoint_and_no_study(space):
    names = list(files_of(space))
    assert [name for name in names if "/" not in name] == ["LICENSE", "README.md", "app.py", "requirements.txt"]
    checkpoint = [name for name in names if "/checkpoints/" in name]
    assert checkpoint == [
        f"efp_hf/checkpoints/mine/{name}" for name in sorted((*SAVED, "README.md", "training_images.csv"))
    ]
    assert not [name for name in names if re.search(r"study|test|__pycache__|\.pyc|\.pyi", name)]
    packed = {name for name in names if name.startswith("efp_hf/page/")}
    assert {"efp_hf/page/style.css", "efp_hf/page/script.js", "efp_hf/page/templates/view.html"} < packed
    assert "me/mine" in (space / "efp_hf/checkpoints/mine/README.md").read_text()


def test_space_shows_the_checkpoint_and_its_card_names_the_model(space):
    assert 'main(["--checkpoint", "mine", *sys.argv[1:]])' in (space / "app.py").read_text()
    text = (space / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["models"] == ["me/mine"]
    assert "--checkpoint me/mine " in text and "efp-isic" not in text.replace("efp_hf", "")


def test_space_of_other_classes_says_nothing_of_skin(organs_checkpoint, tmp_path):
    write_space_folder(organs_checkpoint, tmp_path / "space", "me/organs")
    text = (tmp_path / "space" / "README.md").read_text()
    assert "Finds liver, spleen, kidney in an image" in text and "Finds 3 kinds of things" in text
    assert not re.search("lesion|skin|derma", text)
    assert space_problems(tmp_path / "space", "me/organs") == []


def test_space_of_structures_says_what_its_page_shows():
    of_lesion, of_structures = (space_card(classes, "me/mine") for classes in (("lesion",), LABELS))
    assert "corrected by clicks or a box; " in of_lesion and "structures as layers" not in of_lesion
    assert "and its dermoscopic structures as layers; " in of_structures and "by clicks" not in of_structures


def test_space_has_the_clones_own_app_and_license(tmp_path):
    write_space_folder("efp-isic", tmp_path / "space", "me/efp-isic")
    for name in ("app.py", "LICENSE"):
        assert (tmp_path / "space" / name).read_text() == (REPOSITORY / name).read_text()


def bounds(requirements) -> dict[str, str]:
    return dict(re.fullmatch(r"([\w.-]+(?:\[\w+\])?)(.*)", line).groups() for line in requirements)


def test_requirements_of_the_space_are_those_of_the_package_and_the_page():
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    required = bounds(line for line in lines if not line.startswith("#"))
    assert required == bounds([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["app"]])


def distribution_names(requirements) -> set[str]:
    return {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in requirements}


def with_dependencies(names: set[str]) -> set[str]:
    return names | {name for one in names for name in distribution_names(requires(one) or ())}


def test_requirements_name_all_that_the_space_imports(space):
    """Or what they bring. What only other commands need is in their extras, and they say so where it is missing."""
    imported = set()
    for path in space.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= {*sys.stdlib_module_names, "efp_hf"}
    assert {"torch", "gradio", "skimage"} <= imported
    lines = (space / "requirements.txt").read_text().splitlines()
    required = with_dependencies(distribution_names(line for line in lines if not line.startswith("#")))
    others = {module for extra, modules in EXTRAS.items() if extra != "app" for module in modules}
    others |= {"cv2", "onnx_ir", "pyarrow"}  # what these bring
    found = packages_distributions()
    assert [
        name for name in sorted(imported - others) if not distribution_names(found.get(name, [name])) & required
    ] == []
