"""What a sampler is: what it can't sample, said in words, and the records it estimates.

One sampler a file of this folder, which ends with a tuple ``SAMPLERS``; the registry (:mod:`simulate.samplers`) finds it there.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from simulate.request import Request
from theory.setting.record import Record


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """A way to sample.

    Attributes:
        name: what users call it. summary: one line for help. errors: those it samples.
        rank: its place among the samplers asked, the least first; None where it is only asked by name.
    """

    name: str
    summary: str
    errors: tuple[str, ...]
    rank: int | None = 0

    @abstractmethod
    def refuses(self, request: Request) -> str | None:
        """What it needs and has not, in words a user reads; None where it can sample."""

    @abstractmethod
    def estimate(self, request: Request) -> list[Record]:
        """A record for each layer."""
