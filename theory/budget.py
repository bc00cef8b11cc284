"""How much work a prediction may cost, and with which error it is content. Tests ask for a small one."""

from dataclasses import dataclass

from theory.setting.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of the methods that integrate numerically. Work counts elementary operations, whatever the machine.

    Attributes:
        orthant_work: factors Phi spent on the orthants of one known layer.
        orthant_precision: error of a distortion over itself, or over a tenth of the flips where it nearly cancels, with which
            orthants stop. orthant_accuracy: error of a distortion that is not enough anyway.
        line_work: crossings spent on known layers along lines, those of one event of every line.
        mixture_work: crossings of the lines of each class that is a mixture, all layers together.
        random_line_work: operations a round spent on random layers along lines. random_line_rounds: rounds at most.
        flips_precision: error of the flips of random layers over these with which they stop. flips_alone_precision: likewise
            where lines give the flips alone, orthants the distortion.
        pair_work: multiplications a scrambling spent on pairs of random layers by orthants.
        average_precision: error of the average of random layers over that average with which it stops.
        spread_precision: likewise, over the deviation of single networks, where orthants do not serve.
        boundary_work: operations spent on points near the decision boundary.
        spread_lines: lines of each of two sets on which single networks are seen there.
        networks: single networks of two classes behind an interval, a power of two of at least 64.
        sobol_work: multiplications spent on e' Sigma e by the average over Sobol points of two classes, at least 2^7 points.
        largest_excess: |excess kurtosis| of the four linear combinations of the errors of two classes above which single
            networks are drawn themselves, not by their reduced law.
        dense_work: multiplications spent on the covariances of a dense network of several layers. dense_inputs: inputs at most.
        drawn_points: features drawn from a law where only an average over them is known.
    """

    orthant_work: float = 2e8
    orthant_precision: float = 2e-3
    orthant_accuracy: float = 5e-5
    line_work: float = 4e7
    mixture_work: float = 2e7
    random_line_work: float = 1e8
    random_line_rounds: int = 16
    flips_precision: float = 4e-3
    flips_alone_precision: float = 8e-3
    pair_work: float = 5e7
    average_precision: float = 2e-3
    spread_precision: float = 0.03
    boundary_work: float = 4e10
    spread_lines: int = 2**12
    networks: int = 2**14
    sobol_work: float = 2e10
    largest_excess: float = 0.02
    dense_work: float = 4e12
    dense_inputs: int = 2**13
    drawn_points: int = 2**16

    def __post_init__(self):
        if self.networks < 64 or self.networks & (self.networks - 1):
            raise InputError(f"networks: expected a power of two of at least 64, got {self.networks}")


DEFAULT = Budget()
