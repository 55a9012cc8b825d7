"""
Damage of every kind at every entry point. The full set: `pytest -m "slow or not slow" tests/hostile/test_damage.py
--record results/hostile.csv`; one case again: see `hostile/trial.py`.
"""

import os
import signal
from collections import Counter

import numpy as np
import pytest
from conftest import tiny_model
from hostile import doors, trial
from hostile.damage import KINDS, Case, Kind, Outcome
from hostile.doors import DOORS, write_assets
from hostile.trial import Trial, run_trials
from PIL import Image

# seeds of every kind at a slow door, at a fast one, and where the wrong values of a field are walked through
SLOW_SEEDS, FAST_SEEDS, VALUE_SEEDS = 1, 2, 8
OPTIONAL = {"export": ("onnx", "openvino")}
SUBJECTS = sorted({kind.subject for kind in KINDS.values()})
FAST_SUBJECTS = ("image", "mask", "photos", "data", "table", "configuration", "weights")


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "assets"
    write_assets(folder, tiny_model)
    return folder


@pytest.fixture(scope="module")
def exports(assets):
    """The assets with exports of the checkpoint, which take a minute."""
    from efp_hf.__main__ import main

    for runtime in OPTIONAL["export"]:
        pytest.importorskip(runtime)
        command = ["export", "--to", runtime, "--checkpoint", str(assets / "checkpoint")]
        assert main([*command, "--output", str(assets / runtime)]) == 0
    return assets


def trials_of(subject: str) -> list[Trial]:
    """Every kind of damage to a subject at all of its doors, the fast ones with more seeds."""
    trials = []
    for kind in KINDS.values():
        for name in doors.doors_of(kind) if kind.subject == subject else ():
            seeds = FAST_SEEDS if name.split(" (")[0] in doors.FAST_DOORS else SLOW_SEEDS
            if (subject, name) == ("configuration", "load_checkpoint") or subject == "page":
                seeds = VALUE_SEEDS
            trials += [Trial(kind.name, name, seed) for seed in range(seeds)]
    return trials


def failures(results) -> str:
    return "\n".join(str(result) for result in results if result.failure)


def first_trials(subject: str) -> list[Trial]:
    """Each kind of damage to a subject once, at the subject's fast doors in turn."""
    trials = []
    for number, kind in enumerate(kind for kind in KINDS.values() if kind.subject == subject):
        names = [name for name in doors.doors_of(kind) if name.split(" (")[0] in doors.FAST_DOORS]
        trials += [Trial(kind.name, names[number % len(names)], 0)] if names else []
    return trials


def test_there_are_many_kinds_and_cases():
    trials = [trial for subject in SUBJECTS for trial in trials_of(subject)]
    assert len(KINDS) >= 60 and len(trials) >= 1500
    assert {trial.door for trial in trials} == set(DOORS)


@pytest.mark.parametrize("subject", FAST_SUBJECTS)
def test_each_kind_of_damage_once(subject, assets, tmp_path):
    results = run_trials(first_trials(subject), assets, tmp_path)
    assert not failures(results), failures(results)


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
def test_damage_at_every_door(subject, request, assets, tmp_path, record_counts):
    if subject in OPTIONAL:
        request.getfixturevalue("exports")
    doors.prepare()
    results = run_trials(trials_of(subject), assets, tmp_path)
    tried = Counter(result.trial.door.split(" (")[0] for result in results)
    held = Counter(result.trial.door.split(" (")[0] for result in results if result.failure is None)
    record_counts(
        f"damage: {subject}",
        len(results),
        sum(held.values()),
        kinds=len({result.trial.kind for result in results}),
        **{name: f"{held[name]} of {number}" for name, number in tried.items()},
    )
    assert not failures(results), failures(results)


# The verdict sees what it is there for


@pytest.fixture
def planted(assets, tmp_path, monkeypatch):
    """Runs one door of a test's own."""

    def run(door, write=lambda rng, place: None) -> str | None:
        monkeypatch.setitem(KINDS, "planted", Kind("planted", "planted", write, None))
        monkeypatch.setitem(DOORS, "planted", (("planted",), door))
        (result,) = run_trials([Trial("planted", "planted", 0)], assets, tmp_path)
        return result.failure

    return run


def test_what_is_right_holds(planted):
    assert planted(lambda write, stage: stage.seal()) is None


def test_an_error_of_another_type_is_seen(planted):
    def divide(write, stage):
        raise ZeroDivisionError("x")

    assert "a traceback: ZeroDivisionError: x" in planted(divide)


def test_a_hang_is_seen(planted, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1)

    def hang(write, stage):
        while True:
            pass

    assert "no end after 1 s" in planted(hang)


def test_the_death_of_the_process_is_seen_and_the_next_trial_runs(assets, tmp_path, monkeypatch):
    def die(write, stage):
        if stage.seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setitem(KINDS, "planted", Kind("planted", "planted", lambda rng, place: None, None))
    monkeypatch.setitem(DOORS, "planted", (("planted",), die))
    results = run_trials([Trial("planted", "planted", seed) for seed in (0, 1)], assets, tmp_path)
    assert [result.failure for result in results] == ["the process died", None]


def test_changed_input_and_leftovers_are_seen(planted):
    def touch(stage, change):
        (stage.root / "input.txt").write_text("a")
        stage.writes.append(stage.root / "output")
        (stage.root / "output").mkdir()
        stage.seal()
        change(stage.root)

    assert "input.txt has changed" in planted(
        lambda write, stage: touch(stage, lambda root: (root / "input.txt").write_text("b"))
    )
    assert "input.txt is lost" in planted(lambda write, stage: touch(stage, lambda root: (root / "input.txt").unlink()))
    assert "elsewhere was written" in planted(
        lambda write, stage: touch(stage, lambda root: (root / "elsewhere").write_text("b"))
    )
    assert "is left over" in planted(
        lambda write, stage: touch(stage, lambda root: (root / "output" / ".1-x.png").write_text("b"))
    )
    assert "x.png is not whole" in planted(
        lambda write, stage: touch(stage, lambda root: (root / "output" / "x.png").write_bytes(b"\x89PNG"))
    )


def test_wrong_pixels_and_lost_photos_are_seen(planted, monkeypatch):
    """A photo that is read upside down, as if its orientation was not looked at."""

    def upside_down(rng, place):
        path = place.folder / f"{place.image_id}.png"
        Image.fromarray(place.photo[::-1, ::-1]).save(path)
        return Case(path, Outcome.READ, place.photo)

    assert "a wrong mask without a word" in planted(doors.predict, upside_down)

    def named_wrongly(rng, place):
        path = place.folder / f"{place.image_id}.png"
        Image.fromarray(np.zeros_like(place.photo)).save(path)
        return Case(path, Outcome.REFUSED)

    assert planted(doors.predict, named_wrongly) == "read, where an error was due"
