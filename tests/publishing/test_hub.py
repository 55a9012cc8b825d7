"""Uploads to a small Hub on this machine, and what its users do: in processes, as HF_ENDPOINT is read on import."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from hub_server import TOKEN, HubServer

from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.publishing.folders import files_of, write_model_folder, write_space_folder

pytestmark = pytest.mark.slow
MINE, SPACE = ("models", "me/mine"), ("spaces", "me/efp")

UPLOADING = """
import json, sys
from pathlib import Path
from huggingface_hub.utils import disable_progress_bars
from efp_hf.publishing.upload import upload
disable_progress_bars()
for folder, repo, kind in json.loads(sys.argv[1]):
    print(upload(Path(folder), repo, kind, private=True))
"""
# the trial of the folder, in two processes of its own, has its tests in test_trial.py
PUBLISHING_WITHOUT_A_TRIAL = """
import sys
from efp_hf.__main__ import main
from efp_hf.publishing import trial
trial.model_failures = lambda folder: []
sys.exit(main(["publish", *sys.argv[1:]]))
"""
WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["efp_hf"] = None  # importing it is an error from here on
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
image = Image.open(sys.argv[1])
found = []
for revision in sys.argv[2:]:
    options = {"trust_remote_code": True, "revision": revision}
    model = AutoModelForSemanticSegmentation.from_pretrained("me/mine", **options).eval()
    processor = AutoImageProcessor.from_pretrained("me/mine", **options)
    results = pipeline("image-segmentation", model=model, image_processor=processor)(image)
    found.append([model.config.temperature, [result["label"] for result in results]])
print(json.dumps(found))
"""
WITH_THE_PACKAGE = """
import json, sys
from PIL import Image
from transformers import pipeline
from efp_hf import EFPForSegmentation
from efp_hf.__main__ import main
image, output = sys.argv[1:]
model = EFPForSegmentation.from_pretrained("me/mine")
results = pipeline("image-segmentation", model="me/mine", trust_remote_code=False)(Image.open(image))
code = main(["predict", image, "--checkpoint", "me/mine", "--output", output])
print(json.dumps([model.config.temperature, [result["label"] for result in results], code]))
"""


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def run(hub, tmp_path):
    """Runs Python in an empty folder, with the small Hub for the Hub and a cache that stays → its process."""
    (tmp_path / "empty").mkdir()

    def start(*arguments, token: str = TOKEN, offline: bool = False):
        variables = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HUB_DISABLE_XET": "1",  # another protocol, of a server of its own
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path / "empty",
            env={**os.environ, **variables},
        )

    return start


def answer(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def test_command_uploads_what_its_dry_run_writes(run, hub, mine, tmp_path):
    arguments = ("--checkpoint", mine, "--repo", "me/mine")
    dry = run("-c", PUBLISHING_WITHOUT_A_TRIAL, *arguments, "--dry-run", tmp_path / "upload", token="")
    assert dry.returncode == 0, dry.stderr
    assert hub.requests == []
    uploaded = run("-m", "efp_hf", "publish", *arguments, "--private")
    assert uploaded.returncode == 0, uploaded.stderr
    assert TOKEN not in uploaded.stdout + uploaded.stderr
    repository = hub.repositories[MINE]
    assert repository.private and list(hub.repositories) == [MINE]
    (_, _), (identifier, files) = repository.commits
    written = {
        name: (tmp_path / "upload" / "model" / name).read_bytes() for name in files_of(tmp_path / "upload" / "model")
    }
    assert files == written
    assert uploaded.stdout.splitlines()[-1] == f"{hub.url}/me/mine/commit/{identifier}"
    for name, content in files.items():
        assert f"{len(content) / 1e3:.1f} kB  {name}\n" in dry.stdout


@pytest.mark.parametrize(
    ("metadata", "token", "code", "words"),
    [
        (
            "license: refused-by-the-hub",
            TOKEN,
            2,
            "nothing was uploaded:\n  model: README.md: the Hub refuses the metadata",
        ),
        (
            "license: mit\nbase_model: efp-isic-nano",
            TOKEN,
            2,
            "`base_model` me/efp-isic-nano is not on the Hub.",
        ),
        ("license: mit", "hf_" + "w" * 34, 1, "me/mine: Client error '401"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(run, hub, mine, tmp_path, metadata, token, code, words):
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in mine.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("license: apache-2.0", metadata))
    ran = run("-c", PUBLISHING_WITHOUT_A_TRIAL, "--checkpoint", folder, "--repo", "me/mine", token=token)
    assert ran.returncode == code and words in ran.stderr and "Traceback" not in ran.stderr
    assert token not in ran.stdout + ran.stderr
    assert hub.repositories == {}


def test_second_upload_is_a_commit_of_what_changed_and_users_can_name_either(run, hub, mine, tmp_path):
    model, processor = load_checkpoint(mine)
    folders = []
    for temperature in (1.0, 1.0, 2.0):
        model.config.temperature = temperature
        folders.append(tmp_path / f"model_{len(folders)}")
        write_model_folder(mine, model, processor, folders[-1], "me/mine")
    for folder in folders[:2]:
        (folder / "onnx").mkdir()
        (folder / "onnx" / "model.onnx").write_text("of the first weights")
    uploads = [(str(folder), "me/mine", "model") for folder in folders]
    first, unchanged, second = run("-c", UPLOADING, json.dumps(uploads)).stdout.splitlines()
    commits = hub.repositories[MINE].commits
    assert [identifier for identifier, _ in commits[1:]] == [first.split("/")[-1], second.split("/")[-1]]
    assert unchanged == first
    changed = {name for name in commits[1][1] if commits[2][1].get(name) != commits[1][1][name]}
    assert changed == {"config.json", "onnx/model.onnx"} and "onnx/model.onnx" not in commits[2][1]
    assert len([path for method, path in hub.requests if method == "PUT"]) == 2  # weights and export, each once

    image = REPOSITORY / "examples" / "synthetic_1.jpg"
    labels = ["background", "lesion"]
    remote = answer(run("-c", WITHOUT_THE_PACKAGE, image, "main", commits[1][0]))
    assert remote == [[2.0, labels], [1.0, labels]]
    own = answer(run("-c", WITH_THE_PACKAGE, image, tmp_path / "masks"))
    assert own == [2.0, labels, 0] and (tmp_path / "masks" / "synthetic_1_segmentation.png").is_file()

    asked = len(hub.requests)
    assert answer(run("-c", WITH_THE_PACKAGE, image, tmp_path / "again", offline=True)) == own
    assert len(hub.requests) == asked


def test_space_is_uploaded_and_its_old_modules_go(run, hub, mine, tmp_path):
    for name in ("first", "second"):
        write_space_folder(mine, tmp_path / name, "me/mine")
    (tmp_path / "first" / "efp_hf" / "old.py").write_text("pass")
    uploads = [(str(tmp_path / name), "me/efp", "space") for name in ("first", "second")]
    process = run("-c", UPLOADING, json.dumps(uploads))
    assert process.returncode == 0, process.stderr
    (_, first), (_, second) = hub.repositories[SPACE].commits[1:]
    assert "efp_hf/old.py" in first
    assert second == contents(tmp_path / "second")
