"""Exported models in the place of PyTorch's: which runtime a folder is for, and its model ready to run."""

import json
from importlib.util import find_spec
from pathlib import Path

from transformers.exporters.base import EXPORT_MANIFEST_FILE, ExportedModel

PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
}
RUNTIMES = ("torch", *PACKAGES)


def require_packages(packages: tuple[str, ...], purpose: str) -> None:
    """
    Raises:
        ImportError: a package that is not installed, with the extra that brings it.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        extra = "executorch" if "executorch" in missing else "export"
        raise ImportError(f'{purpose} needs {", ".join(missing)}: pip install "efp-hf[{extra}]"')


def runtime_of(checkpoint: str | Path) -> str:
    """The runtime that a folder is exported for; "torch" for everything else, a checkpoint or a Hub id."""
    manifest = Path(checkpoint).expanduser() / EXPORT_MANIFEST_FILE
    return json.loads(manifest.read_text(encoding="utf-8"))["export_format"] if manifest.is_file() else "torch"


def load_exported(folder: str | Path) -> ExportedModel:
    """
    The model of an exported folder, ready to run. It is called like [`EFPForSegmentation`] with `pixel_values`
    `(batch_size, 3, height, width)` and returns an output with `logits`; it has `device`, `dtype` and `config`.

    Raises:
        ImportError: the runtime is not installed.
        OSError: a file of the folder is missing.
        ValueError: one is damaged.
    """
    runtime = runtime_of(folder)
    require_packages(PACKAGES.get(runtime, ()), f"{folder}: the runtime {runtime}")
    # on processors that know bfloat16, OpenVINO would else round every product to it
    options = {"device": "cpu", "config": {"INFERENCE_PRECISION_HINT": "f32"}} if runtime == "openvino" else {}
    try:
        return ExportedModel.from_pretrained(Path(folder).expanduser(), **options)
    except (OSError, ImportError):
        raise
    except Exception as error:  # each runtime has exceptions of its own
        raise ValueError(f"{folder}: the exported model is damaged ({error}). Export it again.") from error
