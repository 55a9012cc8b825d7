"""The page's server. Nothing but this server is contacted, and nothing is kept: photos and results are deleted."""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from ..inference.checkpoint import load_checkpoint
from ..inference.task import class_names_of, has_structures, labels_overlap
from .evidence import trust_evidence
from .photo import lesion_of, segment_photo
from .photo_results import draw_view
from .temporary_files import keep_clean, make_folders, upload_folder
from .uploads import MAX_ZIP_BYTES

MAX_QUEUE = 32
MAX_SESSIONS = 200  # whose last photo is held in memory


# of `gr.Blocks.launch`: nothing of a photo is kept, shown elsewhere or sent; the servers print their address themselves
CLOSED = {
    "run_history": False,
    "enable_monitoring": False,
    "share": False,
    "quiet": True,  # or it would advertise public links
    "prevent_thread_lock": True,
    "ssr_mode": False,
    "pwa": False,
}


def launch(
    checkpoint: str | Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | None = None,
    with_mcp: bool = False,
) -> None:
    """
    Serves the page until the process is stopped.

    Args:
        host: the address to listen on; "0.0.0.0" is the whole network.
        auth: user and password, asked of everybody; not together with `with_mcp`, whose requests Gradio lets pass.
        with_mcp: be an MCP server, too.

    Raises:
        FileNotFoundError, ValueError: as [`load_checkpoint`]; labels that overlap, other than the lesion and its
            structures.
    """
    model, processor = load_checkpoint(checkpoint, allow_overlap=True)
    if labels_overlap(model.config) and not has_structures(model.config):
        found = ", ".join(class_names_of(model.config))
        raise ValueError(
            f"{checkpoint}: of labels that overlap the page takes the lesion and its structures, got {found}. "
            "Use `efp predict`."
        )

    set_environment()
    import gradio as gr  # reads the environment
    from starlette.middleware import Middleware

    from .connections import be_impatient
    from .gate import Gate
    from .layout import build_page
    from .theme import make_theme

    examples = make_folders()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that stopping the service deletes the photos too
    threading.Thread(target=keep_clean, args=[upload_folder()], daemon=True).start()
    gr.set_static_paths([examples])
    # the first run is slower than the others: not that of the first visitor
    draw_view(segment_photo(next(examples.glob("*.jpg")), model, processor), lesion_of(processor))
    space = os.environ.get("SPACE_HOST")  # of a Hugging Face Space, which visitors reach by this name
    url = f"https://{space}" if space else f"http://{host}:{port}"
    page = build_page(model, processor, url, trust_evidence(checkpoint), examples)
    page.queue(max_size=MAX_QUEUE)
    be_impatient()
    page.launch(
        app_kwargs={"middleware": [Middleware(Gate, [upload_folder(), examples])]},
        server_name=host,
        server_port=port,
        auth=auth,
        mcp_server=with_mcp,
        max_file_size=MAX_ZIP_BYTES,
        state_session_capacity=MAX_SESSIONS,
        **CLOSED,
        footer_links=["api", "settings"],
        theme=make_theme(),
        css_paths=Path(__file__).with_name("style.css"),
    )
    print(f"http://{host}:{port}  Ctrl-C ends it", flush=True)
    page.block_thread()


def set_environment() -> None:
    """What Gradio reads when it is imported. The folder is this process's own: readable for nobody else."""
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir(), f"efp-page-{os.getpid()}")))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
