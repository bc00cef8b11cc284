"""Strict flags for every test; the seed; the data outside the repository. Imports none of the packages under test."""

import os
from pathlib import Path

# Most of a test's time is compiling: LLVM's first level of optimization, and fewer fusions
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false")

# What one test or one run compiled, the others need not: kept beside pytest's own cache
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Tests run side by side: two threads of a library each would only wait for each other (a fifth of the time)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of every random problem and sample (default 0)")


@pytest.fixture
def seed(request) -> int:
    """Every statistical test holds for any seed at its stated rate: vary it with --seed."""
    return request.config.getoption("--seed")


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    if not Path(value).is_dir():
        pytest.fail(f"{variable} is set to {value}, which is not a folder")
    return Path(value)


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    return _folder("CIFAR10_DIR")


@pytest.fixture(scope="session")
def resnet_dir() -> Path:
    return _folder("RESNET_DIR")


@pytest.fixture(scope="session")
def imagenet_dir() -> Path:
    return _folder("IMAGENET_SAMPLE_DIR")
