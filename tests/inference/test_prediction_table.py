import csv
import resource

import pytest

from efp_hf.inference.prediction_table import (
    COLUMNS,
    PredictionTable,
    is_made_from,
    join_parts,
    made_from,
    printable,
    read_files,
    read_lines,
    start_table,
    table_path,
    table_text,
)


def names_in(path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["image"] for row in csv.DictReader(file)]


def write_part(output, part: int, names: list[str]) -> None:
    with PredictionTable(table_path(output, part)) as table:
        for name in names:
            table.append({"image": name, "error": f"of part {part}"})


def test_row_that_the_disk_takes_half_of_is_taken_back(tmp_path):
    path = table_path(tmp_path)
    with PredictionTable(path) as table:
        table.append({"image": "one.jpg"})
        before = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # Python ignores the signal
        try:
            with pytest.raises(OSError, match="File too large"):
                table.append({"image": "two.jpg", "error": "x" * 50})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before
        table.append({"image": "three.jpg"})
    assert names_in(path) == ["one.jpg", "three.jpg"]


def test_parts_are_joined_in_the_order_of_the_images(tmp_path):
    start_table(tmp_path, [dict.fromkeys(COLUMNS, "") | {"image": "earlier.jpg"}])
    write_part(tmp_path, 0, ["c.jpg", "a.jpg", "a.jpg"])
    write_part(tmp_path, 1, ["d.jpg", "b.jpg"])
    join_parts(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "a.jpg", "d.jpg"])
    assert names_in(table_path(tmp_path)) == ["earlier.jpg", "a.jpg", "b.jpg", "c.jpg", "a.jpg", "d.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_parts_stay_where_a_row_is_missing(tmp_path):
    start_table(tmp_path, [])
    write_part(tmp_path, 1, ["b.jpg"])
    with pytest.raises(FileNotFoundError, match="1 rows that were written are gone"):
        join_parts(tmp_path, ["a.jpg", "b.jpg"])
    assert names_in(table_path(tmp_path, 1)) == ["b.jpg"]


def test_start_removes_parts_and_hidden_files_of_a_killed_run_and_nothing_else(tmp_path):
    write_part(tmp_path, 12, ["b.jpg"])
    kept = {".mine.png", "predictions.part-x.csv", "a_segmentation.png", ".12-notes.txt"}
    for name in {".12-a_segmentation.png", ".3-predictions.csv", ".3-a_overlay.jpg", *kept}:
        (tmp_path / name).touch()
    (tmp_path / ".7-b_segmentation.png").mkdir()
    start_table(tmp_path, [])
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.csv", ".7-b_segmentation.png", *kept}


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"image,hei", []),  # a part that was killed at its header
        ((",".join(COLUMNS) + "\nwhole\ncu").encode(), ["whole"]),
    ],
)
def test_cut_table_gives_its_whole_lines(tmp_path, content, lines):
    path = table_path(tmp_path)
    path.write_bytes(content)
    assert read_lines(path) == lines


def test_text_of_a_table_is_printable_and_no_formula():
    assert printable("a\nb\x1b[2J\udce9\u202eé") == "a\\nb\\x1b[2J\\xe9\\u202eé"
    assert [table_text(value) for value in ("=1", "+1", "-1", "@a", "a=1", -1, 0.5)] == [
        "'=1",
        "'+1",
        "'-1",
        "'@a",
        "a=1",
        "-1",
        "0.5",
    ]
    assert table_text(table_text("=a\n")) == table_text("=a\n")


def test_a_further_file_that_was_changed_makes_another_image(tmp_path):
    image, further = tmp_path / "a.png", (tmp_path / "a_2.png",)
    image.write_bytes(b"photo")
    further[0].write_bytes(b"map")
    row = {"made_by": made_from("weights", read_files(image, further))}
    assert is_made_from(row, image, further, "weights")
    further[0].write_bytes(b"another map")
    assert not is_made_from(row, image, further, "weights")
