"""Two loops of training."""

import time
from types import SimpleNamespace

import pytest
import torch

from efp_hf.data.folders import load_isic
from efp_hf.study.benchmark.training import (
    BARE_LOOP,
    new_trainer,
    repeat_rows,
    train_from_memory,
    train_with_trainer,
    training_rows,
)


@pytest.fixture
def new_tiny_trainer(synthetic_root, tmp_path):
    data = repeat_rows(load_isic(synthetic_root, cache_dir=tmp_path / "cache"), 8)
    assert len(data["train"]) == 8
    return lambda: new_trainer(data, tmp_path / "run", image_size=32, steps=3, batch_size=2, workers=0)


@pytest.mark.slow
def test_both_loops_train_all_steps(new_tiny_trainer):
    for train in (train_with_trainer, train_from_memory):
        trainer = new_tiny_trainer()
        before = [weight.clone() for weight in trainer.model.parameters()]
        measured = train(lambda trainer=trainer: trainer, warm_up=1)
        assert set(measured) == {"images_per_second", "waiting_share"}
        steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
        assert steps == {3}
        changed = [not torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True)]
        assert any(changed)


def test_waiting_share_and_rate_are_those_of_the_steps_after_the_warm_up(monkeypatch):
    now = 0.0

    def advance(seconds):
        nonlocal now
        now += seconds

    class Loop:
        """A step takes 3 s and its batch 1 s; the first batch 100 s."""

        args = SimpleNamespace(max_steps=5, train_batch_size=8)

        def get_batch_samples(self, first):
            advance(100 if first else 1)

        def add_callback(self, callback):
            self.callback = callback

        def train(self):
            for step in range(5):
                self.get_batch_samples(step == 0)
                advance(3)
                self.callback.on_step_end(self.args, SimpleNamespace(global_step=step + 1), None)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert train_with_trainer(Loop, warm_up=2) == {"images_per_second": 8 / 4, "waiting_share": 1 / 4}


def test_training_row_has_the_share_of_the_bare_loop():
    run = {"images_per_second": 9, "waiting_share": 0.02}
    rows = training_rows({"Trainer": [run], BARE_LOOP: [{"images_per_second": 10, "waiting_share": 0.0}]}, 24, 16, 256)
    assert [row["share_of_bare_loop"] for row in rows] == [0.9, 1]
    assert rows[0]["waiting_share"] == 0.02 and list(rows[0]) == list(rows[1])
