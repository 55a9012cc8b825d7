"""The optional packages, an extra of the installation a purpose, and one line where they are missing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from . import __version__

# extra of pyproject.toml → what its packages are imported as
EXTRAS = {
    "train": ("accelerate", "albumentations", "datasets", "evaluate", "imagehash", "pycocotools"),
    "app": ("gradio", "mcp"),
    "export": ("nncf", "onnx", "onnxruntime", "onnxscript", "openvino"),
    "executorch": ("executorch",),
    "bench": ("matplotlib", "monai", "onnx", "onnxruntime", "openvino", "pandas", "segmentation_models_pytorch"),
}

PACKAGE_NAMES = {"segmentation_models_pytorch": "segmentation-models-pytorch"}  # others are named as the module


def require(extra: str, purpose: str, modules: Iterable[str] | None = None) -> None:
    """
    Args:
        purpose: what needs it, the beginning of the message.
        modules: those that are needed of the extra's, by default all.

    Raises:
        ImportError: a module that is not installed, with the command that installs the extra.
    """
    missing = [PACKAGE_NAMES.get(module, module) for module in modules or EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise ImportError(
            f'{purpose} needs {", ".join(missing)} of efp-hf[{extra}]: pip install ".[{extra}]" in a clone, '
            f'or pip install "efp_hf-{__version__}-py3-none-any.whl[{extra}]" with the wheel.'
        )


@contextmanager
def needing(extra: str, purpose: str) -> Iterator[None]:
    """Around imports: where one fails because a package of the extra is missing, the error is that of [`require`]."""
    try:
        yield
    except ModuleNotFoundError:
        require(extra, purpose)
        raise
