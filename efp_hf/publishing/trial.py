"""Processes that try what is to be uploaded: each starts anew, without a network, and sees the folder alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from ..data.synthetic import draw_lesion
from ..inference.export import EXPORT_FORMATS
from .folders import CLONE

SEED = 26  # of the drawing that is segmented
MOST_DIFFERENCE = 0.05  # of an export's probabilities, in the mean: int8 and 16 bits move them a little
PATIENCE_SECONDS = 600
# the folder, the drawing, "" or the folder of the package
LOADING = """
import json, sys
import torch
from PIL import Image
folder, image, package = sys.argv[1:]
if package:
    sys.path.insert(0, package)
    from efp_hf import EFPForSegmentation as Model, EFPImageProcessor as Processor
    options = {}
else:
    sys.modules["efp_hf"] = None  # importing it is an error from here on
    from transformers import AutoImageProcessor as Processor, AutoModelForSemanticSegmentation as Model
    options = {"trust_remote_code": True}
model = Model.from_pretrained(folder, **options).eval()
processor = Processor.from_pretrained(folder, **options)
with torch.inference_mode():
    outputs = model(**processor(Image.open(image), return_tensors="pt"))
assert outputs.logits.isfinite().all(), "the logits are not finite"
print(json.dumps(outputs.logits.flatten()[::97].tolist()))
"""
COMPARING = """
import sys
import torch
from PIL import Image
sys.path.insert(0, sys.argv[1])
from efp_hf.inference.checkpoint import load_checkpoint
image, settings = Image.open(sys.argv[2]), []
probabilities = []
for folder in sys.argv[3:]:
    model, processor = load_checkpoint(folder, allow_overlap=True)
    settings.append({name: value for name, value in processor.to_dict().items() if name != "auto_map"})
    inputs = processor([image], return_tensors="pt").to(model.device, model.dtype)
    with torch.inference_mode():
        probabilities.append(model(**inputs).logits.float().cpu().softmax(1))
assert settings[0] == settings[1], "its image processor has other settings"
print((probabilities[0] - probabilities[1]).abs().mean().item())
"""


def model_failures(folder: Path) -> list[str]:
    """What fails when the folder of a model is loaded, with this package and without it, and its exports with it."""
    with tempfile.TemporaryDirectory() as empty:
        image = Path(empty) / "drawing.png"
        draw_lesion(SEED)[0].save(image)
        folder = folder.resolve()
        runs = {
            "with the package": start(empty, LOADING, folder, image, CLONE),
            "without the package": start(empty, LOADING, folder, image, ""),
        }
        exports = [name for name in EXPORT_FORMATS if (folder / name).is_dir()]
        runs |= {name: start(empty, COMPARING, CLONE, image, folder, folder / name) for name in exports}
        logits, failures = {}, []
        for name, process in runs.items():
            output, errors = process.communicate()
            if process.returncode:
                failures.append(f"{name}: it does not load ({last_line(errors)}).")
                continue
            logits[name] = json.loads(output.splitlines()[-1])
            if name in exports and not logits[name] <= MOST_DIFFERENCE:
                failures.append(
                    f"{name}: its probabilities must be the checkpoint's, got {logits[name]:.2f} from them in the "
                    "mean. Export it again."
                )
    own, remote = (logits.get(name) for name in ("with the package", "without the package"))
    if own and remote and max(abs(a - b) for a, b in zip(own, remote, strict=True)) > 1e-4:
        failures.append("without the package: its logits are others than with the package.")
    return failures


def space_failures(folder: Path) -> list[str]:
    """What fails when `app.py` of a Space is started: it has to answer on a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as empty:
        space = Path(shutil.copytree(folder, Path(empty) / "space"))  # Gradio writes files beside some modules
        variables = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "TMPDIR": empty}
        log = Path(empty) / "log"
        with log.open("w", encoding="utf-8") as written:
            process = subprocess.Popen(
                [sys.executable, "-s", "-B", "app.py"],
                cwd=space,
                env=offline(empty) | variables,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    with urlopen(f"http://127.0.0.1:{port}/config", timeout=5) as answer:
                        if answer.status == 200:
                            return []
                except (URLError, OSError):
                    time.sleep(0.2)
            return [f"app.py: the page does not answer ({last_line(log.read_text(encoding='utf-8'))})."]
        finally:
            process.terminate()
            process.wait(30)


def start(empty: str, code: str, *arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-s", "-B", "-P", "-c", code, *map(str, arguments)],
        cwd=empty,
        env=offline(empty),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def offline(empty: str) -> dict[str, str]:
    """This process's variables, without paths of Python and with a cache of their own."""
    others = ("PYTHONPATH", "EFP_AUTH", "HF_TOKEN")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return kept | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(Path(empty) / "hf"), "TRANSFORMERS_VERBOSITY": "error"}


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
