import pickle
import shutil
import zipfile

import pytest
from conftest import REPOSITORY

from efp_hf.publishing.checks import model_problems, repository_problems, space_problems
from efp_hf.publishing.folders import write_space_folder


def test_folder_of_a_scored_checkpoint_has_no_problem(model_folder):
    assert model_problems(model_folder, "me/mine") == []


def change(folder, old: str, new: str, name: str = "README.md") -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("pipeline_tag: image-segmentation", "", "`pipeline_tag` must be image-segmentation, got None"),
        ("library_name: transformers", "library_name: timm", "`library_name` must be transformers, got timm"),
        ("license: apache-2.0", "", "`license` must be an identifier of the Hub, such as apache-2.0, got None"),
        ("license: apache-2.0", "license: My Own", "such as apache-2.0, got My Own"),
        ("license: apache-2.0", "license: other", "the license `other` needs `license_name` and `license_link`"),
        (
            "license:",
            "datasets:\n- isic2018\nlicense:",
            "`datasets` must name a dataset of the Hub, owner/name, got isic",
        ),
        ("license:", "base_model: lite0\nlicense:", "`base_model` must name a model of the Hub, owner/name, got lite0"),
        ("license:", "thumbnail: a.png\nlicense:", "`thumbnail` must be an address, https://…, got a.png"),
        ("license:", "widget:\n- text: a\nlicense:", "each example of `widget` must have a `src`, https://…, got"),
        ("license:", "license: [", "the metadata cannot be read ("),
        ("      value: 0.5", "      value: half", "Jaccard (J): the value must be a number, got half"),
        ("      value: 0.5", "      value: .nan", "Jaccard (J): the value must be a number, got nan"),
        ("    metrics:", "    scores:", "the metadata cannot be read (Invalid `model_index`"),
        ("model-index:", "model-of:", "`model-index` holds no scores"),
        ("# mine", "# mine at org/mine", "`org/mine` stands for a name"),
        ("# mine", "# [mine](figures/a.svg)", "links to figures/a.svg, which is not in the folder"),
    ],
)
def test_each_fault_of_a_card_is_named(model_folder, old, new, words):
    change(model_folder, old, new)
    problems = model_problems(model_folder, "me/mine")
    assert len(problems) == 1 and problems[0].startswith("README.md: ") and words in problems[0]


def test_card_whose_code_loads_another_model_is_refused(model_folder):
    (problem,) = model_problems(model_folder, "me/other")
    assert problem.startswith("README.md: no code loads me/other. ")


def test_good_values_of_optional_fields_are_no_problem(model_folder):
    fields = (
        "base_model: timm/tf_efficientnet_lite0.in1k\ndatasets:\n- someone/drawings\nthumbnail: https://a.b/c.png\n"
    )
    fields += "widget:\n- src: https://a.b/c.png\n  example_title: a drawing\n"
    change(model_folder, "license:", f"{fields}license:")
    assert model_problems(model_folder, "me/mine") == []


def test_model_without_a_card_is_refused(model_folder):
    (model_folder / "README.md").unlink()
    assert model_problems(model_folder, "me/mine") == [
        "README.md: the model has no card. Write one with `efp score --card` or `efp card`."
    ]


def test_each_fault_of_a_result_for_the_hub_is_named(model_folder):
    results = model_folder / ".eval_results"
    results.mkdir()
    good = "- dataset: {id: someone/isic, task_id: task1}\n  value: 0.8\n  date: '2026-11-26'\n"
    (results / "isic.yaml").write_text(good)
    assert model_problems(model_folder, "me/mine") == []
    for old, new, words in (
        ("someone/isic", "isic", "`dataset.id` must be a dataset of the Hub, owner/name, got isic"),
        (", task_id: task1", "", "'task_id' is missing"),
        ("0.8", "high", "`value` must be a number, got high"),
        ("2026-11-26", "yesterday", "`date` must be as 2026-01-31, got yesterday"),
        ("- dataset", "dataset", "the results cannot be read"),
        ("  date", "  source: {name: notebook}\n  date", "`source_url` must also be provided"),
    ):
        (results / "isic.yaml").write_text(good.replace(old, new))
        (problem,) = model_problems(model_folder, "me/mine")
        assert problem.startswith(".eval_results/isic.yaml: ") and words in problem


def test_pictures_pickles_tokens_and_strangers_are_refused(model_folder, tmp_path):
    (model_folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 a photo")
    (model_folder / "onnx").mkdir()
    shutil.copy(model_folder / "photo.jpg", model_folder / "onnx" / "model.onnx")  # under another name
    (model_folder / "drawing.svg").write_text('<svg><image href="data:image/png;base64,"/></svg>')
    (model_folder / "openvino").mkdir()
    (model_folder / "openvino" / "model.bin").write_bytes(pickle.dumps({"weights": 1}))
    with zipfile.ZipFile(model_folder / "openvino" / "more.bin", "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", b"")
    (model_folder / "config.json").write_text('{"token": "hf_%s"}' % ("a" * 34))
    (model_folder / "notes.txt").write_text("a stranger")
    (model_folder / "loss_efp.py").write_bytes(b"")
    (model_folder / "model.safetensors").unlink()
    (model_folder / "openvino" / "model.xml").symlink_to(tmp_path)
    problems = model_problems(model_folder, "me/mine")
    for words in (
        "photo.jpg: is a picture",
        "photo.jpg: is no file of a model",
        "onnx/model.onnx: is a picture",
        "drawing.svg: holds a picture",
        "openvino/model.bin: is a pickled file",
        "openvino/more.bin: is a pickled file",
        "config.json: holds what looks like a token",
        "notes.txt: is no file of a model",
        "loss_efp.py: is empty",
        "model.safetensors: is not there",
        "openvino/model.xml: is a link",
    ):
        assert len([problem for problem in problems if problem.startswith(words)]) == 1, (words, problems)
    assert len(problems) == 11
    assert not any("a" * 34 in problem for problem in problems)


def test_weights_that_begin_like_a_picture_or_a_pickle_are_no_problem(model_folder):
    (model_folder / "openvino").mkdir()
    for name, content in (("a", b"\x80\x04 weights"), ("b", b"BM weights")):
        (model_folder / "openvino" / f"{name}.bin").write_bytes(content)
    assert model_problems(model_folder, "me/mine") == []


def test_folder_of_too_many_bytes_is_refused(model_folder):
    sizes = {"config.json": 1_100_000_000}
    (problem,) = repository_problems(model_folder, sizes)
    assert problem == "The files must be at most 1000 MB, got 1100 MB. Leave some out."


def test_each_fault_of_a_space_is_named(mine, tmp_path):
    folder = tmp_path / "space"
    write_space_folder(mine, folder, "me/mine")
    assert space_problems(folder, "me/mine") == []
    good = (folder / "README.md").read_text()
    for old, new, words in (
        ("colorFrom: indigo", "colorFrom: orange", "`colorFrom` must be one of red, yellow"),
        ("sdk: gradio", "sdk: static", "`sdk` must be gradio, got static"),
        ("sdk_version: 6.31.0", "sdk_version: 6.31", "`sdk_version` must be a version of Gradio"),
        ("app_file: app.py", "app_file: main.py", "`app_file` must be a file of the Space, got main.py"),
        ("short_description: ", f"short_description: {'long ' * 12}", "at most 60 characters"),
        ("- me/mine", "- efp-isic", "`models` must name me/mine, got ['efp-isic']"),
        ("title: ", "name: ", "`title` is missing"),
    ):
        assert old in good
        (folder / "README.md").write_text(good.replace(old, new, 1))
        (problem,) = space_problems(folder, "me/mine")
        assert problem.startswith("README.md: ") and words in problem
    (folder / "README.md").write_text(good)
    (folder / "requirements.txt").unlink()
    shutil.copy(REPOSITORY / "examples" / "synthetic_1.jpg", folder / "efp_hf" / "page")
    problems = space_problems(folder, "me/mine")
    assert [problem.split(". ")[0] for problem in problems] == [
        "efp_hf/page/synthetic_1.jpg: is a picture, which may show a patient",
        "requirements.txt: is not there",
    ]
