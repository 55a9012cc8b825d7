"""Eight people at once on the web page's server for two minutes.

    python scripts/load_space.py
    python scripts/load_space.py --checkpoint runs/mine --clients 4 --seconds 60

Starts `app.py`, sends what its tabs send (photos of 12 megapixels among them) as fast as the answers come, and appends
a row to `results/space_load.csv`: answers, errors, times, and the server's memory in either half of the run. The exit
code is 1 if there was an error other than "busy".
"""

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from gradio_client import Client, handle_file
from PIL import Image

from efp_hf.results import append_row, provenance, shorten
from efp_hf.synthetic import draw_lesion

HERE = Path(__file__).resolve().parents[1]
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"
BUSY = "queue is full"
LARGE_SIZE = (4000, 3000)  # width, height: 12 megapixels


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="folder or Hub id (default: the shipped one)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--results", type=Path, default=Path("results/space_load.csv"), help="gets a row (%(default)s)")
    return parser.parse_args()


def start_server(checkpoint: str, port: int) -> subprocess.Popen:
    """`app.py` in its own process, answering."""
    command = [sys.executable, str(HERE / "app.py"), "--checkpoint", str(checkpoint), "--port", str(port)]
    server = subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL)
    for _ in range(600):
        if server.poll() is not None:
            sys.exit("app.py did not start.")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.2)
    server.terminate()
    sys.exit("app.py did not answer within two minutes.")


def write_photos(folder: Path) -> list[tuple[Path, Path]]:
    """(photo, true mask) pairs: a drawing of 12 megapixels and two of the size of the examples."""
    pairs = []
    for seed, size in ((26, LARGE_SIZE), (19, (600, 450)), (15, (1022, 767))):
        image, mask = draw_lesion(seed, 480, 640)
        photo, truth = folder / f"drawing_{seed}.jpg", folder / f"drawing_{seed}_segmentation.png"
        image.resize(size, Image.Resampling.BICUBIC).save(photo, quality=92)
        mask.resize(size, Image.Resampling.NEAREST).save(truth)
        pairs.append((photo, truth))
    return pairs


def visit(url: str, pairs: list, seed: int, until: float, times: dict, errors: list) -> None:
    """One person: requests in an order of their own, the next when the last is answered."""
    rng = random.Random(seed)
    client = Client(url, verbose=False, analytics_enabled=False)
    while time.monotonic() < until:
        photo, truth = rng.choice(pairs)
        endpoint = rng.choice(["/segment", "/segment", "/measure", "/trust", "/compare", "/look_inside"])
        more = {"truth": handle_file(truth)} if endpoint == "/compare" else {}
        start = time.monotonic()
        try:
            client.predict(image=handle_file(photo), **more, api_name=endpoint)
            times[endpoint, photo == pairs[0][0]].append(time.monotonic() - start)
        except Exception as error:  # whatever a person would see as a failure is counted
            errors.append(f"{endpoint}: {type(error).__name__}: {error}")


def resident_mb(pid: int) -> float:
    """Memory of the server's process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status has no VmRSS: this script needs Linux.")


def main() -> int:
    arguments = parse()
    row = provenance()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start_server(arguments.checkpoint, port)
    times, errors, memory = defaultdict(list), [], []
    try:
        with tempfile.TemporaryDirectory() as folder:
            pairs = write_photos(Path(folder))
            start = time.monotonic()
            visitors = [
                threading.Thread(
                    target=visit,
                    args=(f"http://127.0.0.1:{port}", pairs, seed, start + arguments.seconds, times, errors),
                )
                for seed in range(arguments.clients)
            ]
            for visitor in visitors:
                visitor.start()
            while any(visitor.is_alive() for visitor in visitors):
                memory.append((time.monotonic() - start, resident_mb(server.pid)))
                time.sleep(1)
            seconds = time.monotonic() - start
    finally:
        server.terminate()
        server.wait()

    busy = sum(BUSY in error.lower() for error in errors)
    answered = sorted(duration for durations in times.values() for duration in durations)
    large = times["/segment", True]
    first = [value for second, value in memory if second < arguments.seconds / 2]
    second = [value for second, value in memory if second >= arguments.seconds / 2]
    measured = {
        "checkpoint": shorten(str(arguments.checkpoint)),
        "cores": len(os.sched_getaffinity(0)),
        "clients": arguments.clients,
        "seconds": round(seconds, 1),
        "answers": len(answered),
        "answers_per_second": round(len(answered) / seconds, 2),
        "errors": len(errors) - busy,
        "busy": busy,
        "median_s": round(statistics.median(answered), 3),
        "p95_s": round(statistics.quantiles(answered, n=20)[-1], 3),
        "max_s": round(answered[-1], 3),
        "segment_12mp_median_s": round(statistics.median(large), 3),
        "memory_first_half_median_mb": round(statistics.median(first)),
        "memory_second_half_median_mb": round(statistics.median(second)),
        "memory_first_half_max_mb": round(max(first)),
        "memory_second_half_max_mb": round(max(second)),
        "memory_end_mb": round(memory[-1][1]),
    }
    for name, value in measured.items():
        print(f"{name:28} {value}")
    for error in sorted(set(errors)):
        print(f"error: {error}", file=sys.stderr)
    append_row(arguments.results, {**row, **measured})
    return 1 if len(errors) > busy else 0


if __name__ == "__main__":
    sys.exit(main())
