"""Candidates that take turns."""

import time

from efp_hf.study.benchmark.machine import conditions, instruction_set
from efp_hf.study.benchmark.turns import alternate, median_and_spread, spread_columns


def test_every_round_calls_each_candidate_once_in_the_same_order():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in "ab"}
    alternate(candidates, rounds=3, warm_up=2)
    assert "".join(calls) == "aabb" + "ab" * 3


def test_only_the_last_call_of_a_turn_is_measured():
    calls, measured = [], []

    def measure(call):
        measured.append(len(calls))
        return call()

    values = alternate({"a": lambda: calls.append(0) or len(calls)}, 2, warm_up=1, settle=2, measure=measure)
    assert values == {"a": [4, 7]}  # one to warm up, then two to settle and one measured, twice
    assert measured == [3, 6]


def test_pause_comes_before_the_calls_that_settle(monkeypatch):
    events = []
    monkeypatch.setattr(time, "sleep", events.append)
    alternate({"a": lambda: events.append("call")}, rounds=2, warm_up=0, settle=1, pause=0.5)
    assert events == [0.5, "call", "call"] * 2


def test_seconds_are_those_between_the_beginning_and_the_end_of_a_call(monkeypatch):
    clock = iter([10.0, 10.5, 20.0, 22.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert alternate({"a": lambda: None}, rounds=2) == {"a": [0.5, 2.0]}


def test_median_and_quartiles_of_known_numbers():
    assert median_and_spread([9, 1, 2, 4, 3]) == (3, 2, 4)
    columns = spread_columns([0.004, 0.001, 0.002, 0.003], "ms", 1000)
    assert columns == {"median_ms": 2.5, "quartile1_ms": 1.75, "quartile3_ms": 3.25}


def test_row_names_the_highest_instruction_set_of_the_processor(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    for flags, name in (
        ("fpu avx2 avx512f avx512_bf16 amx_bf16 amx_int8", "amx_bf16"),
        ("fpu avx512_bf16 avx512f avx2", "avx512_bf16"),
        ("avx2 avx512f_not", "avx2"),
        ("fpu sse", ""),
    ):
        cpuinfo.write_text(f"model name\t: a CPU\nflags\t\t: {flags}\n")
        assert instruction_set(cpuinfo) == name
    assert instruction_set(tmp_path / "none") == ""
    assert conditions(threads=2)["instruction_set"] == instruction_set()
