"""The pages of the documentation as MkDocs builds them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

FETCHED = re.compile(
    r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*"(?:https?:)?//'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_a_page_fetches_nothing_from_the_network(site):
    pages = list(site.glob("**/*.html"))
    assert len(pages) > 8
    assert [page.name for page in pages if FETCHED.search(page.read_text())] == []


@pytest.mark.slow
def test_references_in_docstrings_become_links(site):
    api = (site / "api" / "index.html").read_text()
    assert 'href="#efp_hf.inference.checkpoint.find_checkpoint"' in api
    assert "[<code>" not in api
    row = re.search(r"<code>pyramid_size</code>.*?</tr>", api, re.DOTALL)[0]  # (`int`, defaults to 128)
    assert re.findall(r"<code>(?:<[^>]*>)?([^<]*)<", row) == ["pyramid_size", "int", "128"]
