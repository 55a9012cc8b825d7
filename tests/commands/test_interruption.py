import os
import signal
import time

import pytest
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from efp_hf.commands.interruption import interrupted_by_termination


@pytest.fixture
def loading_process(monkeypatch):
    """One of a DataLoader, which sees to it that its end is an error."""
    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    iterator = iter(DataLoader(range(8), num_workers=1))
    next(iterator)
    yield iterator._workers[0]
    iterator._shutdown_workers()
    signal.signal(signal.SIGCHLD, before)


def end(process) -> None:
    """Its parent, this process, has been told so when the function returns."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(0.1)


def test_loading_process_that_is_killed_is_an_error(loading_process):
    with pytest.raises(RuntimeError, match="is killed by signal"), interrupted_by_termination():
        end(loading_process)


def test_termination_of_the_whole_group_interrupts_once_and_nothing_after_it(loading_process):
    """`timeout` sends it to the command and to the group; the way on is looked for after that."""
    before = signal.getsignal(signal.SIGTERM)
    with interrupted_by_termination():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        end(loading_process)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
