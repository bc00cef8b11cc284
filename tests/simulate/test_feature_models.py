"""Mixtures and smoothed samples: fitted, written and read, predicted and simulated; and which model to use."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

import simulate.__main__
from simulate import run
from simulate.experiments.models import ALL, POSTERIOR, compare, held_out
from simulate.feature_models import mixture, resampled
from simulate.feature_models.fit import fit
from simulate.sampling.mixtures import count_known as count_mixtures
from simulate.sampling.paired_counting import brute_force, draw
from simulate.sampling.random_networks import count_networks
from tests.support.commands import code, one_line
from tests.support.problems import random_problem
from tests.support.samples import sample
from tests.support.statistical import rejected
from theory.integrals import mixtures
from theory.prediction import predict
from theory.setting.archive import write_arrays
from theory.setting.error_law import independent_errors
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_statistics, write_statistics
from theory.setting.misfit import changed_ratio, grid, misfit
from theory.setting.problem import Components, Problem, decide, margin
from theory.setting.schemes import compress


def two_humps(seed: int, n: int, K: int = 3, d: int = 6, sampled: int = 0) -> Features:
    """Every class two Gaussians far apart: nothing one Gaussian can say. ``sampled`` numbers the samples of such a problem."""
    rng, problem = np.random.default_rng([seed, sampled]), random_problem(d, seed, K=K)
    features = sample(problem, n, rng)
    normals = np.random.default_rng(seed).standard_normal((K, d))
    side = 2.5 * np.sqrt(np.diagonal(problem.covariance(0))) * normals
    z = features.features + side[features.labels] * np.sign(rng.standard_normal((n, 1)))
    return replace(features, features=z, source_bits=64)


def parts_of(problem: Problem) -> Components:
    assert problem.components is not None
    return problem.components


def misfit_of(problem: Problem) -> float:
    assert problem.misfit is not None
    return problem.misfit


def mixed(seed: int, K: int, M: int = 3, d: int = 5, rows: int | None = None, per_class: bool = False) -> Problem:
    """A problem whose classes have M components each, of unequal shares, means and covariances."""
    rng, base = np.random.default_rng(seed), random_problem(d, seed, K=K, rows=2 if rows is None else rows)
    shares = rng.dirichlet(np.full(M, 3.0), K).reshape(-1)
    centres = np.repeat(base.means, M, 0) + rng.standard_normal((K * M, d)) * np.sqrt(np.diagonal(base.covariance(0)))
    roots = rng.standard_normal((K if per_class else K * M, d, d)) * 0.4
    spreads = np.einsum("mij,mkj->mik", roots, roots) + 0.1 * np.eye(d)
    parts = Components(classes=np.repeat(np.arange(K), M), shares=shares, means=centres, covariances=spreads)
    return replace(base, components=parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("K", "per_class"), [(2, False), *(pytest.param(4, own, marks=pytest.mark.slow) for own in (False, True))]
)
def test_predictions_are_what_is_simulated(seed, K, per_class):
    """Known and random layers; the moments alone, taken as Gaussian, are seen to be wrong."""
    scores, wrong = [], []
    for i in range(2):
        problem = mixed(seed + i, K, per_class=per_class)
        for errors in ("actual", "expected"):
            question: dict = dict(scheme="symmetric", bits=[2, 3], errors=errors, seed=seed)
            for said, seen in zip(predict(problem, **question), run(problem, n=2_000_000, **question), strict=True):
                assert seen.standard_error is not None
                assert seen.flip_rate_standard_error is not None
                error = np.hypot(seen.standard_error, said.numerical_error / 2)
                scores.append((said.distortion - seen.distortion) / error)
                flips = np.hypot(seen.flip_rate_standard_error, 1e-3 * seen.flip_rate)
                if errors == "actual":
                    scores.append((said.flip_rate - seen.flip_rate) / flips)
                    assert said.method == "component_lines"
                assert said.risk_before == pytest.approx(seen.risk_before, abs=4e-3)
            for said, seen in zip(
                predict(replace(problem, components=None), **question), run(problem, **question), strict=True
            ):
                wrong.append((said.risk_before - seen.risk_before) / np.sqrt(0.25 / 1e6))
    assert rejected(scores) == 0
    assert rejected(wrong) > 0


@pytest.mark.parametrize("rows", [1, 2])
def test_known_layers_of_two_classes_against_sums_of_phi(seed, rows):
    problem = mixed(seed, 2, rows=rows)
    parts = parts_of(problem)
    What = compress(problem.weights, "symmetric", 2).weights

    def risk(weights):
        w, c = margin(weights, problem.bias)
        s = np.sqrt(np.einsum("i,mij,j->m", w, parts.covariances, w))
        sign = np.where(parts.classes == 0, 1.0, -1.0)
        wrong = ndtr(sign * (parts.means @ w + c) / s)
        return problem.priors @ np.bincount(parts.classes, weights=parts.shares * wrong)

    (record,) = predict(problem, scheme="symmetric", bits=[2], seed=seed)
    assert record.distortion == pytest.approx(risk(What) - risk(problem.weights), abs=2 * record.numerical_error + 1e-12)
    assert record.numerical_error < 2e-3
    assert record.risk_before == pytest.approx(risk(problem.weights), abs=3e-3)


def test_points_drawn_follow_the_mixture(seed):
    problem = mixed(seed, 3)
    parts, K = parts_of(problem), 3
    means = np.array([parts.shares[parts.classes == k] @ parts.means[parts.classes == k] for k in range(K)])
    points = mixtures.draw(problem, seed)
    z, y = draw(problem, 60_000, np.random.default_rng(seed))
    for values, labels in ((points.features, points.labels), (z, y)):
        np.testing.assert_allclose(np.bincount(labels) / len(labels), problem.priors, atol=0.01)
        for k in range(K):
            own = values[labels == k]
            assert np.all(np.abs(own.mean(0) - means[k]) < 5 * own.std(0) / np.sqrt(len(own)))


@pytest.mark.parametrize("model", [pytest.param("mixture", marks=pytest.mark.slow), "resampled"])
def test_fitted_models_keep_what_they_promise(seed, model, tmp_path):
    features = two_humps(seed, 3000)
    problem, plain = fit(features, model=model, out=tmp_path / "s.npz"), fit(features)
    np.testing.assert_allclose(problem.means, plain.means)
    parts = parts_of(problem)
    for k in range(3):
        own = parts.classes == k
        assert parts.shares[own].sum() == pytest.approx(1)
        mean = parts.shares[own] @ parts.means[own]
        np.testing.assert_allclose(mean, plain.means[k], atol=0.02 * np.abs(features.features).max())
        centred = parts.means[own] - mean
        inside = parts.covariances[own if model == "mixture" else [k] * own.sum()]
        total = np.tensordot(parts.shares[own], inside, 1) + (parts.shares[own, None] * centred).T @ centred
        np.testing.assert_allclose(total, plain.covariances[k], atol=0.05 * np.abs(plain.covariances[k]).max())
    read = read_statistics(tmp_path / "s.npz")
    assert read.misfit == problem.misfit
    question: dict = dict(scheme="affine", bits=[2])
    (one,), (other,) = (predict(x, **question) for x in (problem, read))
    assert one.distortion == pytest.approx(other.distortion, rel=1e-9)
    assert one.interval == pytest.approx(other.interval, rel=1e-9)
    (seen,), (same,) = (run(x, n=100_000, **question) for x in (problem, read))
    assert seen.distortion == same.distortion
    pair = parts_of(problem.restrict([2, 0]))
    assert pair.classes.max() == 1
    np.testing.assert_array_equal(pair.means[pair.classes == 0], parts.means[parts.classes == 2])


@pytest.mark.slow
def test_the_better_model_has_the_smaller_misfit(seed):
    """Two humps: the Gaussian is off by more than others, and says so in its interval; a mixture or the samples are better."""
    features = two_humps(seed, 4000)
    off = {model: misfit_of(fit(features, model=model)) for model in ("gaussian", "mixture", "resampled")}
    assert off["gaussian"] > 2 * max(off["mixture"], off["resampled"], 0.02)
    gaussian = fit(features)
    assert gaussian.changed_ratio is not None
    (record,) = predict(gaussian, scheme="symmetric", bits=[2], test_size=1000)
    assert record.interval_sources["model"] == pytest.approx(off["gaussian"] * gaussian.changed_ratio * record.flip_rate)
    wide, narrow = (
        predict(replace(fit(features), misfit=x), scheme="symmetric", bits=[2], test_size=1000)[0] for x in (0.3, 0.02)
    )
    widths = [x.interval[1] - x.interval[0] for x in (wide, narrow)]
    said = [3.92 * np.sqrt(sum(s**2 for s in x.interval_sources.values())) for x in (wide, narrow)]
    np.testing.assert_allclose(widths, said, rtol=0.05)
    assert widths[0] > 1.5 * widths[1]
    exact = replace(fit(features), misfit=None)
    assert predict(exact, scheme="symmetric", bits=[2])[0].interval_sources["model"] == 0


@pytest.mark.slow
def test_the_better_model_is_found_on_the_other_half(seed):
    features = two_humps(seed, 4000)
    rows = held_out(features, seed=seed)
    gap = {
        model: np.mean([abs(r["predicted"] - r["distortion"]) for r in rows if r["model"] == model and r["bits"] == 2])
        for model in ALL
    }
    assert gap["gaussian"] > 1.5 * min(gap["mixture"], gap["resampled"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mixture", "resampled"])
def test_the_statistics_source_is_the_spread_over_samples(seed, model):
    """Fitted again on 25 other samples: the predicted distortion varies about as much as it says, a mixture less."""
    found, said = [], []
    for i in range(25):
        problem = fit(two_humps(seed, 600, sampled=i), model=model)
        (record,) = predict(problem, scheme="symmetric", bits=[2])
        found.append(record.distortion)
        said.append(record.interval_sources["statistics"])
    ratio = np.std(found) / np.sqrt(np.mean(np.square(said)))
    assert 0.35 < ratio < 1.5, ratio


def test_dead_features_do_not_collapse_mixtures(seed):
    """All samples in the first component of a class: one Gaussian, whatever was asked."""
    features = two_humps(seed, 600)
    dead = replace(
        features,
        features=np.concatenate([features.features, np.zeros((600, 1))], 1),
        weights=np.concatenate([features.weights, np.ones((3, 1))], 1),
    )
    parts = parts_of(fit(dead, model="mixture"))
    assert parts.shares.max() < 0.8
    assert len(np.unique(parts.shares.round(6))) > 4


def test_mixtures_find_their_components(seed):
    rng = np.random.default_rng(seed)
    z = np.concatenate([rng.standard_normal((600, 4)) + 6, rng.standard_normal((200, 4)) - 6])
    likelihood, shares, means, covariances = max(
        (mixture._fitted(z, 2, np.random.default_rng(r)) for r in range(3)), key=lambda x: x[0]
    )
    order = np.argsort(shares)
    np.testing.assert_allclose(shares[order], [0.25, 0.75], atol=1e-6)
    np.testing.assert_allclose(means[order], [[-6] * 4, [6] * 4], atol=0.35)
    np.testing.assert_allclose(covariances[order], np.stack([np.eye(4)] * 2), atol=0.35)
    assert np.isfinite(likelihood)


def test_the_bandwidth_is_that_of_the_margins(seed):
    """Of a Gaussian margin about n^(-1/5) of its deviation; of a rough one less; whatever the features' scale."""
    features = sample(random_problem(20, seed), 2000, np.random.default_rng(seed))
    h = resampled.bandwidth(features)
    assert 0.1 < h < 0.5
    assert resampled.bandwidth(replace(features, features=10 * features.features, bias=10 * features.bias)) == pytest.approx(
        h, rel=0.05
    )
    assert resampled.bandwidth(two_humps(seed, 2000, K=2)) < h
    np.testing.assert_allclose(
        resampled.margins(features) > 0, np.argmax(features.features @ features.weights.T + features.bias, 1) == features.labels
    )


def test_many_classes_of_many_features_share_a_covariance(seed, capsys):
    features = sample(random_problem(8, seed, K=3), 60, np.random.default_rng(seed))
    problem = fit(features, covariance_entries=100)
    assert problem.shared
    assert "in common" in capsys.readouterr().err
    assert np.linalg.eigvalsh(problem.covariances)[0] > 0
    assert parts_of(fit(features, model="resampled", covariance_entries=100)).covariances.shape == (3, 8, 8)


@pytest.mark.slow
def test_comparing_says_which_and_why(seed, tmp_path, capsys):
    features = two_humps(seed, 1200, K=2)
    records = compare(features, seed=seed)
    best = {one["model"] for one in records if one["recommended"]}
    assert len(best) == 1
    assert best <= {"mixture", "resampled", "gaussian", POSTERIOR}
    total = {one["model"]: one for one in records if one["bits"] is None}
    assert set(total) == set(ALL)
    assert total[best.pop()]["score"] == min(x["score"] for name, x in total.items() if name not in ("no loss", "counted"))
    assert total["counted"]["flips"] == pytest.approx(1, abs=0.1)
    path = tmp_path / "f.npz"
    np.savez(path, features=features.features, labels=features.labels, weights=features.weights, bias=features.bias)
    assert code(simulate.__main__, "fit", path, "--compare") == 0
    assert "use " in capsys.readouterr().out


def test_what_fit_refuses(seed, tmp_path, capsys):
    features, path = two_humps(seed, 100, K=2), tmp_path / "f.npz"
    np.savez(path, features=features.features, labels=features.labels, weights=features.weights, bias=features.bias)
    assert code(simulate.__main__, "fit", path) == 2
    one_line(capsys, "--out", "--compare")
    assert code(simulate.__main__, "fit", path, "--compare", "--out", tmp_path / "s.npz") == 2
    one_line(capsys, "--out", "none")
    assert code(simulate.__main__, "fit", path, "--compare") == 2
    one_line(capsys, "labels", "200", "100")


def test_bad_components_are_refused(seed, tmp_path):
    problem = mixed(seed, 3)
    write_statistics(tmp_path / "good.npz", problem)
    with np.load(tmp_path / "good.npz") as file:
        good = dict(file)
    for name, change, words in (
        ("component_shares", lambda x: 2 * x, "sum to 1"),
        ("component_classes", lambda x: x[::-1], "ascending"),
        ("component_classes", lambda x: x + 1, "0 to 2"),
        ("component_means", lambda x: x[:, :2], "shape"),
        ("component_covariances", lambda x: x[:4], "9 components"),
        ("component_covariances", lambda x: -x, "eigenvalue"),
        ("misfit", lambda x: np.array(-1.0), "at least 0"),
    ):
        write_arrays(tmp_path / "bad.npz", good | {name: change(good.get(name))})
        with pytest.raises(InputError, match=words):
            read_statistics(tmp_path / "bad.npz")
    del good["component_means"]
    write_arrays(tmp_path / "bad.npz", good)
    with pytest.raises(InputError, match="component_means"):
        read_statistics(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="method"):
        run(problem, scheme="symmetric", bits=[2], method="conditional")
    with pytest.raises(InputError, match="model"):
        fit(two_humps(seed, 100), model="magic")


def test_counts_do_not_depend_on_the_chunk(seed):
    problem = mixed(seed, 3)
    layer = compress(problem.weights, "symmetric", 3)
    known = [count_mixtures(problem, [layer.weights], seed=seed, first=0, last=4, chunk=chunk) for chunk in (1, 3)]
    how: dict = dict(each=32, seed=seed, first=0, last=4)
    errors = [independent_errors(layer.steps)]
    drawn = [count_networks(problem, errors, chunk=chunk, **how) for chunk in (1, 3)]
    for one, other in (*zip(*known, strict=True), *zip(*drawn, strict=True)):
        np.testing.assert_array_equal(one, other)


def test_brute_force_agrees(seed):
    problem = mixed(seed, 4)
    What = compress(problem.weights, "symmetric", 3).weights
    (row,) = brute_force(problem, [What], n=400_000, seed=seed)
    (seen,) = run(problem, scheme="symmetric", bits=[3], n=4_000_000, seed=seed)
    assert abs(row[2] - seen.distortion) < 4 * np.sqrt(row[3] / 400_000)


@pytest.mark.slow
def test_decisions_that_change_more_often_than_the_model_says_widen_the_noise_of_a_test_set(seed, tmp_path):
    """Gaussian features: the ratio is 1 within its noise. Margins that are mixtures, whose centres are narrow: it is not, and
    the noise of a test set is that of the decisions that really change."""
    problem, rng = random_problem(6, seed, K=3, shared=True), np.random.default_rng(seed)
    plain = fit(sample(problem, 4000, rng))
    assert plain.changed_ratio == pytest.approx(1, abs=0.2)
    features = sample(problem, 4000, rng)
    centre = problem.means[features.labels]
    loud = np.where(rng.random((4000, 1)) < 0.1, 3.0, 0.33)  # the variance as before
    other = fit(replace(features, features=centre + loud * (features.features - centre)), out=tmp_path / "s.npz")
    assert other.changed_ratio is not None
    assert abs(np.log(other.changed_ratio)) > 0.2
    assert read_statistics(tmp_path / "s.npz").changed_ratio == other.changed_ratio
    ask: dict = dict(scheme="symmetric", bits=[3], test_size=1000)
    noise = [predict(x, **ask)[0].interval_sources["test_set"] for x in (other, replace(other, changed_ratio=1.0))]
    assert noise[0] / noise[1] == pytest.approx(np.sqrt(other.changed_ratio), rel=0.02)


def test_few_changes_say_little_of_their_ratio():
    assert changed_ratio(0.0, 0.0) == 1
    assert changed_ratio(4.0, 1.0) == 2.5
    assert changed_ratio(4000.0, 1000.0) == pytest.approx(4, rel=1e-2)


def test_components_of_chosen_classes_keep_their_shares():
    components = Components(
        classes=np.array([0, 0, 1, 2, 2]),
        shares=np.array([0.1, 0.9, 1.0, 0.3, 0.7]),
        means=np.arange(5.0)[:, None],
        covariances=np.ones((5, 1, 1)) * np.arange(1.0, 6.0)[:, None, None],
    )
    chosen = components.restrict(np.array([2, 0]))
    assert chosen.classes.tolist() == [0, 0, 1, 1]
    assert chosen.shares.tolist() == [0.3, 0.7, 0.1, 0.9]
    assert chosen.means[:, 0].tolist() == [3.0, 4.0, 0.0, 1.0]
    assert chosen.covariances[:, 0, 0].tolist() == [4.0, 5.0, 1.0, 2.0]


@pytest.mark.parametrize("classes", [2, 4])
def test_the_misfit_by_hand(classes, seed):
    """Two humps a class fitted by Gaussians: distortions and changes counted here on the samples and on those of the model."""
    features = two_humps(seed, 1500, K=classes)
    problem = fit(features)
    layers, n = grid(problem.weights), 2**17
    z, y = draw(problem, n, np.random.default_rng(0))
    counted = {}
    for name, (points, labels) in {"model": (z, y), "seen": (features.features, features.labels)}.items():
        before = decide(points @ problem.weights.T + problem.bias)
        after = np.stack([decide(points @ layer.weights.T + problem.bias) for layer in layers])
        wrong, wrong_after = before != labels, after != labels
        shift, flips, changed = wrong_after.mean(1) - wrong.mean(), (after != before).mean(1), (wrong_after ^ wrong).mean(1)
        counted[name] = shift, flips, changed
    (D, flips, changed), (seen, _, seen_changed) = counted["model"], counted["seen"]
    alike = len(layers) / 5  # five widths
    ratio = (1 + 1500 / alike * seen_changed.sum()) / (1 + 1500 / alike * changed.sum())
    variance = np.maximum(ratio * changed - D**2, 0) / 1500 + (changed - D**2) / n
    assert problem.changed_ratio == pytest.approx(ratio, rel=1e-6)
    assert abs(ratio - 1) > 1e-3
    assert problem.misfit == pytest.approx(misfit(D - seen, ratio * flips, variance), rel=1e-3)
    assert misfit_of(problem) > 0.02
