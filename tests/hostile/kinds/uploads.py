"""Damage to what people send to the page: zips, and arguments of its functions."""

import io
import struct
import zipfile

from ..damage import Case, Outcome, cut, flip_bits, kind
from .images import jpeg, payload


def packed(members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def zip_of(name: str, content, outcome: Outcome = Outcome.JUDGED):
    """`place.folder` gets a zip; the photo in it that is good is called good.jpg."""

    def write(rng, place):
        path = place.folder / f"{place.image_id}.zip"
        path.write_bytes(content(rng, place))
        return Case(path, outcome)

    kind("zip", name)(write)


def good(place, **more) -> bytes:
    return packed({"good.jpg": jpeg(place), **more})


def renamed(name: bytes, rng, place) -> bytes:
    """A name that `zipfile` itself would not write."""
    content = packed({"good.jpg": jpeg(place), "N" * len(name): jpeg(place)})
    return content.replace(b"N" * len(name), name)


def patched(content: bytes, at: bytes, offset: int, value: bytes) -> bytes:
    start = content.rindex(at) + offset
    return content[:start] + value + content[start + len(value) :]


def with_link(rng, place) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.jpg", jpeg(place))
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return file.getvalue()


zip_of("right", lambda rng, place: good(place), Outcome.READ)
zip_of("cut", lambda rng, place: cut(good(place), rng, 0, 0.98), Outcome.REFUSED)
zip_of("empty file", lambda rng, place: b"", Outcome.REFUSED)
zip_of("without members", lambda rng, place: packed({}), Outcome.REFUSED)
zip_of("folders alone", lambda rng, place: packed({"a/": b"", "b/": b""}), Outcome.REFUSED)
zip_of("random bytes", lambda rng, place: b"PK\x03\x04" + rng.bytes(2000), Outcome.REFUSED)
zip_of("text", lambda rng, place: b"no zip", Outcome.REFUSED)
zip_of("pickle", lambda rng, place: payload(place), Outcome.REFUSED)
zip_of("flipped bits", lambda rng, place: flip_bits(good(place), rng, count=5))
zip_of("flipped bits in the directory", lambda rng, place: flip_bits(good(place), rng, -76, -1, count=3))
zip_of("members of a bad kind", lambda rng, place: good(place, **{"bad.jpg": b"text", "empty.png": b""}))
zip_of("names out of the folder", lambda rng, place: good(place, **{"../../evil.jpg": b"x", "/tmp/evil.png": b"x"}))
zip_of("names of Windows", lambda rng, place: good(place, **{"..\\..\\evil.jpg": b"x", "C:\\evil.png": b"x"}))
zip_of("name with a NUL", lambda rng, place: renamed(b"nul\0l.jpg", rng, place))
zip_of("name that is not UTF-8", lambda rng, place: renamed(b"\xff\xfe\xe4\xf6.jpg", rng, place))
zip_of("name of 60000 characters", lambda rng, place: good(place, **{"n" * 60_000 + ".jpg": jpeg(place)}))
zip_of("name of dots", lambda rng, place: good(place, **{"..": b"x", "a/..": b"x", "....jpg": jpeg(place)}))
zip_of("name with lines and colours", lambda rng, place: good(place, **{"a\nb\x1b[31m.jpg": jpeg(place)}))
zip_of("markup in a name", lambda rng, place: good(place, **{"<img src=x onerror=alert(1)>.jpg": b"bad"}))
zip_of("one name twice", lambda rng, place: good(place, **{"a/good.jpg": jpeg(place), "b/good.png": jpeg(place)}))
zip_of("zip in a zip", lambda rng, place: good(place, **{"inner.zip": good(place)}))
zip_of("zip named as an image in it", lambda rng, place: good(place, **{"inner.jpg": good(place)}))
zip_of("link", with_link)
zip_of("encrypted flag", lambda rng, place: patched(good(place), b"PK\x01\x02", 8, struct.pack("<H", 1)))
zip_of("method that nobody knows", lambda rng, place: patched(good(place), b"PK\x01\x02", 10, struct.pack("<H", 97)))
zip_of("checksum that lies", lambda rng, place: patched(good(place), b"PK\x01\x02", 16, rng.bytes(4)))
zip_of("size that lies", lambda rng, place: patched(good(place), b"PK\x01\x02", 24, struct.pack("<I", 3)))
zip_of("size of four gigabytes", lambda rng, place: patched(good(place), b"PK\x01\x02", 24, b"\xfe\xff\xff\xff"))
zip_of("offset that lies", lambda rng, place: patched(good(place), b"PK\x01\x02", 42, struct.pack("<I", 10**8)))
zip_of(
    "directory size that lies", lambda rng, place: patched(good(place), b"PK\x05\x06", 12, struct.pack("<I", 10**6 - 1))
)
zip_of("bomb", lambda rng, place: good(place, **{"zeros.png": bytes(120_000_000)}))
zip_of("many bombs", lambda rng, place: packed({f"{k}.png": bytes(10_000_000) for k in range(60)}), Outcome.REFUSED)
zip_of("bzip2", lambda rng, place: packed({"good.jpg": jpeg(place)}, zipfile.ZIP_BZIP2))
zip_of("lzma", lambda rng, place: packed({"good.jpg": jpeg(place)}, zipfile.ZIP_LZMA))
zip_of("101 images", lambda rng, place: packed({f"{k}.jpg": b"x" for k in range(101)}), Outcome.REFUSED)
zip_of(
    "60000 members",
    lambda rng, place: packed({f"{k}": b"" for k in range(60_000)}, zipfile.ZIP_STORED),
    Outcome.REFUSED,
)
zip_of("garbage before it", lambda rng, place: rng.bytes(1000) + good(place))
zip_of("garbage behind it", lambda rng, place: good(place) + rng.bytes(1000))
zip_of("comment", lambda rng, place: patched(good(place), b"PK\x05\x06", 20, struct.pack("<H", 65535)) + bytes(65535))


WRONG_PATHS = (
    None,
    "",
    "nothing.jpg",
    "https://127.0.0.1:9/photo.jpg",
    "file:///etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "/",
    ".",
    "data:image/png;base64,AAAA",
    "nul\0name.jpg",
    "x" * 5000,
    "\ud800.jpg",
)
WRONG_THRESHOLDS = (0, 1, -1, 2, float("nan"), float("inf"), "0.5", "x", [], {}, True, 1e-320)
WRONG_SCALES = (-1, 1e-200, 1e200, float("nan"), float("inf"), "forty", [], {}, True)
WRONG_REGIONS = ("yes", 5, [], {}, float("nan"))


def argument(name: str, values: tuple):
    def write(rng, place):
        value = values[place.seed % len(values)]
        return Case(place.folder / name, Outcome.JUDGED, inputs=[name, value])

    kind("page", f"wrong {name}")(write)


argument("image", WRONG_PATHS)
argument("truth", WRONG_PATHS)
argument("files", (None, [], *([path] for path in WRONG_PATHS if path is not None), ["nothing.jpg", "photo.zip"]))
argument("threshold", WRONG_THRESHOLDS)
argument("pixels_per_mm", WRONG_SCALES)
argument("largest_region", WRONG_REGIONS)
