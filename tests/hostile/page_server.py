"""A server of the page to attack: its own process, its own network where that can be had, and notes of what it does."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from conftest import REPOSITORY

PATIENCE_SECONDS = 3  # the server's own is longer than a test should be

# app.py with a note of every file that it opens, every address that it looks up or connects to, and less patience
WATCHED_APP = """
import json, os, runpy, sys
from efp_hf.page import server
server.set_environment()
from efp_hf.page import connections, gate, upload_stream
connections.PATIENCE_SECONDS = gate.SILENT_SECONDS = upload_stream.SILENT_SECONDS = PATIENCE
notes = open(sys.argv.pop(1), "a", buffering=1)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
def in_folder(name, folder):
    # `folder` is -1 or the number of an open one, as where `shutil.rmtree` deletes
    return os.path.abspath(os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else "", name))
def note(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        noted = ["write" if arguments[2] & WRITING else "read", os.path.abspath(os.fsdecode(arguments[0]))]
    elif event in CHANGES:
        names = [os.fsdecode(name) for name in arguments[:2] if isinstance(name, (str, bytes))]
        folders = [number for number in arguments if isinstance(number, int)][-len(names):]
        noted = ["write", *[in_folder(name, folder) for name, folder in zip(names, folders)]]
    elif event == "socket.connect":
        noted = ["contact", str(arguments[1])]
    elif event == "socket.getaddrinfo":
        noted = ["contact", str(arguments[:2])]
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.link", "os.symlink"):
        noted = ["program", str(arguments)]
    else:
        return
    notes.write(json.dumps(noted) + "\\n")
sys.addaudithook(note)
sys.argv[0] = "app.py"
runpy.run_path("app.py", run_name="__main__")
""".replace("PATIENCE\n", f"{PATIENCE_SECONDS}\n")

# `unshare` gives a network without a single route; the loopback address is there once it is switched on
ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def can_be_alone() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@contextmanager
def network_of(process: int):
    """Inside, the sockets of this thread and of those that it starts are in the network of the process."""
    library = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{process}/ns/net") as other:
        if library.setns(other.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            library.setns(own.fileno(), 0)


class PageServer:
    """`app.py` on a port of the loopback address. All that it writes is to stay in `files`."""

    def __init__(self, folder: Path, *options: str, alone: bool, **environment: str):
        self.files, self.log, self.notes = folder / "files", folder / "log", folder / "notes"
        self.uploads = self.files / "uploads"
        self.matplotlib = folder / "matplotlib"  # where Matplotlib notes the machine's fonts
        self.files.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-c", WATCHED_APP, str(self.notes), "--port", str(self.port), *options]
        self.process = subprocess.Popen(
            [*(ALONE if alone else []), *command],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "GRADIO_TEMP_DIR": str(self.uploads),
                "TMPDIR": str(self.files),
                "MPLCONFIGDIR": str(self.matplotlib),
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 240
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "app.py does not answer"
            time.sleep(0.2)
        self.notes_at_start = self.notes.stat().st_size

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/theme.css", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def memory(self) -> float:
        """Megabytes that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000

    def noted(self) -> list[list[str]]:
        """What it did since it answered for the first time."""
        with self.notes.open() as file:
            file.seek(self.notes_at_start)
            return [json.loads(line) for line in file]

    def unfinished_uploads(self) -> list[Path]:
        """Files that Gradio's parser has not yet moved to their folders."""
        return [path for path in self.uploads.iterdir() if path.is_file()]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
