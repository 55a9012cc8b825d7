"""Damage to the CSV files that are read, gone on with, or appended to; `place.folder / place.image_id` is the table."""

import os

from ..damage import Case, Outcome, kind


def table(place):
    return place.folder / place.image_id


def changed(change):
    """A kind that changes the table's bytes."""

    def write(rng, place):
        path = table(place)
        path.write_bytes(change(path.read_bytes(), rng))
        return Case(path, Outcome.JUDGED)

    return write


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def insert(content: bytes, addition: bytes) -> bytes:
    """In the middle of the first row."""
    header, first, *rest = lines(content)
    return header + first[: len(first) // 2] + addition + first[len(first) // 2 :] + b"".join(rest)


CHANGES = {
    "last line cut": lambda content, rng: content[: -int(rng.integers(2, len(lines(content)[-1])))],
    "no newline at its end": lambda content, rng: content.rstrip(b"\n"),
    "header cut": lambda content, rng: content[: int(rng.integers(1, len(lines(content)[0]) - 1))],
    "latin-1": lambda content, rng: insert(content, b"\xe4\xfc"),
    "NUL byte": lambda content, rng: insert(content, b"\0"),
    "huge field": lambda content, rng: insert(content, b"x" * 300_000),
    "semicolons": lambda content, rng: content.replace(b",", b";"),
    "byte order mark": lambda content, rng: b"\xef\xbb\xbf" + content,
    "quote that stays open": lambda content, rng: insert(content, b',"'),
    "doubled header column": lambda content, rng: content.replace(b"\n", b",date\n", 1),
    "header twice": lambda content, rng: lines(content)[0] + content,
    "missing column": lambda content, rng: b"".join(line.split(b",", 1)[1] for line in lines(content)),
    "one column more": lambda content, rng: content.replace(b"\n", b",more\n"),
    "columns in another order": lambda content, rng: b"".join(
        b",".join(reversed(line.rstrip(b"\n").split(b","))) + b"\n" for line in lines(content)
    ),
    "binary": lambda content, rng: rng.bytes(2000),
    "pickle": lambda content, rng: b"\x80\x04cposix\nmkdir\n(X\x08\0\0\0executedtR.",
    "empty": lambda content, rng: b"",
    "one newline": lambda content, rng: b"\n",
    "header alone": lambda content, rng: lines(content)[0],
    "line ends of Windows": lambda content, rng: content.replace(b"\n", b"\r\n"),
    "line ends of old Macs": lambda content, rng: content.replace(b"\n", b"\r"),
    "UTF-16": lambda content, rng: content.decode().encode("utf-16"),
    "row with too few fields": lambda content, rng: content + b"a,b\n",
    "row with too many fields": lambda content, rng: content + b"a," * 100 + b"\n",
    "blank lines between rows": lambda content, rng: content.replace(b"\n", b"\n\n"),
    "HTML": lambda content, rng: b"<!DOCTYPE html><html><body>Sign in</body></html>",
}
for _name, _change in CHANGES.items():
    kind("table", _name)(changed(_change))


@kind("table")
def folder_in_its_place(rng, place):
    table(place).unlink()
    table(place).mkdir()
    return Case(table(place), Outcome.JUDGED)


@kind("table")
def pipe_in_its_place(rng, place):
    table(place).unlink()
    os.mkfifo(table(place))
    return Case(table(place), Outcome.JUDGED)


@kind("table")
def link_to_nothing_in_its_place(rng, place):
    table(place).unlink()
    table(place).symlink_to(place.outside / "no" / "table.csv")
    return Case(table(place), Outcome.JUDGED)


@kind("table")
def unreadable_table(rng, place):
    table(place).chmod(0)
    return Case(table(place), Outcome.JUDGED)


@kind("table")
def table_that_cannot_be_written(rng, place):
    table(place).chmod(0o400)
    return Case(table(place), Outcome.JUDGED)
