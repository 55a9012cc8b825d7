import csv
import errno
import multiprocessing
from itertools import product
from pathlib import Path

import pytest

import efp_hf.metrics.rows as rows_module
from efp_hf.metrics.rows import append_row, check_columns, provenance, read_rows, shorten


def test_rows_are_appended_under_one_header(tmp_path):
    path = tmp_path / "results" / "scores.csv"
    for seed in (0, 1):
        append_row(path, {"seed": seed, "jaccard": 0.5 + seed})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["seed", "jaccard"], ["0", "0.5"], ["1", "1.5"]]


def test_row_with_other_columns_is_refused_and_nothing_written(tmp_path):
    path = tmp_path / "scores.csv"
    append_row(path, {"seed": 0, "jaccard": 0.5})
    before = path.read_text()
    with pytest.raises(ValueError, match=r"has the columns \['seed', 'jaccard'\], the row \['seed', 'dice'\]"):
        append_row(path, {"seed": 0, "dice": 0.5})
    assert path.read_text() == before


def folder_at(path):
    path.mkdir()


def link_to_nothing(path):
    path.symlink_to(path.with_name("nothing"))


def link_in_a_circle(path):
    path.symlink_to(path)


def content(data):
    return lambda path: path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (folder_at, "must be a file that can be read and written"),
        (link_to_nothing, "is a link to nothing"),
        (link_in_a_circle, "is a link to nothing"),
        (content(b"\x89PNG\r\n\x1a\n\x00\xff"), "must be a table in UTF-8"),
        (content("seed,jaccard\n1,ü\n".encode("latin-1")), "must be a table in UTF-8"),
        (content(b"seed,jaccard\n1,2\n\x00\x00\x00\x00"), "must be a table in UTF-8, got a zero byte"),
        (content(b"seed" * 50_000), "must be a table in UTF-8, got field larger than field limit"),
        (content(b"seed,jaccard\n0,0.5\n1,0.2"), "must end with a line break: its last line was cut off"),
        (content(b'seed,jaccard\n0,0.5\n1,"0.2'), "must end with a line break: its last line was cut off"),
        (content(b"{}\n"), r"has the columns \['{}'\]"),
    ],
)
def test_what_is_no_whole_table_is_refused_and_stays(tmp_path, make, words):
    path = tmp_path / "scores.csv"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for refuse in (
        lambda: check_columns(path, ["seed", "jaccard"]),
        lambda: append_row(path, {"seed": 0, "jaccard": 1}),
    ):
        with pytest.raises(ValueError, match=f"scores.csv {words}") as error:
            refuse()
        assert len(str(error.value)) < 500
    assert before is None or path.read_bytes() == before


def test_empty_file_gets_the_header(tmp_path):
    (tmp_path / "scores.csv").touch()
    append_row(tmp_path / "scores.csv", {"seed": 0})
    assert (tmp_path / "scores.csv").read_text() == "seed\n0\n"


def append_many(path, process):
    for number in range(50):
        append_row(path, {"process": process, "number": number, "text": "x" * 5000})


def test_rows_of_several_processes_are_whole_under_one_header(tmp_path):
    path = tmp_path / "scores.csv"
    processes = [multiprocessing.get_context("fork").Process(target=append_many, args=(path, n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    rows = read_rows(path)
    assert sorted((int(row["process"]), int(row["number"])) for row in rows) == list(product(range(4), range(50)))
    assert {row["text"] for row in rows} == {"x" * 5000}


def test_row_that_does_not_fit_on_the_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    append_row(path, {"seed": 0, "jaccard": 0.5})
    before = path.read_bytes()

    def fill_up(file, data):
        file.write(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows_module, "write_all", fill_up)
    with pytest.raises(OSError, match="No space left"):
        append_row(path, {"seed": 1, "jaccard": 0.5})
    assert path.read_bytes() == before


def test_provenance_names_command_versions_and_hardware(monkeypatch):
    monkeypatch.setattr("sys.argv", ["scripts/score.py", "--data", "/somewhere/else/isic2018", "--seed", "3"])
    row = provenance()
    assert row["command"] == "python scripts/score.py --data isic2018 --seed 3"
    assert all(row[name] for name in ("date", "efp_hf", "torch", "transformers", "hardware"))


def test_secrets_are_not_written(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--hub_token", "hf_1", "--seed", "3", "--token=hf_2", "--key", "hf_3"])
    assert provenance()["command"] == "python train.py --hub_token '***' --seed 3 '--token=***' --key '***'"


def test_paths_of_the_machine_are_not_written():
    assert shorten("/home/somebody/images") == "images"


def test_folders_of_a_person_are_in_no_row():
    assert shorten("--data=/home/somebody/patients") == "--data=patients"
    assert shorten("../somebody/patients") == "patients" and shorten("--seed=3") == "--seed=3"
    assert shorten(str(Path.cwd() / "runs" / "efp")) == "runs/efp"
    assert shorten("checkpoints/efp-isic") == "checkpoints/efp-isic"


def test_path_is_shortened_where_the_working_folder_was_deleted(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shorten("/home/somebody/images") == "images"
