"""How the numbers of the study were made: baselines, comparison, benchmark, tables. The product imports nothing from here."""
