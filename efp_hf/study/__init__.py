"""How the numbers were made: baselines, comparison, benchmark, tables. The product imports nothing from here."""
