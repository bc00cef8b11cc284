"""Damaged and extreme files: one line that is an InputError, or finite records. A few in every run, many on demand."""

import io
import resource
import struct
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from tests.support.problems import random_problem
from theory.prediction import predict
from theory.setting import stored_layer
from theory.setting.errors import InputError
from theory.setting.files import read_either, write_statistics
from theory.setting.schemes import SCHEMES, compress

LONGEST = 900  # characters of a message
SECONDS, MEMORY = 20, 2**21  # of a case; of all cases, in KiB
OPTIONS: dict[str, dict] = {
    "integer": {"bits": 3, "activation_bits": 8},
    "prune": {"sparsity": 0.5},
    "prune-structured": {"sparsity": 0.5, "unit": "map", "map_size": 2},
    "codebook": {"bits": 2},
    "deep-compression": {"bits": 3, "sparsity": 0.4},
}


def one_line(error: InputError) -> None:
    text = " ".join(str(error).split())
    assert 0 < len(text) < LONGEST, text


def archives(tmp_path) -> list[bytes]:
    """A statistics and a features file, stored and deflated."""
    problem, rng = random_problem(3, 1), np.random.default_rng(0)
    write_statistics(tmp_path / "s.npz", problem)
    found = [(tmp_path / "s.npz").read_bytes()]
    z = rng.standard_normal((30, 3)).astype(np.float32)
    arrays = {"features": z, "labels": rng.integers(0, 2, 30), "weights": problem.weights, "bias": problem.bias}
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, provenance=np.array('{"source": "here"}'), **arrays)
        found.append(buffer.getvalue())
    return found


def damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """Bits flipped, cut, a piece moved or repeated."""
    array = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        for place in rng.integers(0, len(array), rng.integers(1, 6)):
            array[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        array = array[: rng.integers(len(array))]
    elif kind == 2:
        start, size = rng.integers(len(array)), rng.integers(1, 60)
        array[start : start + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    else:
        start, size = rng.integers(len(array)), rng.integers(1, 60)
        array[start:start] = array[start : start + size]
    return bytes(array)


def extreme(rng: np.random.Generator, data: bytes) -> bytes:
    """One array of a sound archive replaced by another: shape, type, values beyond reason, bytes that are none."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = str(rng.choice(list(arrays)))
    value, values = arrays[name], [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e49, 1e-320, 0.0, -1.0]
    kind = rng.integers(6)
    if kind == 0 and value.dtype.kind in "fi":
        value = value.astype(np.float64)
        flat = value.reshape(-1)
        flat[rng.integers(len(flat))] = rng.choice(values)
    elif kind == 1 and value.dtype.kind in "fi":
        value = np.full(value.shape, rng.choice(values))
    elif kind == 2:
        value = value.reshape(-1)[: rng.integers(value.size + 1)]
    elif kind == 3:
        value = value.astype(rng.choice(["U3", "c16", "b1", "i1", "u8", "f2"])) if value.dtype.kind != "U" else value
    elif kind == 4:
        value = np.array(rng.choice(['{"a": NaN}', "[" * 2000 + "]" * 2000, "{", '{"a": 1e999}', "9" * 5000, "\x00"]))
    else:
        value = value[None]
    arrays[name] = value
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(buffer, **arrays)
    if rng.random() < 0.1:  # a member that is no array, a header that lies
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(
                "weights.npy", rng.choice([b"", b"nonsense", b"\x93NUMPY\x01\x00\x10\x00{'descr': [[[[", b"\x93NUMPY"])
            )
    return buffer.getvalue()


def try_archives(tmp_path, seed: int, count: int) -> None:
    rng, sound, path, answered = np.random.default_rng(seed), archives(tmp_path), tmp_path / "x.npz", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(count):
        data, start = sound[i % len(sound)], time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.write_bytes(damaged(rng, data) if i % 2 else extreme(rng, data))
        try:
            subject = read_either(path)
            for scheme in ("symmetric", "codebook"):
                for record in predict(subject, scheme=scheme, bits=[3]):
                    assert abs(record.distortion) <= record.flip_rate + 1e-12
                    assert -1e-9 <= record.risk_before <= 1 + 1e-9
                    answered += 1
        except InputError as error:
            one_line(error)
        assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    assert answered > count / 20  # mutations that change nothing are among them


def lying(rng: np.random.Generator, data: bytes) -> bytes:
    """A stored layer damaged in header or parts, its check sum made right."""
    array = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.6:
            array[rng.integers(4, stored_layer.HEADER.size)] = int(rng.integers(256))
        elif len(array) > stored_layer.HEADER.size:
            array[rng.integers(stored_layer.HEADER.size, len(array))] ^= 1 << int(rng.integers(8))
    if rng.random() < 0.2:
        array = array[: rng.integers(stored_layer.HEADER.size, len(array) + 1)]
    size = stored_layer.HEADER.size
    check = zlib.crc32(bytes(array[: size - 4]) + bytes(array[size:]))
    return bytes(array[: size - 4]) + struct.pack("<I", check) + bytes(array[size:])


def try_layers(seed: int, count: int) -> None:
    rng, sound = np.random.default_rng(seed), []
    W = rng.standard_normal((3, 8))
    for name in SCHEMES:
        layer = compress(W, name, **OPTIONS.get(name, {"bits": 3, "per_channel": True}))
        sound.append(stored_layer.encode(layer, np.zeros(3), input_step=0.5 if name == "integer" else 0.0))
    sound.append(stored_layer.encode(compress(W, "affine", 3, group_size=3), np.zeros(3)))
    read, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(count):
        start = time.process_time()
        try:
            What, bias = stored_layer.decode(lying(rng, sound[i % len(sound)]))
            assert np.isfinite(What).all()
            assert np.isfinite(bias).all()
            assert What.ndim in (2, 4)
            read += 1
        except InputError as error:
            one_line(error)
        assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    assert read > 0


def test_damaged_and_extreme_archives(tmp_path, seed):
    try_archives(tmp_path, seed, 200)


def test_stored_layers_whose_header_lies(seed):
    try_layers(seed, 3000)


@pytest.mark.slow
def test_ten_thousand_archives(tmp_path, seed):
    try_archives(tmp_path, seed + 1, 10_000)


@pytest.mark.slow
def test_a_hundred_thousand_stored_layers(seed):
    try_layers(seed + 1, 100_000)
