import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from efp_hf import __main__, commands
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


def test_interruption_of_the_first_imports_is_one_line(tmp_path):
    (tmp_path / "transformers.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__main__.__file__).parents[1]}"}
    command = {True: ("-m", "efp_hf", "--version"), False: ("-c", "import efp_hf")}
    ended = {
        is_command: subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
        for is_command, words in command.items()
    }
    assert (ended[True].returncode, ended[True].stderr) == (130, "efp: interrupted\n")
    assert "KeyboardInterrupt" in ended[False].stderr  # a program of somebody else's is told


def test_interruption_of_the_imports_of_a_command_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "import_module", interrupted)
    assert __main__.main(["predict", "photo.jpg"]) == 130
    assert capsys.readouterr().err == "efp: interrupted\n"
