from efp_hf.study.trials_table import trials_table


def test_newest_counts_of_each_part(tmp_path):
    (tmp_path / "hostile.csv").write_text(
        "part,tried,held,notes\nb,1000,999,\na,4,3,kinds: 2; train: 1 of 1; score: 2 of 3\nb,1000,1000,peak: 7 MB\n"
    )
    table = trials_table(tmp_path).splitlines()
    assert table[2:] == ["| a | 4 | 3 | kinds: 2, score: 2 of 3 |", "| b | 1,000 | 1,000 | peak: 7 MB |"]
