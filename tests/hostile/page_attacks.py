"""What is sent to the page: names, paths, values, images and zips that nobody honest sends."""

import io
import json
import random
import struct
import zipfile
import zlib
from pathlib import Path

from conftest import REPOSITORY
from PIL import Image

# fmt: off
HOSTILE_NAMES = [
    "../../escaped.jpg", "/tmp/absolute.jpg", "..\\..\\windows.jpg", "C:\\absolute.jpg", "..", ".", "...", "/", "",
    " ", "\t", "a\0b.jpg", "a\nb.jpg", "a\r\nX-Evil: 1.jpg", "x" * 300 + ".jpg", "é" * 200 + ".jpg",
    "😀" * 80 + ".jpg", "." + "x" * 300, "x." + "y" * 300, "😀.jpg", "\u202egpj.exe", "مرحبا.jpg", "e\u0301.jpg",
    "\ufeffphoto.jpg", "\u0000", "-rf.jpg", "--help", "CON", "con.jpg", "NUL.tar.jpg", "COM1", "photo.jpg.",
    "photo.jpg ", ".htaccess", ".bashrc", "~", "~root.jpg", "$(id).jpg", "`id`.jpg", "a;b|c&d.jpg", "*?.jpg",
    "%00.jpg", "%2e%2e%2fescaped.jpg", "<img src=x onerror=alert(1)>.jpg", '"><script>alert(1)</script>.jpg',
    "=HYPERLINK(1).jpg", "photo.svg", "photo.html", "photo.xhtml", "photo.xml", "photo.js", "photo.php", "photo.pdf",
    "photo.jpg.html", "photo.html.jpg", "state.json", "config.json", "__init__.py", "masks.zip", "predictions.csv",
    "photo", "photo.JPG", "{{7*7}}.jpg",
]
HOSTILE_VALUES = [
    "NaN", "Infinity", "-Infinity", "-1", "2", "1e308", "-1e308", "1" + "0" * 400, "1e999", "true", "null", '""',
    '"x"', '"0.5"', '"NaN"', '"\\u0000"', '"\\ud800"', json.dumps("x" * 100_000), "[]", "[[]]", "[0.5]", "{}",
    '{"value": 0.5}', '{"path": null}', '{"path": 5}', '{"__type__": "update"}',
    '{"path": "x", "meta": {"_type": "gradio.FileData"}}', "[" * 400 + "]" * 400, '{"a":' * 400 + "1" + "}" * 400,
]
# fmt: on


def as_file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def hostile_paths(secret: Path, uploads: Path) -> list[str]:
    """Ways to name a file that was not uploaded."""
    up = "../" * 12
    name = str(secret)
    return [
        "/etc/passwd",
        name,
        f"file://{name}",
        f"FILE://{name}",
        f"file:{name}",
        f"{up}etc/passwd",
        f"{uploads}/../secret.jpg",
        f"{uploads}/{up}etc/passwd",
        f"{uploads}/./../secret.jpg",
        f"{uploads}//../secret.jpg",
        f"{uploads}/..;/secret.jpg",
        f"{uploads}/....//secret.jpg",
        f"{uploads}/%2e%2e/secret.jpg",
        f"{uploads}/..%2fsecret.jpg",
        f"{uploads}/%252e%252e%252fsecret.jpg",
        f"{uploads}/..%c0%afsecret.jpg",
        f"{uploads}/..\\secret.jpg",
        f"{uploads}/link.jpg",
        f"{uploads}/folder_link/secret.jpg",
        f"{name}\0.jpg",
        f"{uploads}/\0{name}",
        f"{uploads}/\n/../secret.jpg",
        str(uploads),
        f"{uploads}/",
        f"{uploads}/.",
        "",
        ".",
        "..",
        "/",
        "~",
        "~root/.bashrc",
        "pyproject.toml",
        "app.py",
        str(REPOSITORY / "pyproject.toml"),
        ".git/config",
        "/proc/self/environ",
        f"/proc/self/root{name}",
        f"/proc/self/cwd/../..{name}",
        "/dev/zero",
        "/dev/stdin",
        "/dev/fd/0",
        "C:\\Windows\\win.ini",
        "C:/Windows/win.ini",
        "\\\\server\\share\\photo.jpg",
        "//server/share/photo.jpg",
        "CON",
        "/" + "x" * 300,
        "/x" * 3000,
        "/gradio_api/file=" + name,
    ]


def png(width: int, height: int, bits: int = 8, color: int = 2, rows: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def hostile_images(photo: bytes) -> dict[str, bytes]:
    grey = Image.new("L", (32, 32))
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    entity = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>'
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\nshowpage\n"
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as packed:
        packed.writestr("a.html", "<script>alert(1)</script>")
    return {
        "svg": svg,
        "svg with an entity": entity,
        "html": b"<!doctype html><script>alert(1)</script>",
        "html behind a GIF's head": b"GIF89a/*<script>alert(1)</script>*/=1;",
        "PostScript": postscript,
        "PDF": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n",
        "ImageMagick": b"push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'url(http://127.0.0.1/)'\n"
        b"pop graphic-context\n",
        "PPM": b"P6 9 9 255\n" + bytes(243),
        "XBM": b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {0};\n",
        "ELF": b"\x7fELF" + bytes(100),
        "zip": zipped.getvalue(),
        "pickle": b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.",
        "JSON": b'{"a": 1}',
        "empty": b"",
        "a byte": b"\xff",
        "zeros": bytes(100_000),
        "noise": random.Random(0).randbytes(100_000),
        "JPEG's head": photo[:20],
        "half a JPEG": photo[: len(photo) // 2],
        "PNG bomb of one bit": as_file(Image.new("1", (20_000, 20_000)), "PNG"),
        "PNG that claims 2^31 pixels": png(2**31 - 1, 2**31 - 1),
        "PNG that claims a long line": png(2**31 - 1, 1),
        "PNG without pixels": png(0, 0),
        "PNG with too few rows": png(100, 100),
        "TIFF of many pages": as_file(grey, "TIFF", save_all=True, append_images=[grey] * 2000),
        "GIF of many frames": as_file(
            grey, "GIF", save_all=True, append_images=[Image.new("L", (32, 32), k % 255) for k in range(500)]
        ),
        "float TIFF": as_file(Image.new("F", (32, 32), 0.5), "TIFF"),
        "BMP that claims much": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "WebP's head": b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(20),
        "TIFF that points to itself": b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
    }


def packed(members: dict[str, bytes] | list[tuple], **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return buffer.getvalue()


def link_entry(name: str, target: str) -> tuple[zipfile.ZipInfo, str]:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return entry, target


def overlapping(photo: bytes, entries: int) -> bytes:
    """A zip whose entries are all of the same bytes."""
    one = packed({"a.jpg": photo})
    start = one.index(b"PK\x01\x02")
    head = one[start : one.index(b"PK\x05\x06")]
    directory = b"".join(head.replace(b"a.jpg", b"%c.jpg" % (97 + k % 26)) for k in range(entries))
    return (
        one[:start] + directory + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, entries, entries, len(directory), start, 0)
    )


def hostile_zips(photo: bytes, secret: Path) -> dict[str, bytes]:
    deflated = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 9}
    zeros = bytes(100_000_000)
    bomb = packed({"a.png": zeros}, **deflated)
    nested = bomb
    for _ in range(5):
        nested = packed({f"{k}.zip": nested for k in range(5)}, **deflated)
    good = packed({"a.jpg": photo})
    return {
        "slip": packed(
            {
                "../../../escaped.jpg": photo,
                "..\\..\\escaped.jpg": photo,
                "/tmp/escaped_absolute.jpg": photo,
                "C:\\escaped.jpg": photo,
            }
        ),
        "slip by a folder": packed(
            {"a/../../../escaped.jpg": photo, "~/escaped.jpg": photo, "./././escaped.jpg": photo}
        ),
        "links": packed(
            [link_entry("a.jpg", str(secret)), link_entry("b.jpg", "/etc/passwd"), link_entry("c", "/etc")]
        ),
        "a file through a link": packed([link_entry("d", str(secret.parent)), ("d/secret2.jpg", photo)]),
        "bomb": packed({f"{k}.png": zeros for k in range(6)}, **deflated),
        "bomb within the limit": bomb,
        "bomb that lies": bomb.replace(struct.pack("<I", 100_000_000), struct.pack("<I", 1000)),
        "nested bomb": nested,
        "itself": packed({"a.zip": good, "b.jpg": good}),
        "many entries": packed({f"{k}.jpg": b"" for k in range(3000)}),
        "very many entries": packed({f"{k}.txt": b"" for k in range(70_000)}),
        "entries that overlap": overlapping(photo, 90),
        "very many entries that overlap": overlapping(photo, 60_000),
        "same name": packed([("a.jpg", photo), ("a.jpg", photo), ("b/a.jpg", photo)]),
        "names that differ in case": packed({"a.jpg": photo, "A.jpg": photo, "a.JPG": photo}),
        "long names": packed(
            {"x" * 5000 + ".jpg": photo, "é" * 2000 + ".jpg": photo, "/".join(["y"] * 5000) + ".jpg": photo}
        ),
        "long ending": packed({"x." + "jpg" * 200: photo, "x" * 400 + ".jpeg": photo}),
        "hostile names": packed([(name or "empty", photo) for name in HOSTILE_NAMES if "\0" not in name]),
        "a name of its own masks": packed(
            {"masks.zip": good, "predictions.csv": b"a", "a_segmentation.png": photo, "a.jpg": photo}
        ),
        "no image": packed({"a.txt": b"a"}),
        "nothing": packed({}),
        "bzip2": packed({"a.jpg": photo}, compression=zipfile.ZIP_BZIP2),
        "lzma": packed({"a.jpg": photo}, compression=zipfile.ZIP_LZMA),
        "encrypted": good.replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0"),
        "wrong checksum": good.replace(struct.pack("<I", zlib.crc32(photo)), b"\0\0\0\0"),
        "cut": good[:-40],
        "half": good[: len(good) // 2],
        "no directory": good[: good.index(b"PK\x01\x02")] + b"PK\x05\x06" + bytes(18),
        "directory far away": good[:-6] + b"\xff\xff\xff\x7f\0\0",
        "zip64": good[:-22] + b"PK\x06\x07" + bytes(16) + good[-22:],
        "long comment": good[:-2] + struct.pack("<H", 60_000) + b"PK\x05\x06" * 15_000,
        "text": b"no zip",
        "empty": b"",
        "hidden and mac files": packed({".a.jpg": photo, "__MACOSX/a.jpg": photo, "a.jpg": photo}),
        "bad photos": packed({f"{name}.jpg": content for name, content in hostile_images(photo).items()}),
    }
