"""The processes that `accelerate launch` or `torchrun` starts for one job: which this one is, and what they tell."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

PATIENCE = timedelta(days=30)  # of a process whose work is done, with the others
Value = TypeVar("Value")


@dataclass
class Processes:
    """This process is `number` of `count`, from 0. One alone tells nobody anything."""

    number: int = 0
    count: int = 1
    group: distributed.ProcessGroup | None = None

    def from_first(self, value: Value) -> Value:
        """
        The value that the first process has, in each of them, when it has it.

        Raises:
            ConnectionError: another process has ended.
        """
        values = [value]
        if self.count > 1:
            with lost_connections():
                distributed.broadcast_object_list(values, group=self.group)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """
        The values of all processes, in their order, in each of them, when all have theirs.

        Raises:
            ConnectionError: another process has ended.
        """
        if self.count == 1:
            return [value]
        values = [None] * self.count
        with lost_connections():
            distributed.all_gather_object(values, value, group=self.group)
        return values


@contextmanager
def lost_connections() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo has no exceptions of its own
        raise ConnectionError("another process has ended before the work was done") from error


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """
    The processes that a launcher has started, this one among them, each with a GPU where there are GPUs; or this one
    alone.

    Raises:
        ConnectionError: the others do not answer.
        ValueError: the launcher's variables do not fit together.
    """
    given = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)}
    if len(given) < 2 or given["WORLD_SIZE"] == "1":
        yield Processes()
        return
    try:
        number, count = map(int, given.values())
    except ValueError:
        number = count = 0
    if not 0 <= number < count:
        raise ValueError(f"`RANK` must be below `WORLD_SIZE`, as a launcher sets them, got {given}. Unset both.")
    with lost_connections():
        distributed.init_process_group("gloo")
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", number)) % torch.cuda.device_count())
        yield Processes(number, count, distributed.new_group(timeout=PATIENCE))
    finally:
        distributed.destroy_process_group()
