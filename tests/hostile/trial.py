"""
A trial: one kind of damage at one door with one seed, in a child process, and the verdict on it.

    PYTHONPATH=tests python -m hostile.trial "image: exif garbage" "efp predict" 3      one trial again
    PYTHONPATH=tests python -m hostile.trial image                                      all of what begins so
"""

import csv
import ctypes
import hashlib
import io
import logging
import os
import pickle
import resource
import select
import shutil
import signal
import stat
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from .damage import KINDS, rng_of
from .doors import DOORS, Stage, doors_of
from .kinds import checkpoints, folders, images, masks, shards, tables, uploads  # noqa: F401 (they register themselves)

SECONDS = 20  # for one trial
GRACE = 20  # until a child that does not even hear its alarm is killed
MEMORY = 2 << 30  # bytes that a trial may take above what the process has
HASHED_BYTES = 20_000_000  # larger files are compared by size and time


@dataclass(frozen=True)
class Trial:
    kind: str
    door: str
    seed: int


@dataclass(frozen=True)
class Result:
    trial: Trial
    failure: str | None

    def __str__(self) -> str:
        trial = self.trial
        return f'"{trial.kind}" "{trial.door}" {trial.seed}: {self.failure}'


class TimeIsUp(BaseException):
    """No handler of errors catches it."""


# In the child


def drop_override() -> None:
    """A superuser reads what has no permission; without these two capabilities he does not."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    libc.capget(ctypes.create_string_buffer(header), data)
    effective, permitted, *rest = struct.unpack("6I", data.raw)
    keep = ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(ctypes.create_string_buffer(header), struct.pack("6I", effective & keep, permitted & keep, *rest))


@contextmanager
def captured():
    """File descriptors 1 and 2 go to files; yields a function that returns what they got since its last call."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), write_through=True, encoding="utf-8")
        sys.stderr = io.TextIOWrapper(
            os.fdopen(2, "wb", 0, closefd=False), write_through=True, encoding="utf-8", errors="backslashreplace"
        )

        def printed() -> tuple[str, str]:
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", errors="backslashreplace"))
                file.seek(0)
                file.truncate()
            return texts[0], texts[1]

        yield printed


def state_of(root: Path) -> dict[Path, tuple]:
    """Kind, permissions and contents of all that lies below a folder, without following links or opening pipes."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            status = path.lstat()
            mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
            if path.is_symlink():
                found[path] = (*mode, os.readlink(path))
            elif stat.S_ISREG(status.st_mode):
                found[path] = (*mode, digest(path, status))
            else:
                found[path] = mode
    return found


def digest(path: Path, status: os.stat_result) -> str:
    if status.st_size > HASHED_BYTES:
        return f"{status.st_size} {status.st_mtime_ns}"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except PermissionError:
        return "unreadable"


def check_files(before: dict[Path, tuple], after: dict[Path, tuple], stage: Stage) -> None:
    """Input and earlier output are as they were; what is new is where it may be, whole, and visible."""
    for path, state in before.items():
        if path not in stage.may_change:
            name = path.relative_to(stage.root)
            assert path in after, f"{name} is lost"
            assert after[path] == state, f"{name} has changed"
    for path in after.keys() - before.keys():
        name = path.relative_to(stage.root)
        allowed = [folder for folder in stage.writes if path == folder or path.is_relative_to(folder)]
        parents = [folder for folder in stage.writes if folder.is_relative_to(path)]
        assert allowed or parents, f"{name} was written"
        assert not any(part.startswith(".") for part in name.parts), f"{name} is left over"
        if path.suffix in (".png", ".jpg", ".csv") and path.is_file() and not path.is_symlink():
            check_whole(path, str(name))


def check_whole(path: Path, name: str) -> None:
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                widths = {len(row) for row in csv.reader(file, strict=True)}
            assert len(widths) == 1, f"rows of {widths} fields"
        else:
            with Image.open(path) as picture:
                picture.load()
    except Exception as error:
        raise AssertionError(f"{name} is not whole: {error}") from error


def verdict(trial: Trial, assets: Path, root: Path, printed: Callable[[], tuple[str, str]]) -> str | None:
    """Runs a trial in a new folder → what went wrong."""
    _, run = DOORS[trial.door]
    kind = KINDS[trial.kind]
    stage = Stage(root, assets, rng_of(trial.kind, trial.door, trial.seed), trial.seed, printed)
    before = {}

    def seal() -> None:
        if not before:
            before.update(state_of(root))

    def stop(number, frame):
        raise TimeIsUp

    stage.seal = seal
    os.chdir(root)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        run(kind.write, stage)
        signal.alarm(0)
        check_files(before, state_of(root), stage)
    except TimeIsUp:
        return f"no end after {SECONDS} s, in {where(sys.exc_info()[2])}"
    except AssertionError as error:
        return str(error) or f"AssertionError in {where(error.__traceback__)}"
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        return f"a traceback: {text[-300:]} in {where(error.__traceback__)}"
    finally:
        signal.alarm(0)
    return None


def where(trace) -> str:
    """The last line of this package, and the last of all."""
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if "efp_hf" in frame.filename or "hostile" in frame.filename]
    shown = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*own[-1:], *frames[-1:]))
    return ", ".join(shown)


def remove(folder: Path) -> None:
    """Also folders without permission."""
    for path, names, _ in os.walk(folder):
        for name in names:
            if not Path(path, name).is_symlink():
                Path(path, name).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def work(trials: list[Trial], assets: Path, scratch: Path, pipe: int) -> None:
    """The child's life: it sends a number of a trial when that begins, and its failure when that ends."""
    torch.set_num_threads(1)
    logging.getLogger().handlers.clear()  # of pytest: warnings go to stderr, as in a process of their own
    drop_override()
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with captured() as printed, os.fdopen(pipe, "wb", 0) as results:
        for number, trial in enumerate(trials):
            root = Path(tempfile.mkdtemp(dir=scratch))
            try:
                import datasets

                datasets.config.HF_DATASETS_CACHE = root.parent / f"{root.name}-cache"
                failure = verdict(trial, assets, root, printed)
            finally:
                os.chdir(scratch)
                remove(root)
                remove(root.parent / f"{root.name}-cache")
            message = pickle.dumps((number, failure))
            results.write(struct.pack("<I", len(message)) + message)


# In the parent


def run_trials(trials: list[Trial], assets: Path, scratch: Path) -> list[Result]:
    """In children: where one dies, the trial that it was at has failed, and the next child goes on behind it."""
    results = []
    while len(results) < len(trials):
        remaining = trials[len(results) :]
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                work(remaining, assets, scratch, writing)
                os._exit(0)
            except BaseException:
                Path(scratch, "died").write_text(traceback.format_exc())
                os._exit(70)
        os.close(writing)
        with os.fdopen(reading, "rb", 0) as pipe:
            for trial in remaining:
                failure = next_failure(pipe, child)
                results.append(Result(trial, failure))
                if failure is not None and failure.startswith("the process"):
                    break
        os.waitpid(child, 0)
        if Path(scratch, "died").exists():  # by an error of these modules
            raise RuntimeError(Path(scratch, "died").read_text())
    return results


def next_failure(pipe, child: int) -> str | None:
    if not select.select([pipe], [], [], SECONDS + GRACE)[0]:
        os.kill(child, signal.SIGKILL)
        return f"the process hung for {SECONDS + GRACE} s in native code"
    head = pipe.read(4)
    if len(head) < 4:
        return "the process died"
    size = struct.unpack("<I", head)[0]
    message = b""
    while len(message) < size:
        message += pipe.read(size - len(message))
    return pickle.loads(message)[1]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import tiny_model

    from .doors import prepare, write_assets

    name, door_name, *seeds = [*sys.argv[1:], "", ""][: max(3, len(sys.argv) - 1)]
    seeds = [int(seed) for seed in seeds if seed] or range(3)
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(os.environ.get("EFP_ASSETS", f"{temporary}/assets"))
        if not made.is_dir():
            write_assets(made, tiny_model)
        prepare()
        chosen = [
            Trial(kind.name, door, seed)
            for kind in KINDS.values()
            for door in doors_of(kind)
            for seed in seeds
            if kind.name.startswith(name) and door.startswith(door_name)
        ]
        scratch_folder = Path(temporary, "scratch")
        scratch_folder.mkdir()
        done = run_trials(chosen, made, scratch_folder)
    for result in done:
        if result.failure:
            print(result)
    print(f"{len(done)} tried, {sum(result.failure is None for result in done)} held")
    sys.exit(any(result.failure for result in done))
