"""The optional packages, an extra of the installation a purpose, and one line where they are missing."""

from collections.abc import Iterable
from importlib.util import find_spec

from . import __version__

# extra of pyproject.toml → what its packages are imported as
EXTRAS = {
    "train": ("accelerate", "albumentations", "datasets", "evaluate", "imagehash", "skimage"),
    "app": ("gradio", "mcp", "skimage"),
    "export": ("nncf", "onnx", "onnxruntime", "onnxscript", "openvino"),
    "executorch": ("executorch",),
}

PACKAGE_NAMES = {"skimage": "scikit-image"}  # of the others the name is that of the module


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
