"""Damage to a checkpoint's folder, to its two configurations, to exports, and to the folders of a training."""

import json
import os
import shutil
import struct

import numpy as np
from safetensors.numpy import load_file, save_file

from ..damage import Case, Outcome, cut, flip_bits, kind
from .images import payload

INFINITY, NAN = float("inf"), float("nan")
NUMBERS = (0, -1, NAN, INFINITY, "1", None, [], {}, 1e300)
COUNTS = (0, -3, "six", 2.5, None, [4], 10**9, 2**63)
FLAGS = ("yes", 5, None, [])
LISTS = (0, "a", [4, 6, 8], [4, 6, 8, -1], [0, 0, 0, 0], [4.5, 6, 8, 10], [10**9] * 4, None, {}, ["4", "6", "8", "10"])
CONFIG = {
    "hidden_sizes": LISTS,
    "depths": (*LISTS, [1, 1, 1, 10**7]),
    "pyramid_size": COUNTS,
    "head_size": COUNTS,
    "num_channels": (0, -1, "3", None, 10**9),
    "cross_scale_kernel_size": (0, -1, 2, "3", None, 10**6 + 1, 2.5),
    "attention_kernel_size": (0, -1, 2, "7", None, 10**6 + 1, 2.5),
    "hidden_act": ("nonsense", 5, None, [], "__import__('os')"),
    "use_cross_scale": FLAGS,
    "use_spatial_attention": FLAGS,
    "temperature": NUMBERS,
    "dice_weight": (-1, NAN, INFINITY, "1", None, []),
    "bce_weight": (-1, NAN, INFINITY, "1", None, []),
    "dice_smoothing": (0, -1, NAN, INFINITY, "1", None),
    "semantic_loss_ignore_index": ("255", 2.5, None, []),
    "id2label": ({}, {"0": "a"}, 5, "x", ["a", "b"], {"a": "b", "c": "d"}),
    "label2id": (5, "x", ["a"]),
    "backbone_config": (
        {},
        5,
        "resnet",
        [],
        {"model_type": "nonsense"},
        {"model_type": "resnet"},
        {"model_type": "timm_backbone", "backbone": "no_such_network"},
        {"model_type": 5},
    ),
    "model_type": ("bert", 5, None, "", []),
    "dtype": ("nonsense", 5, [], "int8"),
    "architectures": (5, "x", [5]),
    "transformers_version": (5, None, []),
    "auto_map": ({"AutoConfig": "evil.Evil"}, 5, "x"),
    "problem_type": ("nonsense", 5),
    "output_hidden_states": ("yes", 5, []),
}
PREPROCESSOR = {
    "size": (
        "big",
        {},
        [64, 64],
        {"height": 0, "width": 0},
        {"height": -1, "width": 64},
        {"height": "64", "width": "64"},
        {"height": 64},
        {"height": 10**6, "width": 10**6},
        {"height": 64.5, "width": 64},
        {"shortest_edge": 5},
        {"height": None, "width": None},
    ),
    "image_mean": (
        [NAN] * 3,
        [INFINITY] * 3,
        "x",
        [1, 2, 3, 4],
        None,
        [None] * 3,
        [],
        {"a": 1},
        ["a", "b", "c"],
    ),
    "image_std": ([0.0] * 3, [-1.0] * 3, [NAN] * 3, [INFINITY] * 3, "x", None, [1e-30] * 3, [], 0),
    "rescale_factor": (0, "x", NAN, INFINITY, None, -1, [], 1e300),
    "threshold": (0, 1, 2, -1, NAN, "0.5", None, [], INFINITY),
    "largest_region": FLAGS,
    "jaccard_temperature": NUMBERS,
    "resample": (99, "x", -1, 2.5, [], NAN),
    "do_resize": ("no", 5, []),
    "do_rescale": ("no", 5, []),
    "do_normalize": ("no", 5, []),
    "do_convert_rgb": ("no", 5, []),
    "image_processor_type": ("Nonsense", 5, []),
    "crop_size": (5, "x", {"height": -1}),
    "do_pad": ("yes", True),
    "auto_map": ({"AutoImageProcessor": "evil.Evil"}, 5),
}


def field_of(file: str, name: str, values: tuple):
    def write(rng, place):
        path = place.folder / file
        value = values[place.seed % len(values)]
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
        word = "label" if name == "id2label" else name  # the number of labels is their names'
        return Case(path, Outcome.JUDGED, words=(word,), inputs=[value])

    kind("configuration", f"{file} {name}")(write)


for _name, _values in CONFIG.items():
    field_of("config.json", _name, _values)
for _name, _values in PREPROCESSOR.items():
    field_of("preprocessor_config.json", _name, _values)


def file_of(name: str, change):
    """Both configurations, in turn."""

    def write(rng, place):
        path = place.folder / ("config.json", "preprocessor_config.json")[place.seed % 2]
        change(path, rng, place)
        return Case(path, Outcome.JUDGED)

    kind("configuration", name)(write)


def in_its_place(path, make) -> None:
    path.unlink()
    make()


file_of("cut", lambda path, rng, place: path.write_bytes(cut(path.read_bytes(), rng, 0, 0.98)))
file_of("flipped bits", lambda path, rng, place: path.write_bytes(flip_bits(path.read_bytes(), rng)))
file_of("empty file", lambda path, rng, place: path.write_bytes(b""))
file_of("binary", lambda path, rng, place: path.write_bytes(rng.bytes(500)))
file_of("list", lambda path, rng, place: path.write_text("[1, 2]"))
file_of("number", lambda path, rng, place: path.write_text("5"))
file_of("null", lambda path, rng, place: path.write_text("null"))
file_of("deep nesting", lambda path, rng, place: path.write_text('{"size": ' + "[" * 100_000))
file_of("byte order mark", lambda path, rng, place: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()))
file_of("UTF-16", lambda path, rng, place: path.write_bytes(path.read_text().encode("utf-16")))
file_of("latin-1", lambda path, rng, place: path.write_bytes(path.read_bytes().replace(b'"', b'"\xe4', 1)))
file_of("a number of 5000 digits", lambda path, rng, place: path.write_text('{"x": ' + "9" * 5000 + "}"))
file_of("unreadable", lambda path, rng, place: path.chmod(0))
file_of("missing", lambda path, rng, place: path.unlink())
file_of("folder in its place", lambda path, rng, place: in_its_place(path, path.mkdir))
file_of("pipe in its place", lambda path, rng, place: in_its_place(path, lambda: os.mkfifo(path)))
file_of("link to itself", lambda path, rng, place: in_its_place(path, lambda: path.symlink_to(path)))
file_of("unknown field", lambda path, rng, place: path.write_text(path.read_text().replace("{", '{"foo": [1],', 1)))


# Weights


def weights_of(name: str, change, outcome: Outcome = Outcome.REFUSED):
    """A kind that changes the bytes of the weights."""

    def write(rng, place):
        path = place.folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes(), rng))
        return Case(path, outcome, words=(place.folder.name,))

    kind("weights", name)(write)


def header_length(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


def with_header(content: bytes, change) -> bytes:
    length = header_length(content)
    header = json.loads(content[8:length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[length:]


def lie(field: str, value):
    def change(header):
        next(tensor for tensor in header.values() if tensor.get("dtype") == "F32")[field] = value

    return lambda content, rng: with_header(content, change)


weights_of("empty", lambda content, rng: b"")
weights_of("cut in its header", lambda content, rng: content[: int(rng.integers(1, header_length(content)))])
weights_of("cut in its data", lambda content, rng: content[: int(rng.integers(header_length(content), len(content)))])
weights_of("header longer than the file", lambda content, rng: struct.pack("<Q", 2**40) + content[8:])
weights_of("header length of all ones", lambda content, rng: b"\xff" * 8 + content[8:])
weights_of("header of garbage", lambda content, rng: content[:8] + rng.bytes(len(content) - 8))
weights_of("shape that lies", lie("shape", [10**6, 10**6]))
weights_of("type that lies", lie("dtype", "F64"))
weights_of("offsets that lie", lie("data_offsets", [0, 10**9]))
weights_of("offsets that run backwards", lie("data_offsets", [100, 0]))
weights_of("HTML", lambda content, rng: b"<!DOCTYPE html><html><body>404</body></html>")
weights_of(
    "pointer of Git LFS", lambda content, rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
)
weights_of(
    "flipped bits in its header",
    lambda content, rng: flip_bits(content, rng, 0, header_length(content)),
    Outcome.JUDGED,
)
weights_of("garbage behind its end", lambda content, rng: content + rng.bytes(100), Outcome.JUDGED)


def tensors_of(name: str, change, outcome: Outcome = Outcome.REFUSED):
    """A kind that changes tensors by `change(tensors, rng)` in a file that is whole."""

    def write(rng, place):
        path = place.folder / "model.safetensors"
        tensors = {key: np.array(value) for key, value in load_file(path).items()}
        change(tensors, rng)
        save_file(tensors, path, metadata={"format": "pt"})
        return Case(path, outcome, words=(place.folder.name,))

    kind("weights", name)(write)


def some(tensors: dict, rng, end: str) -> str:
    return str(rng.choice([key for key in tensors if key.endswith(end)]))


def fill(end: str, value: float, everywhere: bool = False):
    def change(tensors, rng):
        tensor = tensors[some(tensors, rng, end)]
        if everywhere:
            tensor[...] = value
        else:
            tensor.reshape(-1)[int(rng.integers(tensor.size))] = value

    return change


def remove(tensors, rng):
    del tensors[some(tensors, rng, "weight")]


def rename(tensors, rng):
    key = some(tensors, rng, "weight")
    tensors["x." + key] = tensors.pop(key)


def transpose(tensors, rng):
    keys = [key for key, value in tensors.items() if value.ndim == 4 and value.shape[0] != value.shape[1]]
    key = str(rng.choice(keys))
    tensors[key] = np.ascontiguousarray(tensors[key].swapaxes(0, 1))


def retype(tensors, rng):
    key = some(tensors, rng, "weight")
    tensors[key] = tensors[key].astype(np.int8)


def halve(tensors, rng):
    for key, value in tensors.items():
        if value.dtype == np.float32:
            tensors[key] = value.astype(np.float16)


tensors_of("one NaN", fill("weight", NAN))
tensors_of("NaN everywhere", fill("weight", NAN, everywhere=True))
tensors_of("one infinity", fill("weight", INFINITY))
tensors_of("minus infinity in a bias", fill("bias", -INFINITY))
tensors_of("NaN in a running mean", fill("running_mean", NAN))
tensors_of("NaN in a running variance", fill("running_var", NAN))
tensors_of("negative running variance", fill("running_var", -0.5))
tensors_of("infinite running variance", fill("running_var", INFINITY))
tensors_of("missing tensor", remove)
tensors_of("renamed tensor", rename)
tensors_of("swapped axes", transpose)
tensors_of("tensor of integers", retype)
tensors_of("no tensor at all", lambda tensors, rng: tensors.clear())
tensors_of("one tensor more", lambda tensors, rng: tensors.update(extra=np.zeros(3, np.float32)), Outcome.JUDGED)


@kind("weights")
def missing_file(rng, place):
    path = place.folder / "model.safetensors"
    path.unlink()
    return Case(path, Outcome.REFUSED, words=(place.folder.name,))


@kind("weights")
def pickle_under_its_name(rng, place):
    path = place.folder / "model.safetensors"
    path.write_bytes(payload(place))
    return Case(path, Outcome.REFUSED, words=(place.folder.name,))


@kind("weights")
def pickle_in_its_place(rng, place):
    (place.folder / "model.safetensors").unlink()
    path = place.folder / "pytorch_model.bin"
    path.write_bytes(payload(place))
    return Case(path, Outcome.REFUSED, words=(place.folder.name,))


@kind("weights")
def index_of_files_that_are_not_there(rng, place):
    (place.folder / "model.safetensors").unlink()
    path = place.folder / "model.safetensors.index.json"
    index = [{"weight_map": {"a": "../../outside.safetensors"}, "metadata": {}}, [], {"weight_map": 5}][place.seed % 3]
    path.write_text(json.dumps(index))
    return Case(path, Outcome.REFUSED, words=(place.folder.name,))


def instead(name: str, make):
    def write(rng, place):
        path = place.folder / "model.safetensors"
        path.unlink()
        make(path)
        return Case(path, Outcome.REFUSED, words=(place.folder.name,))

    kind("weights", name)(write)


instead("folder in its place", lambda path: path.mkdir())
instead("pipe in its place", os.mkfifo)
instead("link to itself", lambda path: path.symlink_to(path))
instead("link to nothing", lambda path: path.symlink_to("nothing.safetensors"))


@kind("weights")
def unreadable_weights(rng, place):
    path = place.folder / "model.safetensors"
    path.chmod(0)
    return Case(path, Outcome.REFUSED, words=(place.folder.name,))


# Exports


def export_of(name: str, change, outcome: Outcome = Outcome.REFUSED):
    def write(rng, place):
        models = sorted(path for path in place.folder.iterdir() if path.suffix in (".onnx", ".xml", ".bin", ".data"))
        path = models[place.seed % len(models)]
        change(path, rng, place)
        return Case(path, outcome, words=(place.folder.name,))

    kind("export", name)(write)


export_of("empty", lambda path, rng, place: path.write_bytes(b""))
export_of("cut", lambda path, rng, place: path.write_bytes(cut(path.read_bytes(), rng, 0.02, 0.98)))
export_of("garbage", lambda path, rng, place: path.write_bytes(rng.bytes(1000)))
export_of("missing", lambda path, rng, place: path.unlink())
export_of("unreadable", lambda path, rng, place: path.chmod(0))
export_of("folder in its place", lambda path, rng, place: in_its_place(path, path.mkdir))
export_of("HTML", lambda path, rng, place: path.write_bytes(b"<!DOCTYPE html><html></html>"))


def manifest_of(name: str, change):
    def write(rng, place):
        path = place.folder / "export.json"
        change(path, rng, place)
        return Case(path, Outcome.JUDGED, words=(place.folder.name,))

    kind("export", name)(write)


def manifest_field(field: str, values: tuple):
    def change(path, rng, place):
        manifest = {**json.loads(path.read_text()), field: values[place.seed % len(values)]}
        path.write_text(json.dumps(manifest))

    manifest_of(f"manifest with a wrong {field}", change)


manifest_of("manifest cut", lambda path, rng, place: path.write_bytes(cut(path.read_bytes(), rng, 0, 0.95)))
manifest_of("manifest is a list", lambda path, rng, place: path.write_text("[]"))
manifest_of("manifest of no fields", lambda path, rng, place: path.write_text("{}"))
manifest_of("manifest of garbage", lambda path, rng, place: path.write_bytes(rng.bytes(300)))
manifest_of("manifest is a folder", lambda path, rng, place: in_its_place(path, path.mkdir))
manifest_of("manifest unreadable", lambda path, rng, place: path.chmod(0))
manifest_field("export_format", ("nonsense", 5, None, "torch", "executorch", ["onnx"], "../../onnx"))


# Folders of a training: `place.folder` holds checkpoint-2 and checkpoint-4


def training_of(name: str, change, outcome: Outcome = Outcome.READ):
    """Something happens to the newest of the two; where the other is whole, the training goes on from it."""

    def write(rng, place):
        newest = place.folder / "checkpoint-4"
        change(newest, rng, place)
        return Case(newest, outcome)

    kind("training", name)(write)


def truncate(file: str):
    def change(newest, rng, place):
        path = newest / file
        path.write_bytes(cut(path.read_bytes(), rng, 0, 0.95))

    return change


STATE = ("model.safetensors", "trainer_state.json", "optimizer.pt", "scheduler.pt")
for _file in STATE:
    training_of(f"{_file} missing", lambda newest, rng, place, file=_file: (newest / file).unlink())
    training_of(f"{_file} cut", truncate(_file))
for _file in ("rng_state.pth", "config.json", "preprocessor_config.json", "training_args.bin"):
    training_of(f"{_file} missing", lambda newest, rng, place, file=_file: (newest / file).unlink(), Outcome.JUDGED)
    training_of(f"{_file} cut", truncate(_file), Outcome.JUDGED)
training_of("newest is empty", lambda newest, rng, place: [path.unlink() for path in newest.iterdir()])
training_of("newer one is empty", lambda newest, rng, place: (place.folder / "checkpoint-9").mkdir())
training_of("newer one is a file", lambda newest, rng, place: (place.folder / "checkpoint-9").write_text("x"))
training_of("newer one is no number", lambda newest, rng, place: (place.folder / "checkpoint-x").mkdir())
training_of(
    "optimizer is another pickle",
    lambda newest, rng, place: (newest / "optimizer.pt").write_bytes(payload(place)),
    Outcome.JUDGED,
)
training_of(
    "state is a list", lambda newest, rng, place: (newest / "trainer_state.json").write_text("[]"), Outcome.JUDGED
)
training_of(
    "state of another training",
    lambda newest, rng, place: (newest / "trainer_state.json").write_text('{"global_step": "many"}'),
    Outcome.JUDGED,
)


@kind("training")
def both_half_saved(rng, place):
    for name in ("checkpoint-2", "checkpoint-4"):
        (place.folder / name / str(rng.choice(STATE))).unlink()
    return Case(place.folder, Outcome.REFUSED)


@kind("training")
def none_left(rng, place):
    for name in ("checkpoint-2", "checkpoint-4"):
        shutil.rmtree(place.folder / name)
    return Case(place.folder, Outcome.REFUSED)
