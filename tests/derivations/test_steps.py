"""Every derivation holds, and none would hold for a formula with a plausible mistake."""

import json
from types import ModuleType

import mpmath
import pytest
import sympy

from derivations import RESULTS, arithmetic, binary, calibration, conditional, laws, layers, multiclass
from derivations.__main__ import main
from derivations.notation import a, h_h, k4, m, mu_h, mu_mu, prior, q, r, s, sign, step, trace, v
from derivations.result import DIGITS, Identity, Numeric, Result, collect, evaluate


@pytest.mark.parametrize("name", RESULTS)
def test_every_step_holds(name, seed):
    record = RESULTS[name].record(seed)
    assert record["verified"], record["failures"]
    assert len(record["steps"]) >= 2
    assert all(record[key] for key in ("assumptions", "kind", "source"))


def _first(change):
    return lambda formula: (change(formula[0]), *formula[1:])


MISTAKES = {
    "corrected_noise": [lambda f: 2 * f, lambda f: f.subs(arithmetic.z_mean, 0), lambda f: f.subs(arithmetic.mean_mean, 0)],
    "input_noise": [lambda f: 2 * f, lambda f: f / step, lambda f: f + step],
    "posterior_slope": [
        lambda f: -f,
        lambda f: f / calibration.temperature,
        lambda f: f.subs(calibration.mean_logit, 0),
    ],
    "temperature_information": [
        lambda f: f * calibration.temperature,
        lambda f: f.subs(calibration.mean_logit, 0),
    ],
    "quantizer_moments": [lambda f: 2 * f, lambda f: f.subs(s, s / 2), lambda f: step**2 / 12],
    "quantizer_weight_product": [lambda f: -f, lambda f: f / 2],
    "cell_error_power": [lambda f: f + s / 100, lambda f: 2 * f],
    "cell_error_product": [lambda f: -f],
    "gain": [lambda f: f * 2, lambda f: f.subs(s, 2 * s)],
    "row_correlation": [lambda f: -f, lambda f: f * 2],
    "binary_risk": [lambda f: f.subs(sign, -sign), lambda f: f.subs(s, s**2), lambda f: f.subs(m, -m)],
    "delta_2": [
        lambda f: 2 * f,
        lambda f: f.subs(trace, 0),
        lambda f: f.subs(mu_h, 0),
        lambda f: f.subs(h_h, 0),
        lambda f: f.subs(sign, 1),
    ],
    "marginal": [lambda f: f.subs(v, 2 * v), lambda f: f.subs(mu_mu, 0)],
    "corrected_marginal": [
        lambda f: f.subs(v, 2 * v),
        lambda f: f.subs(mu_h, -mu_h),
        lambda f: f.subs(mu_mu, 0),
        lambda f: f.subs(sign, 1),
        lambda f: f + prior * v**2 * trace,
    ],
    "edgeworth_tail": [lambda f: f.subs(binary.l4, 2 * binary.l4), lambda f: f.subs(binary.l6, 0)],
    "margin_quadrature": [
        lambda f: f.subs({binary.l6_minus: binary.l6_plus, binary.l6_plus: binary.l6_minus}, simultaneous=True),
        lambda f: f.subs({binary.l6_minus: 0, binary.l6_plus: 0}),
        lambda f: f.subs(binary.l4_minus, -binary.l4_minus),
        lambda f: f.subs(binary.l6_plus, 2 * binary.l6_plus),
        lambda f: f.subs(v, 2 * v),
        lambda f: f.subs(sign, -sign),
        lambda f: f.subs(m, -m),
        lambda f: f.subs({binary.g_minus: binary.g_plus, binary.g_plus: binary.g_minus}, simultaneous=True),
    ],
    "margin_quadrature_flips": [
        lambda f: f.subs(v, 2 * v),
        lambda f: f.subs({binary.g_minus: binary.g_plus, binary.g_plus: binary.g_minus}, simultaneous=True),
    ],
    "noise_second": [_first(lambda c: 2 * c)],
    "norm_variance": [_first(lambda c: c / 2)],
    "norm_third": [_first(lambda c: c / 2)],
    "fourth_power": [_first(lambda c: c + 1)],
    "sixth_power": [_first(lambda c: c + 1)],
    "fourth_norm_covariance": [_first(lambda c: c / 2), lambda f: (*f[:-1], 2 * f[-1])],
    "noise_fourth_cumulant": [lambda f: f.subs(k4, -k4), lambda f: f / 3],
    "noise_sixth_cumulant": [lambda f: f / 15, lambda f: f.subs(k4, 0)],
    "error_variance": [lambda f: 2 * f],
    "error_k4": [lambda f: -f, lambda f: f / 2],
    "error_k6": [lambda f: f / 2],
    "binary_flip_rate": [
        lambda f: f.subs(q, -q),
        lambda f: f.subs(r, 2 * r),
        lambda f: f.subs(a, -a),
        lambda f: f.replace(sympy.Piecewise, lambda *_: sympy.Integer(0)),
    ],
    "binary_distortion": [lambda f: f.subs(q, 0) * 2, lambda f: f.subs(sign, -sign) * 2],
    "reduced_mean": [lambda f: f.subs(v, 2 * v)],
    "reduced_covariance": [lambda f: f.subs(v, v / 2), lambda f: f.subs(k4, 0)],
    "class_variance": [lambda f: 2 * f],
    "prior_variance": [lambda f: 2 * f],
    "separation_factor": [lambda f: f.subs(multiclass.spread, 2 * multiclass.spread), lambda f: 1 - f],
    "own_noise": [
        lambda f: f.subs(multiclass.own, 0),
        lambda f: f.subs(multiclass.rival, multiclass.own + multiclass.rival),
        lambda f: f.subs(multiclass.norm, multiclass.norm**2),
        lambda f: 1 - f,
    ],
    "noisy_logit": [
        lambda f: (2 * f[0], f[1]),
        lambda f: (f[0], f[1].subs(multiclass.half, 2 * multiclass.half)),
        lambda f: (f[0].subs(multiclass.order, 2 * multiclass.order), f[1].subs(multiclass.order, 2 * multiclass.order)),
    ],
    "posterior_loss": [
        lambda f: -f,
        lambda f: f.subs(multiclass.eta_top, 1),
        lambda f: f.subs(multiclass.eta_k, 0),
    ],
    "line_crossing": [lambda f: -f, lambda f: f.subs(multiclass.slope_j, -multiclass.slope_j)],
    "face_rate": [
        lambda f: 2 * f,
        lambda f: f.subs(laws.power_slope, 0),
        lambda f: f.subs(laws.density_slope, -laws.density_slope),
        lambda f: f.subs(multiclass.own, 0),
    ],
    "edge_rate": [
        lambda f: 2 * f,
        lambda f: f.subs(laws.kappa, 0),
        lambda f: f.subs(laws.kappa, -laws.kappa),
        lambda f: f.subs(multiclass.own, 0),
        lambda f: f.subs(multiclass.rival, multiclass.own),
    ],
    "union_bound": [lambda f: f / 2, lambda f: f**2 * 2],
    "bonferroni": [lambda f: f + laws.pairs, lambda f: f - laws.pairs],
    "shared_weight_noise": [
        lambda f: f.subs(layers.x_12, 0),
        lambda f: f.subs(layers.delta_2, -layers.delta_2),
        lambda f: 2 * f,
    ],
    "rectified_mean": [lambda f: f.subs(m, -m), lambda f: f - m, lambda f: f.subs(s, 2 * s)],
    "rectified_square": [lambda f: f / 2, lambda f: f.subs(m, -m), lambda f: f + s**2],
    "rectified_product": [
        lambda f: f.subs(layers.rho, -layers.rho),
        lambda f: f / 2,
        lambda f: f.subs(layers.other, s),
    ],
    "rectified_covariance": [
        lambda f: f.subs(layers.rho, -layers.rho),
        lambda f: f.subs(layers.t_other, layers.t),
        lambda f: f.subs(layers.t, -layers.t),
        lambda f: f + layers.rho**12,
    ],
    "noisy_layer": [
        lambda f: f - v * trace,
        lambda f: f - v * layers.mean_square,
        lambda f: f.subs(v, v**2),
    ],
    "rectifier_gain": [
        lambda f: f**2,
        lambda f: f.subs(layers.noise, layers.noise / 2),
        lambda f: 1 - layers.noise / (2 * (sympy.pi - 1)),
    ],
    "flip_law": [lambda f: f.subs(binary.l4, -binary.l4), lambda f: f.subs(v, 2 * v), lambda f: f.subs(v, v**2)],
}
DEAR = "margin_quadrature"  # its mistakes take seconds each: three in every run
CASES = [
    pytest.param(name, i, id=f"{name}-{i}", marks=[pytest.mark.slow] if name == DEAR and i > 2 else [])
    for name, changes in MISTAKES.items()
    for i in range(len(changes))
]


def test_every_result_has_a_mistake_to_refuse():
    assert set(MISTAKES) == set(RESULTS)


@pytest.mark.parametrize(("name", "i"), CASES)
def test_a_wrong_formula_is_refused(name, i, seed):
    wrong = MISTAKES[name][i](RESULTS[name].formula)
    assert wrong != RESULTS[name].formula
    steps = RESULTS[name].steps(wrong)
    assert not all(step.holds(seed) for step in sorted(steps, key=lambda step: isinstance(step, Numeric)))  # numeric ones last


def _broken(formula=m**2):
    return Result(
        name="broken",
        statement="(m + 1)^2 = m^2",
        arguments=(m,),
        formula=formula,
        assumptions=("none",),
        kind="exact",
        source="a mistake",
        steps=lambda f: (Identity(text="expanded", left=(m + 1) ** 2, right=f),),
    )


def test_the_command_fails_when_a_step_fails(monkeypatch, capsys):
    monkeypatch.setitem(RESULTS, "broken", _broken())
    assert main(["broken", "--json"]) == 1
    out = capsys.readouterr()
    (record,) = json.loads(out.out)
    assert record["verified"] is False
    assert record["failures"] == ["expanded"]
    assert "broken" in out.err


def test_the_command_lists_and_refuses_names(capsys):
    assert main(["gain", "error_variance"]) == 0
    assert "all verified" in capsys.readouterr().out
    assert main(["nonsense"]) == 2
    error = capsys.readouterr().err
    assert "nonsense" in error
    assert len(error.splitlines()) == 1


def test_declared_arguments_are_the_free_symbols():
    with pytest.raises(ValueError, match="differ from the free symbols"):
        _broken(m * s)


def test_a_name_used_twice_is_an_error():
    module = ModuleType("twice")
    module.__dict__.update(one=_broken(), other=_broken(m**3))
    with pytest.raises(ValueError, match="two results"):
        collect(module)


def test_a_numeric_step_sees_a_small_error():
    def off(rng):
        return 1, sympy.Rational(10**6 + 1, 10**6)

    assert not Numeric(text="off by 1e-6", sides=off).holds()
    assert Numeric(text="off by 1e-6", sides=off, tolerance=1e-5).holds()


def test_numbers_have_the_digits_that_are_promised():
    """Whatever mpmath's own precision is."""
    with mpmath.workdps(15):
        root = evaluate(sympy.sqrt(m), {m: 2})
    with mpmath.workdps(DIGITS):
        assert abs(root - mpmath.sqrt(2)) < 1e-29


def test_a_wrong_slope_in_tau_is_refused():
    """The summand itself, not only the formula read off it."""
    for summand, reference in (
        (8 * conditional.CCC_ii + 24 * conditional.b * (conditional.CCmu_i - conditional.CCh_i * conditional.tau), 3),
        (2 * conditional.CC_ii + 4 * conditional.b * (conditional.Cmu_i + conditional.Ch_i * conditional.tau / 2), 2),
    ):
        wrong = conditional._result("wrong", "", summand, "", lambda order=reference: conditional._norm_cumulant(order))
        assert wrong.failures()
