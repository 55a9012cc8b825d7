"""Who may import whom."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "efp_hf"
HUB_FILES = {"configuration_efp", "modeling_efp", "loss_efp", "image_processing_efp"}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str, name: str, is_package: bool = False) -> set[str]:
    """The modules that a module's source imports, at its top and in its functions; relative ones in full."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            parents = name.split(".")
            parents = parents[: len(parents) + is_package - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            modules = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            # names that are no modules come from the package itself
            found |= modules if len(modules) == len(node.names) else modules | {base}
    return found


@cache
def imports_of(name: str) -> frozenset[str]:
    path = MODULES[name]
    return frozenset(imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py"))


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_imports_are_seen_wherever_they_stand():
    source = """
import os.path
from ..metrics import jaccard
from . import rows
def later():
    from ..study.tables import read_results
"""
    found = imports(source, "efp_hf.metrics.card")
    assert found == {"os.path", "efp_hf.metrics", "efp_hf.metrics.rows", "efp_hf.study.tables"}
    assert imports("from .scores import jaccard", "efp_hf.metrics", is_package=True) == {"efp_hf.metrics.scores"}


def test_product_never_imports_the_study():
    product = {name for name in MODULES if not is_inside(name, "efp_hf.study")}
    assert "efp_hf.commands.predict" in product
    entering = {name for name in product if any(is_inside(module, "efp_hf.study") for module in imports_of(name))}
    assert entering == set()
    assert not any(is_inside(module, "efp_hf.study") for module in imports((REPOSITORY / "app.py").read_text(), "app"))


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {name: imports_of(name) & MODULES.keys() - {name} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("name", sorted(HUB_FILES))
def test_files_for_the_hub_import_their_siblings_alone(name):
    source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    own = {module for module in imports(source, f"efp_hf.{name}") if is_inside(module, "efp_hf")}
    assert own <= {f"efp_hf.{sibling}" for sibling in HUB_FILES}
    absolute = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and not node.level]
    assert not any(is_inside(node.module, "efp_hf") for node in absolute)
