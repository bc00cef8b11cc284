"""Theory beside simulation: the figures, the numbers behind them, and the table that checks the one against the other."""

import importlib


def __getattr__(name: str):
    if name == "mine":
        return importlib.import_module("figures.my_problem").mine
    raise AttributeError(f"module 'figures' has no attribute {name!r}")
