"""Masks as COCO JSON."""

import json

import numpy as np
import pytest
from PIL import Image

from efp_hf.review.coco import run_lengths, write_coco
from efp_hf.review.decisions import Decisions


def decode(segmentation) -> np.ndarray:
    """As COCO's own tools read run lengths."""
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(segmentation["size"], order="F").astype(bool)


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [
        ([[0, 1], [0, 1]], [2, 2]),
        ([[1, 0], [1, 1]], [0, 2, 1, 1]),
        ([[0, 0, 0]], [3]),
        ([[1], [1]], [0, 2]),
        ([[0, 1, 0], [1, 0, 1]], [1, 2, 2, 1]),
    ],
)
def test_run_lengths_go_down_the_columns_and_begin_with_skin(mask, lengths):
    assert run_lengths(np.array(mask, dtype=bool)) == lengths


def test_every_image_of_the_set_is_there_with_its_exact_mask(tmp_path):
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:20, 10:30] = True
    mask[10:12, 15:20] = False  # a hole, which polygons could not say
    store = Decisions(tmp_path / "set")
    for name, decision, kept in [("a", "accepted", mask), ("b", "no lesion", mask & False), ("c", "unusable", None)]:
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
        store.decide(tmp_path / f"{name}.png", decision, kept)
    mask_file = store.masks / "foreign_segmentation.png"
    for name in ("c.png", "foreign.png", "notes.txt"):  # what somebody else has put there
        (store.images / name).write_bytes((tmp_path / "a.png").read_bytes())
    mask_file.write_bytes((store.masks / "a_segmentation.png").read_bytes())
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes())
    store.decide(tmp_path / "d.png", "accepted", mask)
    (store.images / "d.png").unlink()  # it waits for another decision
    assert write_coco(store, tmp_path / "coco.json") == 2
    written = json.loads((tmp_path / "coco.json").read_text())
    sizes = [(image["file_name"], image["height"], image["width"]) for image in written["images"]]
    assert sizes == [("a.png", 30, 40), ("b.png", 30, 40)]
    (annotation,) = written["annotations"]
    assert annotation["image_id"] == written["images"][0]["id"]
    assert (annotation["bbox"], annotation["area"]) == ([10, 5, 20, 15], 300 - 10)
    assert (decode(annotation["segmentation"]) == mask).all()
    assert written["categories"] == [{"id": annotation["category_id"], "name": "lesion"}]
    write_coco(store, tmp_path / "cells.json", "cell")
    assert json.loads((tmp_path / "cells.json").read_text())["categories"][0]["name"] == "cell"
    with pytest.raises(FileExistsError, match="coco.json exists. Remove it, or choose another --coco."):
        write_coco(store, tmp_path / "coco.json")
