"""Theory beside simulation: the figures, the numbers behind them, and the table that checks the one against the other."""
