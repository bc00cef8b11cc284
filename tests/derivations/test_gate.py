"""The one door from SymPy to JAX: same numbers with and without cse, in JAX and in NumPy; the unknown refused."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import sympy

from derivations import RESULTS
from derivations.jax_code import compile_result
from derivations.notation import m
from derivations.result import Identity, Numeric, Result
from simulate.generator import synthetic
from theory.setting.files import write_statistics
from theory.tails import owens_t


def _arguments(result, seed):
    rng = np.random.default_rng(seed)
    values = {}
    for symbol in result.arguments:
        name = str(symbol)
        values[name] = rng.integers(1, 4, 5).astype(float) if name in ("n_0", "n_1") else rng.uniform(0.3, 0.9, 5)
        if name in ("r", "trace"):
            values[name] = rng.uniform(2.0, 3.0, 5)
        if name == "q":
            values[name] = rng.uniform(0.0, 0.2, 5)  # s^2 r > q^2
    return values


@pytest.mark.parametrize("name", RESULTS)
def test_backends_and_cse_agree(name, seed):
    result = RESULTS[name]
    values = _arguments(result, seed)
    outcomes = []
    for backend, owen in (("jax", owens_t), ("numpy", scipy.special.owens_t)):
        for cse in (True, False):
            value = compile_result(result, backend=backend, cse=cse, functions={"OwensT": owen})(**values)
            outcomes.append(np.stack([np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]))
            assert outcomes[-1].shape == (len(result.parts), 5)
    for other in outcomes[1:]:
        np.testing.assert_allclose(other, outcomes[0], rtol=1e-11, atol=1e-14)


def _result(formula):
    return Result(
        name="one",
        statement="a statement",
        arguments=(m,),
        formula=formula,
        assumptions=("none",),
        kind="exact",
        source="here",
        steps=lambda f: (Identity(text="itself", left=f, right=f),),
    )


def test_a_result_that_cannot_be_wrong_is_refused():
    """A kind that is none, an argument twice, no point, no step."""
    with pytest.raises(ValueError, match="as its kind, got 'exakt'"):
        replace(_result(m), kind="exakt")
    with pytest.raises(ValueError, match="declared arguments"):
        replace(_result(m), arguments=(m, m))
    with pytest.raises(ValueError, match="at least one point"):
        Numeric(text="nothing", sides=lambda rng: (0, 1), points=0)
    assert replace(_result(m), steps=lambda f: ()).failures()
    assert not _result(m).failures()


def test_what_it_does_not_know_is_refused_by_name():
    with pytest.raises(ValueError, match="erf"):
        compile_result(_result(sympy.erf(m)))
    with pytest.raises(ValueError, match="OwensT"):
        compile_result(RESULTS["binary_flip_rate"])
    with pytest.raises(ValueError, match="backend"):
        compile_result(_result(m), backend="torch")(m=1.0)


def test_constants_broadcast_and_arguments_are_checked():
    result = Result(
        name="pair",
        statement="two parts",
        arguments=(m,),
        formula=(m, sympy.Integer(2)),
        assumptions=("none",),
        kind="exact",
        source="here",
        steps=lambda f: (Identity(text="x", left=f[0], right=f[0]),),
    )
    first, second = compile_result(result)(m=np.arange(3.0))
    np.testing.assert_array_equal(first, [0, 1, 2])
    np.testing.assert_array_equal(second, [2, 2, 2])
    with pytest.raises(TypeError, match="takes m"):
        compile_result(result)(n=1.0)


def test_the_docstring_is_the_statement():
    call = compile_result(RESULTS["delta_2"])
    assert RESULTS["delta_2"].statement in (call.__doc__ or "")
    assert call.__name__ == "delta_2"


def test_the_generated_code_is_that_of_the_derivations():
    """Derived again: whoever changes a derivation writes the code anew (python -m derivations --write)."""
    from derivations.compiled import FILE
    from derivations.jax_code import generate

    assert FILE.read_text() == generate(RESULTS.values())


def test_predicting_imports_no_sympy_and_what_else_takes_a_second(tmp_path):
    """Of two classes, where the quadrature is good enough, SciPy's statistics and optimization neither."""
    import subprocess
    import sys
    from pathlib import Path

    path = tmp_path / "p.npz"
    write_statistics(path, synthetic(classes=2, features=64, separation=2.0, seed=1))
    code = (
        f"import sys, theory; path = {str(path)!r};"
        "[theory.predict(path, scheme='symmetric', bits=[3], errors=errors) for errors in ('actual', 'expected')];"
        "print([name for name in ('sympy', 'scipy.stats', 'scipy.optimize') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent.parent
    )
    assert done.stdout.strip() == "[]"
