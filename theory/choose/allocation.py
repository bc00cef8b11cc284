"""How many bits each layer gets: the plan of least predicted loss under a budget of stored bits per weight.

Near a plan the loss is nearly linear in the error variances of the tensors, D = D_0 + sum_t s_t (v_t - v_0t), with
sensitivities s_t = dD/dv_t. For given sensitivities the best plan under the budget is an integer linear programme, solved to a
proven gap; the sensitivities are taken anew at the plan found, and of all plans seen the one of least predicted loss is
returned.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from theory.all_layers import State, error_power, predicted, sensitivities, state_of, stored_bits
from theory.choose.rows import noise_of_rows
from theory.interval import Asked
from theory.setting.checks import seed_of, share, widths
from theory.setting.dense import DenseNetwork
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_any, write_plan
from theory.setting.noise import Noise
from theory.setting.plan import Plan, network_plans
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.record import Record

WIDTHS = tuple(range(2, 9))
ROUNDS = 4  # sensitivities are taken anew so often at most
HALVINGS = 12  # of the budget, for the smallest rate that keeps a loss


@in_float64
def allocate(
    source: Noise | Problem | Features | Path | str,
    *,
    scheme: str,
    budget: float | None = None,
    max_loss: float | None = None,
    bits: Sequence[int] = WIDTHS,
    temperature: float | None = None,
    confidence: float = 0.95,
    test_size: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The width of each weight that loses least.

    Args:
        source: the noise of a network's logits, or its file; or a problem, features or their file, whose rows are the weights:
            each has a step of its own, and points are drawn from a problem.
        scheme, temperature, confidence, test_size, seed, options: as :func:`theory.predict`.
        budget: stored bits per weight, all side information included; or ``max_loss``: the smallest rate whose predicted mean
            loss is at most that (:func:`theory.bits` keeps it with the upper end of the interval).
        bits: the widths tried for each weight.
        out: where to write the plan (JSON), if anywhere.

    Returns:
        ``plan``, ``rate``, ``record`` (predicted), ``uniform`` (the record of the largest one width for all within the budget,
        or None), ``gap`` (relative, of the linear programme's solution to its bound: 0 where it is proven to be the optimum of
        what is minimized, the loss linearized at the plan), ``sentence``.

    Raises:
        InputError: a bad file or bad options, or a budget or loss that no widths keep.
    """
    noise = read_any(source)
    if isinstance(noise, DenseNetwork):
        raise InputError("allocate: expected a noise file, statistics or features of one layer, got a dense network of several")
    if not isinstance(noise, Noise):
        options.pop("per_channel", None)  # every row is a tensor
        noise = noise_of_rows(noise, seed_of(seed))
    if (budget is None) == (max_loss is None):
        raise InputError("budget, max_loss: expected one of the two, got " + ("none" if budget is None else "both"))
    if budget is not None and not (isinstance(budget, int | float) and 0 < budget < 64):
        raise InputError(f"budget: expected stored bits per weight, a number above 0 and below 64, got {budget!r}")
    asked = Asked(confidence=share("confidence", confidence), test_size=test_size, seed=seed)
    search = Search(state_of(noise, temperature), scheme, sorted(set(widths(bits))), options, asked)
    if budget is not None:
        found = search.within(budget)
        if found is None:
            least = search.rate(dict.fromkeys(search.names, search.bits[0]))
            raise InputError(f"budget: expected at least {least:.3f} stored bits per weight with these widths, got {budget:g}")
    else:
        found = search.losing(share("max_loss", float(max_loss or 0.0)))
    uniform = search.uniform(found.record.rate if budget is None else budget)
    plan = search.plan(found.bits)
    document = plan.as_dict(scheme, rate=found.record.rate, provenance={"noise": noise.provenance})
    if out is not None:
        write_plan(out, document)
    low, high = (100 * end for end in found.record.interval)
    said = (
        f"{found.record.rate:.3f} stored bits per weight, predicted loss {100 * found.record.distortion:.2f} points on average"
    )
    said += f", of one network {low:.2f} to {high:.2f}"
    if uniform is not None:
        said += f"; one width of {uniform.bits} bits for all: {uniform.rate:.3f}, {100 * uniform.distortion:.2f} points"
    return {
        "plan": document,
        "rate": found.record.rate,
        "record": found.record,
        "uniform": uniform,
        "gap": found.gap,
        "sentence": said,
    }


class Found(NamedTuple):
    """Widths by name, their record, and the gap of the linear programme that gave them."""

    bits: dict[str, int]
    record: Record
    gap: float


class Search:
    """The plans of a noise file: every weight one of some widths."""

    def __init__(self, state: State, scheme: str, bits: Sequence[int], options: Mapping[str, Any], asked: Asked):
        self.state, self.scheme, self.bits, self.options, self.asked = state, scheme, list(bits), dict(options), asked
        self.names = list(state.noise.tensors.indices("weight"))
        self.plans = {width: self.plan(dict.fromkeys(self.names, width)) for width in self.bits}
        powers = [error_power(state.noise, self.plans[width]) for width in self.bits]
        place = state.noise.tensors.indices("weight")
        # by name of a weight, the Gram that its errors take
        self.scale = {
            name: next((scale for scale, v in powers[0].by_scale.items() if v[place[name]] > 0), "") for name in self.names
        }
        self.variance = np.array([[power.by_scale[self.scale[n]][place[n]] for power in powers] for n in self.names])
        one = [stored_bits(state.noise, self.single(name, width))[0] for name in self.names for width in self.bits]
        self.stored = np.array([sum(kinds.values()) for kinds in one], float).reshape(len(self.names), -1)
        self.weights = float(sum(state.noise.tensors.sizes[place[name]] for name in self.names))

    def plan(self, bits: Mapping[str, int]) -> Plan:
        (made,) = network_plans(
            self.names, self.scheme, None, layer_bits=bits, options=self.options, fold=self.state.noise.fold
        )
        return made

    def single(self, name: str, width: int) -> Plan:
        (made,) = network_plans([name], self.scheme, [width], options=self.options)
        return made

    def rate(self, bits: Mapping[str, int]) -> float:
        """Stored bits per weight."""
        return sum(self.stored[t, self.bits.index(bits[name])] for t, name in enumerate(self.names)) / self.weights

    def record(self, bits: Mapping[str, int]) -> Record:
        return predicted(self.state, self.plan(bits), self.asked)

    def uniform(self, budget: float) -> Record | None:
        """The record of the largest one width within the budget."""
        able = [width for width in self.bits if self.rate(dict.fromkeys(self.names, width)) <= budget + 1e-12]
        return self.record(dict.fromkeys(self.names, max(able))) if able else None

    def within(self, budget: float) -> Found | None:
        """The best plan of a budget; None where no plan keeps it."""
        able = [width for width in self.bits if self.rate(dict.fromkeys(self.names, width)) <= budget + 1e-12]
        if not able:
            return None
        now = dict.fromkeys(self.names, max(able))
        best, seen = Found(now, self.record(now), 0.0), [now]
        for _ in range(ROUNDS):
            now, gap = self.best_linear(self.sensitivities(now), budget)
            if now in seen:
                if now == best.bits:
                    best = best._replace(gap=gap)
                break
            seen.append(now)
            record = self.record(now)
            if record.distortion <= best.record.distortion:
                best = Found(now, record, gap)
        return best

    def losing(self, most: float) -> Found:
        """The plan of the smallest rate, over budgets halved in turn, whose predicted loss is at most that.

        Raises:
            InputError: none is.
        """
        low, high = (self.rate(dict.fromkeys(self.names, width)) for width in (self.bits[0], self.bits[-1]))
        kept = self.within(high)
        if kept is None or kept.record.distortion > most:
            loss = None if kept is None else kept.record.distortion
            raise InputError(
                f"max_loss: expected one that {self.bits[-1]} bits for all keep, which lose {loss:.3g}, got {most:g}"
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            tried = self.within(middle)
            if tried is not None and tried.record.distortion <= most:
                kept, high = tried, tried.record.rate
            else:
                low = middle
        return kept

    def sensitivities(self, bits: Mapping[str, int]) -> np.ndarray:
        """(weights,) dD/dv_t at a plan."""
        power, place = error_power(self.state.noise, self.plan(bits)), self.state.noise.tensors.indices("weight")
        found = sensitivities(self.state, power, self.state.at(power, self.asked.seed))
        return np.array([found[self.scale[name]][place[name]] for name in self.names])

    def best_linear(self, sensitivities: np.ndarray, budget: float) -> tuple[dict[str, int], float]:
        """The widths of least sum_t s_t v_t under the budget, and the gap to the bound that the solver proves."""
        T, B = self.variance.shape
        costs = (sensitivities[:, None] * self.variance).reshape(-1)
        scale = max(float(costs.max()), 1e-300)
        one_each = np.kron(np.eye(T), np.ones(B))
        limits = [
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(self.stored.reshape(1, -1) / self.weights, -np.inf, budget + 1e-12),
        ]
        solved = milp(costs / scale, constraints=limits, integrality=np.ones(T * B), bounds=Bounds(0, 1))
        if solved.x is None:
            raise InputError(f"budget: expected one that the solver can keep, got {budget:g}: {solved.message}")
        chosen = solved.x.reshape(T, B).argmax(1)
        return {name: self.bits[i] for name, i in zip(self.names, chosen, strict=True)}, float(solved.mip_gap or 0.0)
