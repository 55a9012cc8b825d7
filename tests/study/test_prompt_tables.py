"""The tables and figures of clicks and boxes, from rows as `efp score --prompts` writes them."""

import numpy as np
import pytest
from conftest import tiny_model

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.inference.checkpoint import weights_digest
from efp_hf.metrics.correction import CLICKS, PERFECT, summarize_corrections
from efp_hf.metrics.rows import append_row
from efp_hf.study.prompt_figures import clicks_figure, corrections_figure
from efp_hf.study.prompt_tables import PUBLISHED, prompts_block, short_cells


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "efp-some"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def with_expected(image):
    return {name: [(j, 0.8) for j in values] for name, values in image.items() if name != "image_id"}


def write(results, corrected, **columns):
    corrected = [image if image is PERFECT else with_expected(image) for image in corrected]
    row = {"data": "isic", "split": "test", "split_seed": 0, "images": len(corrected)}
    row |= {"date": "today", "commit": "0123", "hardware": "a machine"} | columns
    for name, rows in zip(("prompts", "number_of_clicks"), summarize_corrections(corrected), strict=True):
        for scores in rows:
            append_row(results / f"{name}.csv", row | scores)


def test_what_is_not_measured_is_said_with_its_command(tmp_path, checkpoint):
    block = prompts_block(tmp_path, (checkpoint,))
    assert block.startswith(
        "`efp-some` is not yet measured: `efp score --data ISIC_FOLDER --prompts --checkpoint efp-some"
    )
    write(tmp_path, [PERFECT], weights="another")
    write(tmp_path, [PERFECT], weights=weights_digest(checkpoint), split="validation")
    assert short_cells(tmp_path, checkpoint) == ["–"] * 4
    assert prompts_block(tmp_path, (checkpoint,)) == block and block.endswith(PUBLISHED)


def test_newest_rows_are_shown_line_by_line(tmp_path, checkpoint):
    rising = [0.6, 0.7, 0.82, 0.87, *[0.92] * 17]
    image = {"image_id": "a", "clicks": rising, "clicks_anywhere": [0.5] * 21, "boxes": [0.9, 0.8, 0.7]}
    write(tmp_path, [PERFECT], weights=weights_digest(checkpoint))
    write(tmp_path, [image | {"grabcut": [0.6, 0.5, 0.4]}], weights=weights_digest(checkpoint))
    lines = prompts_block(tmp_path, (checkpoint,)).splitlines()
    assert "| nothing | 0.600 [0.600 … 0.600] | 0.800 | 0.750 | 100.0% | 0.500 |" in lines
    assert "| 1 click | 0.700 [0.700 … 0.700] | 0.800 | 0.824 | 0.0% | 0.500 |" in lines
    assert "| 10 clicks | 0.920 [0.920 … 0.920] | 0.800 | 0.958 | 0.0% | 0.500 |" in lines
    assert "| exact box | 0.900 [0.900 … 0.900] | 0.800 | 0.947 | 0.0% | – |" in lines
    assert "| box up to 10% off | 0.700 [0.700 … 0.700] | 0.800 | 0.824 | 0.0% | – |" in lines
    assert "| GrabCut, box up to 5% off | 0.500 [0.500 … 0.500] | 0.800 | 0.667 | 100.0% | – |" in lines
    assert "| 0.85 | 3.00 [3.00 … 3.00] | 0.0% | 20.00 [20.00 … 20.00] | 100.0% |" in lines
    assert sum(line.startswith("| ") for line in lines) == 2 + 6 + 3 + 3 + 3
    assert short_cells(tmp_path, checkpoint) == ["0.700", "0.870", "0.920", "0.900"]
    assert lines[0].startswith("`efp-some`, 1 images of the test split (seed 0) of isic")


def test_figures_show_the_rows_and_the_masks_of_prompts(tmp_path, checkpoint, synthetic_root):
    with pytest.raises(FileNotFoundError, match="efp-some has no row: efp score"):
        clicks_figure(tmp_path, (checkpoint, checkpoint))
    rising = list(np.linspace(0.6, 0.9, 21))
    image = {"image_id": "a", "clicks": rising, "clicks_anywhere": rising, "boxes": [0.9, 0.8, 0.7]}
    write(tmp_path, [image | {"grabcut": [0.6, 0.5, 0.4]}], weights=weights_digest(checkpoint))
    panel, boxes = clicks_figure(tmp_path, (checkpoint, checkpoint)).axes
    assert panel.lines[0].get_ydata().tolist() == pytest.approx([rising[n] for n in CLICKS], abs=1e-6)
    assert [line.get_ydata().tolist() for line in boxes.lines[1:]] == [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]

    dataset = load_isic(synthetic_root)["train"]
    figure = corrections_figure(dataset, tiny_model(prompt_size=4), EFPImageProcessor(size={"height": 32, "width": 32}))
    assert len(figure.axes) == 6 * 4
    assert all(panel.texts[0].get_text().startswith("J ") for panel in figure.axes)
    assert len(figure.axes[-1].patches) == 1  # the box
