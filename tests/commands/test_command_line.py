"""What all commands have in common: help, exit codes, missing extras, the entry point."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import REPOSITORY

from efp_hf import __main__, __version__
from efp_hf.commands import COMMANDS
from efp_hf.extras import EXTRAS, require

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("arguments", [(), ("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_fits_a_screen_and_shows_an_example(efp, arguments):
    ran = efp(*arguments)
    lines = ran.out.splitlines()
    assert ran.code == 0 and len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert f"  efp {arguments[0] if len(arguments) == 2 else 'predict'} " in ran.out


def test_every_command_is_a_file(efp):
    files = {path.stem for path in (REPOSITORY / "efp_hf" / "commands").glob("*.py")}
    assert files == {*COMMANDS, "__init__", "arguments", "interruption", "precision"}
    assert all(f"\n  {name} " in efp().out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_spelled_with_dashes(efp, name):
    options = re.findall(r"^ +(?:-h, )?(--\S+)", efp(name, "--help").out, re.MULTILINE)
    assert len(options) >= 4 and not any("_" in option for option in options)


def test_unknown_words_are_refused_with_two(efp):
    ran = efp("predit", "photo.jpg")
    assert ran.code == 2 and "invalid choice: 'predit'" in ran.err
    assert "unrecognized arguments: --overl" in efp("predict", "photo.jpg", "--overl").err


def test_version_and_entry_point(efp):
    assert efp("--version").out == f"efp {__version__}\n"
    assert PROJECT["scripts"] == {"efp": "efp_hf.__main__:main"}


def test_older_pythons_are_told_in_a_sentence(monkeypatch):
    source = (REPOSITORY / "efp_hf" / "__main__.py").read_text()
    ast.parse(source, feature_version=(3, 8))
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(SystemExit, match=r"^efp needs Python 3.11 or newer, got 3.9.$"):
        __main__.main([])
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("train", "--data", "synthetic", "--output", "run"), "albumentations", "train"),
        (("score", "--data", "synthetic"), "evaluate", "train"),
        (("calibrate", "--checkpoint", ".", "--data", "synthetic"), "datasets", "train"),
        (("export", "--to", "onnx", "--int8", "--data", "synthetic"), "datasets", "train"),
        (("app",), "gradio", "app"),
    ],
)
def test_missing_extra_is_one_line_with_the_command_that_installs_it(
    efp, monkeypatch, tmp_path, arguments, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    ran = efp(*arguments)
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert f"efp {arguments[0]}" in ran.err and f"needs {module} of efp-hf[{extra}]: " in ran.err
    assert f'pip install ".[{extra}]" in a clone' in ran.err
    assert f'pip install "efp_hf-{__version__}-py3-none-any.whl[{extra}]" with the wheel' in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_import_without_the_extra_says_so():
    program = """
import sys
from importlib import import_module
sys.modules["datasets"] = None
for module in ("efp_hf.training.trainer", "efp_hf.data.lesions"):
    try:
        import_module(module)
    except ImportError as error:
        print(str(error).splitlines()[-1])
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == 2 and all(" needs datasets of efp-hf[train]: pip install " in line for line in lines)


def test_extras_of_the_messages_are_those_of_the_project():
    distributions = {"skimage": "scikit-image", "mcp": "gradio[mcp]"}
    for extra, modules in EXTRAS.items():
        declared = " ".join(PROJECT["optional-dependencies"][extra])
        for module in modules:
            name = distributions.get(module, module)
            assert name.replace("_", "-") in declared.replace("_", "-"), (extra, module)


def test_require_names_only_what_is_missing():
    require("train", "This", ["torch"])
    with pytest.raises(ImportError, match=r"^This needs no_such_module of efp-hf\[train\]: pip install "):
        require("train", "This", ["torch", "no_such_module"])


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("train", "--data", "/nowhere", "--output", "run", "--image-size", "0"), "--image-size"),
        (("train", "--data", "/nowhere", "--output", "run", "--image-size", "-5"), "--image-size"),
        (("calibrate", "--checkpoint", ".", "--data", "/nowhere", "--image-sizes", "96", "0"), "--image-sizes"),
        (
            ("export", "--to", "onnx", "--int8", "--data", "/nowhere", "--calibration-images", "0"),
            "--calibration-images",
        ),
        (("score", "--data", "/nowhere", "--batch-size", "many"), "--batch-size"),
    ],
)
def test_what_is_counted_is_at_least_one(efp, tmp_path, arguments, option):
    ran = efp(*arguments)
    assert ran.code == 2 and not list(tmp_path.iterdir())
    assert ran.err == f"efp {arguments[0]}: argument {option}: must be at least 1, got {arguments[-1]}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "photo.jpg"),
        ("score", "--data", "/nowhere"),
        ("calibrate", "--checkpoint", ".", "--data", "/nowhere"),
        ("export", "--to", "hub"),
        ("train", "--data", "/nowhere"),
    ],
)
def test_output_is_checked_before_the_work(efp, monkeypatch, tmp_path, arguments):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for output, words in (("file/out", "file is a file"), ("dangling", "dangling is a link to nothing")):
        ran = efp(*arguments, "--output", output)
        assert (ran.code, ran.err) == (2, f"efp {arguments[0]}: {words}. Choose another --output.\n")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    ran = efp(*arguments, "--output", "new/out")
    assert (ran.code, ran.err) == (2, f"efp {arguments[0]}: . cannot be written to. Choose another --output.\n")


@pytest.mark.parametrize(
    "arguments", [("predict", "photo.jpg"), ("train", "--data", "/nowhere"), ("export", "--to", "hub")]
)
def test_output_may_begin_with_the_home_folder_and_is_not_empty(efp, monkeypatch, tmp_path, arguments):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").touch()
    ran = efp(*arguments, "--output=~/file")
    assert (ran.code, ran.err) == (2, f"efp {arguments[0]}: {tmp_path}/home/file is a file. Choose another --output.\n")
    ran = efp(*arguments, "--output", "")
    assert (ran.code, ran.err) == (2, f"efp {arguments[0]}: argument --output: must not be empty\n")


def test_help_names_the_exit_codes(efp):
    assert [code for code in (0, 1, 2, 130) if f"\n  {code} " in efp("--help").out] == [0, 1, 2, 130]
