"""Serve the web page: segment, measure, and see how far to trust the result.

  efp app                                        http://127.0.0.1:7860 with the shipped checkpoint
  efp app --checkpoint runs/mine --port 8080
  EFP_AUTH=anna:secret efp app --host 0.0.0.0    on the network, with a password
  efp app --mcp                                  also an MCP server

Nothing is kept: no run history, no analytics, no flagging; temporary files are deleted after some
minutes and when the server stops. Nothing but this server is contacted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from ..extras import EXTRAS, require
from ..inference.checkpoint import find_checkpoint
from . import run_command
from .arguments import InputError, add_checkpoint_argument, one_line_errors, port_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    # a Space sets these two variables
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="0.0.0.0: the network (%(default)s)"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=port_number,
        default=os.environ.get("GRADIO_SERVER_PORT", "7860"),  # a text: it is checked as what is given
        help="(%(default)s)",
    )
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        default=os.environ.get("EFP_AUTH"),
        help="ask for them (default: the variable EFP_AUTH, which other users of the machine cannot see)",
    )
    parser.add_argument("--mcp", action="store_true", help="also an MCP server")


def run(arguments: argparse.Namespace) -> int:
    user, _, password = (arguments.auth or "").partition(":")
    if arguments.auth is not None and not (user and password):
        raise InputError("`--auth` must be USER:PASSWORD, both not empty.")
    with_mcp = arguments.mcp or os.environ.get("GRADIO_MCP_SERVER", "False").lower() == "true"
    if with_mcp and arguments.auth:
        raise InputError("`--mcp` and `--auth` exclude each other: Gradio's MCP server has no password. Drop one.")
    with one_line_errors():
        require("app", "this command", [module for module in EXTRAS["app"] if with_mcp or module != "mcp"])
        find_checkpoint(arguments.checkpoint)
        from ..page.server import launch

        auth = (user, password) if arguments.auth else None
        launch(arguments.checkpoint, arguments.host, arguments.port, auth, with_mcp)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command alone, for `python app.py` and a Space."""
    return run_command("app", sys.argv[1:] if argv is None else argv)
