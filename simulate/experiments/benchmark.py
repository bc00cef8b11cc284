"""``simulate benchmark``: what the mathematics and the compiled code gain on this machine, beside NumPy, SciPy and PyTorch.

Every ratio comes from one run, compiling and running apart, the contenders' repetitions alternating with ours. Contenders draw
float32 normals with their fastest generator, in chunks, multiply by both heads and take two argmaxes.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from simulate.generator import synthetic
from simulate.sampling.blocks import BLOCK
from simulate.sampling.paired_counting import Tally, count_grid, count_known, factor, grid_temporaries, reduced_heads
from theory.integrals import contrasts, line_averages, lines
from theory.integrals.orthant import SCRAMBLINGS, cholesky, estimate, order_of, point_sets, separated
from theory.setting.command_line import keep_compiled, progress
from theory.setting.error_law import independent_errors
from theory.setting.errors import InputError
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.schemes import compress

REPEATS = 5
WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
SEPARATION, OF_100, OF_1000 = 3.1, 4.1, 4.7  # clean risk .08 to .09 at d = 512, 512, 2048


def benchmark(names: Sequence[str] = (), *, seed: int = 0) -> list[dict[str, Any]]:
    """Run the named benchmarks (default: all): one record a claim with what it reached.

    Returns:
        Records ``benchmark``, ``quantity``, ``value``, ``unit``, ``bar`` (what is asked; None where nothing is), ``holds``,
        ``note``, ``device``.

    Raises:
        InputError: an unknown name.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(f"NAME: expected one of {', '.join(BENCHMARKS)}, got {name!r}")
    local = jax.local_devices()
    device = f"{local[0].device_kind} x {len(local)}, {os.cpu_count()} cores, {platform.machine()}"
    records = []
    for name in progress(list(names or BENCHMARKS), what="benchmarks"):
        for record in BENCHMARKS[name](seed):
            records.append({"benchmark": name, **record, "device": device})
    return records


def _record(quantity: str, value: float, unit: str, bar: float | None = None, *, least: bool = False, note: str = "") -> dict:
    """``least``: the bar is a lower one."""
    holds = None if bar is None else bool(value >= bar if least else value <= bar)
    return {"quantity": quantity, "value": float(value), "unit": unit, "bar": bar, "holds": holds, "note": note}


def _seconds(*work: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Median seconds of each, in alternation, after one call that compiles."""
    for one in work:
        one()
    times = np.zeros((repeats, len(work)))
    for row in times:
        for i, one in enumerate(work):
            time.sleep(0.3)  # until the threads of the one before have stopped spinning
            start = time.perf_counter()
            one()
            row[i] = time.perf_counter() - start
    return [float(x) for x in np.median(times, 0)]


def _layers(problem: Problem, widths: Sequence[int]) -> list[np.ndarray]:
    return [compress(problem.weights, "symmetric", width).weights for width in widths]


def _distortion(tally: Tally, problem: Problem, i: int = 0) -> tuple[float, float, float]:
    """Distortion, flip rate and the variance of the distortion times the feature vectors behind it."""
    D, F = ((x[i] / tally.samples) @ problem.priors for x in (tally.made - tally.mended, tally.flips))
    return float(D), float(F), float(tally.squares[i, 0] / tally.units - D**2) * problem.classes


class _Full:
    """Full feature vectors of one class after the other, by NumPy or PyTorch: n of them through the heads (H, K, d)."""

    def __init__(self, problem: Problem, layers: Sequence[np.ndarray], seed: int, chunk: int = 16384):
        heads = np.stack([problem.weights, *layers]).astype(np.float32)
        self.heads = np.concatenate([head @ factor(problem.covariance(0)) for head in heads]).astype(np.float32)
        self.means = (problem.means @ np.concatenate(list(heads)).T + np.tile(problem.bias, len(heads))).astype(np.float32)
        self.count, self.chunk, self.rng = len(heads), chunk, np.random.Generator(np.random.SFC64(seed))

    def numpy(self, n: int) -> None:
        for i in range(n // self.chunk):
            k = i % len(self.means)
            g = self.rng.standard_normal((self.chunk, self.heads.shape[1]), dtype=np.float32)
            logits = (g @ self.heads.T + self.means[k]).reshape(self.chunk, self.count, -1)
            _count(logits.argmax(2).T, k)

    def torch(self, n: int) -> None:
        import torch

        heads, means = torch.from_numpy(self.heads), torch.from_numpy(self.means)
        for i in range(n // self.chunk):
            k = i % len(self.means)
            logits = (torch.randn(self.chunk, heads.shape[1]) @ heads.T + means[k]).reshape(self.chunk, self.count, -1)
            _count(logits.argmax(2).T.numpy(), k)


def _count(decided: np.ndarray, k: int) -> tuple:
    wrong = decided != k
    return wrong[0].sum(), (wrong[1:] & ~wrong[0]).sum(1), (~wrong[1:] & wrong[0]).sum(1), (decided[1:] != decided[0]).sum(1)


def _numpy_shared(problem: Problem, layers: Sequence[np.ndarray], seed: int) -> Callable[[int], None]:
    """NumPy with our reduction and one normal for all classes."""
    means, factors = (x.astype(np.float32) for x in reduced_heads(problem, [What - problem.weights for What in layers]))
    rng, rows, L = np.random.Generator(np.random.SFC64(seed)), len(problem.weights), factors[0]

    def work(samples: int) -> None:
        for _ in range(samples // BLOCK):
            common = L @ rng.standard_normal((L.shape[1], BLOCK), dtype=np.float32)
            for k, mean in enumerate(means):
                logits = common + mean[:, None]
                clean, shift = logits[:rows], logits[rows:].reshape(-1, rows, BLOCK)
                _count(np.concatenate([clean[None], clean + shift]).argmax(1), k)

    return work


def _counting(seed: int):
    """Samples a second, one width and nine, beside NumPy and PyTorch on the same machine."""
    problem = synthetic(classes=10, features=512, separation=SEPARATION, seed=seed)
    yield from _count_beside(problem, (4,), 100.0, 2.0, seed)
    yield from _count_beside(problem, WIDTHS, 20.0, None, seed)


def _count_beside(problem: Problem, widths: Sequence[int], bar: float, bar_shared: float | None, seed: int):
    layers, blocks, vectors = _layers(problem, widths), 256 // len(widths), 8 * 16384
    full, shared = _Full(problem, layers, seed), _numpy_shared(problem, layers, seed)
    work: list[Callable] = [lambda: count_known(problem, layers, seed=seed, first=0, last=blocks)]
    work += [lambda: full.numpy(vectors), lambda: shared(8 * BLOCK)]
    if importlib.util.find_spec("torch"):
        work.append(lambda: full.torch(vectors))
    seconds = _seconds(*work)
    tally = count_known(problem, layers, seed=seed, first=0, last=blocks)
    efficiencies = []
    for i in range(len(widths)):
        D, flips, variance = _distortion(tally, problem, i)
        efficiencies.append((flips - D**2) / variance)
    ours, fastest = seconds[0] / (blocks * BLOCK * 10), min(seconds[1], *seconds[3:]) / vectors
    others = [
        f"{name} {1e9 * x / vectors:.0f} ns" for name, x in zip(("NumPy", "torch"), (seconds[1], *seconds[3:]), strict=False)
    ]
    name, worth = f"clean + {len(widths)} compressed", min(efficiencies)
    yield _record(f"{name}: a feature vector", 1e9 * ours, "ns", note=f"{', '.join(others)}; shared normals worth {worth:.2f}")
    yield _record(f"{name}: faster than NumPy and torch", fastest / ours * worth, "x", bar, least=True)
    ratio = seconds[2] / (8 * BLOCK * 10) / ours
    yield _record(f"{name}: faster than NumPy reduced and shared", ratio, "x", bar_shared, least=True)


def _in_a_second(run: Callable[[int], np.ndarray], n: int, most: int) -> tuple[int, float, np.ndarray]:
    """The largest n (doubling) whose warm run takes a second at most: n, seconds, replicates."""
    best = None
    while n <= most:
        run(n)
        start = time.perf_counter()
        values = run(n)
        seconds = time.perf_counter() - start
        if best is not None and seconds > 1:
            break
        best, n = (n, seconds, values), 2 * n
        if seconds > 1:
            break
    assert best is not None
    return best


@in_float64
def _known(seed: int):
    """Standard error of a known layer's distortion in a second, 10 and 100 classes."""
    cases = ((10, 4, 1e-7), (10, 6, 1e-8), (10, 8, 2e-9), (100, 6, 4e-6))
    for K, width, bar in cases:
        problem = synthetic(classes=K, features=512, separation=SEPARATION if K == 10 else OF_100, seed=seed)
        layers = np.stack(_layers(problem, (width,)))

        def run(n: int, problem=problem, layers=layers) -> np.ndarray:
            values = contrasts.orthants(contrasts.laws_of(problem, layers), n=n, seed=seed, dtype=jnp.float32)
            return (values[:, 0] - values[:, 1]) @ problem.priors

        n, seconds, values = _in_a_second(run, 2**4, 2**16)
        se = float(values.std(ddof=1)) / np.sqrt(SCRAMBLINGS)
        yield _record(
            f"K = {K}, {width} bits: standard error of D, points included, scaled to 1 s",
            se * np.sqrt(seconds),
            "",
            bar,
            note=f"D = {values.mean():.3g}, {se:.1e} by {n} points x {SCRAMBLINGS} in {seconds:.2f} s",
        )
        if K == 100:
            full = _Full(problem, list(layers), seed, chunk=4096)
            (slow,) = _seconds(lambda full=full: full.numpy(8 * 4096))
            tally = count_known(problem, list(layers), seed=seed, first=0, last=4)
            D, flips, _ = _distortion(tally, problem)
            paired = np.sqrt((flips - D**2) * slow / (8 * 4096) / seconds)
            yield _record(
                "K = 100: paired NumPy at equal time needs so many times as long", (paired / se) ** 2, "x", 2000.0, least=True
            )


@in_float64
def _thousand(seed: int):
    """The same of 1,000 classes, and how fast whole feature vectors are drawn."""
    problem = synthetic(classes=1000, features=2048, separation=OF_1000, seed=seed)
    (layer,) = _layers(problem, (6,))
    heads, rng = np.stack([problem.weights, layer]), np.random.default_rng(seed)
    law = lines.law(heads, problem.bias, problem.means, contrasts.root(problem.covariances))

    def run(n: int) -> np.ndarray:
        """Eight sets of n lines a class, for the distortion alone."""
        seeds = [(seed, r) for r in range(8)]
        _, made, mended, _ = lines.class_change([lambda: law], n=n, seeds=seeds, together=line_averages.TOGETHER, walked=0)
        return (made - mended)[:, 0] @ problem.priors

    n, seconds, values = _in_a_second(run, 2, 2**10)
    se = float(values.std(ddof=1)) / np.sqrt(8)
    yield _record(
        "standard error of D by lines, scaled to 1 s",
        se * np.sqrt(seconds),
        "",
        7e-5,
        note=f"D = {values.mean():.2g}, {se:.1e} by 8 x {n} lines a class in {seconds:.1f} s",
    )
    A, B = (rng.standard_normal((2000, 2048), dtype=np.float32), rng.standard_normal((2048, BLOCK), dtype=np.float32))
    gemm, ours = _seconds(lambda: A @ B, lambda: count_known(problem, [layer], seed=seed, first=0, last=1), repeats=3)
    rate = 2 * 2000 * 2048 * BLOCK / gemm
    full = 2 * 2000 * 2048 * BLOCK * problem.classes / ours  # what full feature vectors of each class would take
    yield _record(
        "sampling, as full-space multiplications over NumPy's GEMM rate",
        full / rate,
        "x",
        0.85,
        least=True,
        note=f"NumPy {rate / 1e9:.0f} GFLOP/s; {1e9 * ours / BLOCK / problem.classes:.0f} ns a feature vector",
    )


GRID = """
import json, time
import numpy as np
from simulate.experiments.benchmark import grid_problems
from simulate.sampling.paired_counting import count_grid
problems, layers = grid_problems(SEED)
start = time.perf_counter()
count_grid(problems, layers, seed=0, first=0, last=4)
print(json.dumps(time.perf_counter() - start))
"""


def grid_problems(seed: int) -> tuple[list[Problem], list[list[np.ndarray]]]:
    """64 problems of three classes and 64 features, from easy to hard, at 4 bits."""
    problems = [synthetic(classes=3, features=64, separation=1 + i / 16, seed=seed + i) for i in range(64)]
    return problems, [_layers(problem, (4,)) for problem in problems]


def _grid(seed: int):
    """A grid of problems in one program: cold, with what was compiled kept, warm; and its memory."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            script = GRID.replace("SEED", str(seed))
            done = subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, **keep_compiled(folder)},
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(json.loads(done.stdout))
    yield _record("64 problems as one program, cold", times[0], "s", 1.0)
    yield _record("the same from the compilation cache", times[1], "s", 0.5)
    problems, layers = grid_problems(seed)
    question: dict = dict(seed=seed, first=0, last=4)
    yield _record("temporaries", grid_temporaries(problems, layers) / 2**20, "MiB", 2.0)
    together, apart = _seconds(
        lambda: count_grid(problems, layers, **question),
        lambda: [count_known(p, x, **question) for p, x in zip(problems, layers, strict=True)],
    )
    yield _record(
        "warm, faster than a Python loop over the compiled function",
        apart / together,
        "x",
        2.0,
        least=True,
        note=f"{together:.3f} s against {apart:.3f} s",
    )


@in_float64
def _orthant(seed: int):
    """An orthant of 100 dimensions beside SciPy's."""
    m, rng = 100, np.random.default_rng(seed)
    A = rng.standard_normal((m, m)) / np.sqrt(m)
    covariance, mean = A @ A.T + 0.3 * np.eye(m), rng.uniform(1, 2.5, m)
    order = order_of(mean[None], covariance[None])[0]
    centre, L = jnp.asarray(mean[order], jnp.float32), jnp.asarray(cholesky(covariance[np.ix_(order, order)]), jnp.float32)

    def run(n: int, seed: int = seed) -> np.ndarray:
        return np.array(
            [float(jnp.mean(separated(centre, L, jnp.asarray(u, jnp.float32)))) for u in point_sets(m, n, SCRAMBLINGS, seed, 1)]
        )

    n, seconds, values = _in_a_second(run, 2**8, 2**16)
    se = float(values.std(ddof=1)) / np.sqrt(SCRAMBLINGS)
    yield _record(
        "100 dimensions: standard error, points included",
        se,
        "",
        4e-6,
        note=f"P = {values.mean():.6f}, {n} x {SCRAMBLINGS} points, {seconds:.2f} s",
    )
    truth = float(np.mean([run(4 * n, seed + 1000 + i).mean() for i in range(2)]))
    trials = [estimate(run(2**8, seed + 1 + i)) for i in range(400)]
    inside = np.mean([abs(one.value - truth) <= one.error for one in trials])
    yield _record(
        "the 95 % error covers the truth, share of 400 trials", float(inside), "", None, note="at 256 points a scrambling"
    )
    law = multivariate_normal(-mean, covariance, maxpts=SCRAMBLINGS * n, abseps=1e-12, releps=1e-12, seed=seed)
    start = time.perf_counter()
    off = [abs(float(law.cdf(np.zeros(m))) - truth) for _ in range(3)]
    slow = (time.perf_counter() - start) / 3
    error = float(np.sqrt(np.mean(np.square(off))))
    yield _record(
        "faster than SciPy at equal error",
        slow * error**2 / (seconds * se**2),
        "x",
        3.0,
        least=True,
        note=f"SciPy {slow:.2f} s, error {error:.1e}; time taken to scale with error^-2",
    )


@in_float64
def _expected(seed: int):
    """Seconds to the mean over random layers, of many features and of few."""
    for d, widths, bar in ((512, (3, 8), 0.3), (16, (3, 8), 3.0)):
        problem = synthetic(classes=10, features=d, separation=SEPARATION, seed=seed)
        for width in widths:
            errors = independent_errors(compress(problem.weights, "symmetric", width).steps)
            contrasts.orthant_pairs(problem, errors, seed=seed)
            start = time.perf_counter()
            values, _, _ = contrasts.orthant_pairs(problem, errors, seed=seed)
            seconds = time.perf_counter() - start
            means = (values[:, :, :1] - values[:, :, 1:]).mean((1, 2)) @ problem.priors
            relative = float(means.std(ddof=1) / np.sqrt(SCRAMBLINGS) / means.mean())
            yield _record(
                f"d = {d}, {width} bits: standard error of .3 % of the expected distortion",
                seconds * (relative / 3e-3) ** 2,
                "s",
                bar,
                note=f"{100 * relative:.2f} % in {seconds:.2f} s",
            )


MEMORY = """
import json, resource, sys, time
from simulate.experiments.benchmark import memory_problem
from simulate.sampling.blocks import BLOCK
from simulate.sampling.paired_counting import count_known
problem, layers = memory_problem()
start = time.perf_counter()
count_known(problem, layers, seed=0, first=0, last=-(-int(sys.argv[1]) // (10 * BLOCK)))
seconds = time.perf_counter() - start
try:  # not what the parent had at the fork
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak / 1024]))
"""


def memory_problem() -> tuple[Problem, list[np.ndarray]]:
    problem = synthetic(classes=10, features=512, separation=SEPARATION, seed=0)
    return problem, _layers(problem, (4,))


def _memory(_: int):
    """Memory of a million samples and of a thousand million."""
    seen = []
    for n in (10**6, 10**9):
        done = subprocess.run([sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, check=True)
        seen.append(json.loads(done.stdout))
    (_, small), (seconds, large) = seen
    yield _record("peak memory, n = 1e9 over n = 1e6", large - small, "MiB", 50.0, note=f"{small:.0f} MiB at 1e6")
    yield _record("1e9 feature vectors", seconds, "s")


def _device(seed: int):
    """The device there is, beside its own normals and products a second; the sweep is 1,250 problems by 8 widths, on a CPU 15
    problems."""
    problem = synthetic(classes=10, features=512, separation=SEPARATION, seed=seed)
    layers, key, gpu = _layers(problem, (4,)), jax.random.key(seed), jax.default_backend() == "gpu"
    generate = jax.jit(lambda key: jnp.sum(jax.random.normal(key, (4096, 8192), jnp.float32)))
    A = jnp.ones((4096, 4096), jnp.float32)
    multiply = jax.jit(lambda a: jnp.sum(jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST)))
    blocks = 2048 if gpu else 128
    normals, gemm, ours = _seconds(
        lambda: generate(key).block_until_ready(),
        lambda: multiply(A).block_until_ready(),
        lambda: count_known(problem, layers, seed=seed, first=0, last=blocks, chunk=blocks),
    )
    rate, own = blocks * BLOCK * 10 / ours, 4096 * 8192 / normals
    share = "feature vectors a second over the device's own normals a second"
    yield _record(share, rate / own, "", note=f"{own / 1e6:.0f} million normals/s")
    yield _record("float32 GEMM rate", 2 * 4096**3 / gemm / 1e9, "GFLOP/s")
    separations = np.linspace(1, 5, 1250)[:: 1 if gpu else 84]
    problems = [synthetic(classes=10, features=512, separation=float(x), seed=seed + i) for i, x in enumerate(separations)]
    grid = [_layers(p, WIDTHS) for p in problems]
    start = time.perf_counter()
    for first in range(0, len(problems), 250):
        some = slice(first, first + 250)
        count_grid(problems[some], grid[some], seed=seed, first=0, last=-(-(10**6) // (10 * BLOCK)))
    seconds, cells = time.perf_counter() - start, len(problems) * len(WIDTHS)
    note = f"{cells} in {seconds:.1f} s, compiling included"
    yield _record("10,000 cells of a million feature vectors", seconds * 10000 / cells, "s", 60.0 if gpu else None, note=note)


BENCHMARKS: dict[str, Callable] = {
    "counting": _counting,
    "known": _known,
    "thousand": _thousand,
    "grid": _grid,
    "orthant": _orthant,
    "expected": _expected,
    "memory": _memory,
    "device": _device,
}
