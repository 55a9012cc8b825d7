"""
Damage to Parquet and WebDataset shards, in turn: `place.folder` has good photos, which are packed. A damaged row
(`inputs == ["row"]`) stops no other one.
"""

import io
import tarfile

from ..damage import Case, Outcome, cut, flip_bits, kind
from .images import encoded, jpeg, payload


def pack(place, more: list[tuple], name: str = "train-0000"):
    """The photos and `more` rows (id, content) as a shard, in place of the files."""
    rows = [(path.stem, path.read_bytes()) for path in sorted(place.folder.iterdir())]
    for path in place.folder.iterdir():
        path.unlink()
    rows = rows[:1] + more + rows[1:]
    return write_parquet(place, rows, name) if place.seed % 2 else write_tar(place, rows, name)


def write_tar(place, rows: list[tuple], name: str):
    path = place.folder / f"{name}.tar"
    with tarfile.open(path, "w") as shard:
        for key, content in rows:
            member = tarfile.TarInfo(f"{key}.png")
            member.size = len(content or b"")
            shard.addfile(member, io.BytesIO(content or b""))
    return path


def write_parquet(place, rows: list[tuple], name: str):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    images = [None if content is None else {"path": f"{key}.png", "bytes": content} for key, content in rows]
    table = datasets.Dataset.from_dict({"image": images, "image_id": [key for key, _ in rows]}, features=features)
    path = place.folder / f"{name}.parquet"
    table.to_parquet(path)
    return path


def row_of(name: str, content, key: str = "damaged", outcome: Outcome = Outcome.REFUSED):
    def write(rng, place):
        pack(place, [(key, content(rng, place))])
        path = place.folder / f"{key.replace('/', '_')}.png"
        return Case(path, outcome, pixels=place.photo if outcome is Outcome.READ else None, inputs=["row"])

    kind("shard", name)(write)


row_of("right row", lambda rng, place: encoded(place.photo, "PNG"), outcome=Outcome.READ)
row_of("row of text", lambda rng, place: b"no image")
row_of("row of no bytes", lambda rng, place: b"")
row_of("row without an image", lambda rng, place: None)
row_of("row of a pickle", lambda rng, place: payload(place))
row_of("row of a cut image", lambda rng, place: jpeg(place)[:100])
row_of("row of random bytes", lambda rng, place: rng.bytes(1000))


@kind("shard")
def row_whose_id_climbs(rng, place):
    """Its mask stays in the output folder."""
    pack(place, [("a/../../../evil", encoded(place.photo, "PNG"))])
    return Case(place.folder, Outcome.JUDGED, inputs=["climb"])


def shard_of(name: str, change):
    def write(rng, place):
        path = pack(place, [])
        change(path, rng, place)
        return Case(place.folder, Outcome.REFUSED, inputs=["shard"])

    kind("shard", name)(write)


def in_its_place(path, make):
    path.unlink()
    make(path)


shard_of("cut", lambda path, rng, place: path.write_bytes(cut(path.read_bytes(), rng, 0.05, 0.7)))
shard_of("empty", lambda path, rng, place: path.write_bytes(b""))
shard_of("random bytes", lambda path, rng, place: path.write_bytes(rng.bytes(5000)))
shard_of("text", lambda path, rng, place: path.write_bytes(b"no shard"))
shard_of("pickle", lambda path, rng, place: path.write_bytes(payload(place)))
shard_of("unreadable", lambda path, rng, place: path.chmod(0))
shard_of("folder in its place", lambda path, rng, place: in_its_place(path, lambda p: p.mkdir()))
shard_of("link to nothing", lambda path, rng, place: in_its_place(path, lambda p: p.symlink_to("nothing")))


@kind("shard")
def flipped_bits(rng, place):
    path = pack(place, [])
    path.write_bytes(flip_bits(path.read_bytes(), rng, count=20))
    return Case(place.folder, Outcome.JUDGED, inputs=["shard"])


@kind("shard")
def second_shard_cut(rng, place):
    """The first one's images are done."""
    path = pack(place, [])
    other = path.with_name(path.name.replace("0000", "0001"))
    other.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    return Case(place.folder, Outcome.REFUSED, inputs=["shard"])


@kind("shard")
def no_column_of_images(rng, place):
    for path in place.folder.iterdir():
        path.unlink()
    import datasets

    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(place.folder / "train-0000.parquet")
    return Case(place.folder, Outcome.REFUSED, inputs=["shard"])
