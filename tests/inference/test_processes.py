import pytest

from efp_hf.inference.processes import Processes, joined_processes


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "4"}, {"RANK": "3"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_process_without_a_launcher_is_alone(monkeypatch, variables):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with joined_processes() as processes:
        assert processes == Processes(0, 1)
        assert processes.gather("a") == ["a"] and processes.from_first("b") == "b"


@pytest.mark.parametrize("rank", ["2", "-1", "x"])
def test_impossible_rank_is_refused(monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="`RANK` must be below `WORLD_SIZE`"):
        with joined_processes():
            pass
