"""How a command that runs for long is stopped."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupted_by_termination() -> Iterator[None]:
    """
    SIGTERM, as of a batch system or of `docker stop`, is what Ctrl-C is: what is being written is finished.

    `timeout` sends it twice, to the command and to its group, in which processes that load images end of it, too.
    """

    def interrupt(number, frame):
        signal.signal(signal.SIGTERM, ignore)
        if hasattr(signal, "SIGCHLD"):  # PyTorch raises the end of such a process in whatever is being done
            signal.signal(signal.SIGCHLD, ignore)
        raise KeyboardInterrupt

    def ignore(number, frame):  # not SIG_IGN: Python complains where the signal has come already
        pass

    if threading.current_thread() is not threading.main_thread():  # no other can set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
