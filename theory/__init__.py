"""What the theory predicts: risk, distortion and flip rate of a compressed last layer, from its statistics.

Loads lazily: importing :mod:`theory.setting` (problems, files, compressions, records) loads neither SymPy nor JAX.
"""


def __getattr__(name: str):
    if name == "predict":
        from theory.prediction import predict

        return predict
    if name == "bits":
        from theory.choose import bits

        return bits
    raise AttributeError(f"module 'theory' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = ["bits", "predict"]  # pyright: ignore[reportUnsupportedDunderAll]
