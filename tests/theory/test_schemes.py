"""What, its bits and its bytes, against references of other houses: torch, torchao, SciPy, constriction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support.matrices import adversarial
from theory.setting import stored_layer
from theory.setting.errors import InputError
from theory.setting.schemes import BREAKDOWN, UNIFORM, codebook, compress, deep_compression, huffman
from theory.setting.schemes.bit_stream import BitReader

torch = pytest.importorskip("torch")


def _matrices(seed, count):
    rng = np.random.default_rng(seed)
    for i in range(count):
        W = rng.standard_normal((rng.integers(1, 6), rng.integers(1, 40))) * 10.0 ** rng.uniform(-3, 3)
        if i % 5 == 1:
            W[rng.integers(len(W))] = 0
        if i % 5 == 2:
            W = np.abs(W)
        if i % 5 == 3:
            W[0, 0] *= 1000
        if i % 5 == 4:
            W = np.round(W / W.max() * 8) / 8
        yield W


def _torch(W, layer, scheme, bits, per_channel):
    """fake_quantize in float64 with our stored step: the rounding, clipping and zero point are torch's."""
    steps = layer.steps[:, 0] if per_channel else layer.steps[:1, 0]
    if scheme == "symmetric":
        low, high = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
        zero = np.zeros(len(steps))
    else:
        low, high = 0, 2**bits - 1
        floor = np.minimum(W.min(1), 0) if per_channel else np.minimum(W.min(), 0)[None]
        zero = np.rint(-floor / steps)
    x = torch.from_numpy(W)
    if per_channel:
        return torch.fake_quantize_per_channel_affine(
            x, torch.from_numpy(steps.astype(np.float32)), torch.from_numpy(zero.astype(np.int32)), 0, low, high
        ).numpy()
    return torch.fake_quantize_per_tensor_affine(x, float(steps[0]), int(zero[0]), low, high).numpy()


@pytest.mark.parametrize("matrices", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_same_weights_as_torch(scheme, per_channel, matrices, seed):
    compared = 0
    for W in _matrices(seed, matrices):
        for bits in (2, 3, 4, 8):
            layer = compress(W, scheme, bits, per_channel=per_channel)
            if not (layer.steps > 0).all():
                continue
            want = _torch(W, layer, scheme, bits, per_channel)
            # torch multiplies by a float32 inverse of the step: leave out what is within 1e-6 2^B of a tie
            ratio = W / layer.steps
            tie = np.abs(np.abs(ratio - np.floor(ratio)) - 0.5) < 1e-6 * 2**bits
            np.testing.assert_allclose(layer.weights[~tie], want[~tie], rtol=1e-6, atol=1e-6 * layer.steps.max())
            compared += np.sum(~tie)
    assert compared > 50 * matrices


def test_a_step_half_as_large_is_seen(seed):
    """The comparison with torch has power: a step that forgets the sign bit differs."""
    W = np.random.default_rng(seed).standard_normal((3, 30))
    layer = compress(W, "symmetric", 4)
    wrong = np.abs(W).max() / (2**4 - 1)
    assert not np.allclose(layer.weights, wrong * np.rint(W / wrong), rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(
        np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, allow_subnormal=True)
    ),
    st.sampled_from(UNIFORM),
    st.integers(2, 16),
)
def test_errors_are_within_half_a_step(W, scheme, bits):
    for per_channel in (False, True):
        layer = compress(W, scheme, bits, per_channel=per_channel)
        assert np.isfinite(layer.weights).all()
        # the affine range may be cut by the rounding of the zero point, every end by that of the stored step
        slack = 1.0 if scheme == "affine" else 0.5
        allowed = (slack + 2.0**-22 * 2**bits) * layer.steps + 1e-40
        assert (np.abs(layer.weights - W) <= allowed + (layer.steps == 0) * np.abs(W)).all()
        assert len(np.unique(layer.weights[0])) <= 2**bits


def test_zero_rows_and_zero_ranges():
    W = np.array([[0.0, 0.0], [0.8, -0.2]])
    for scheme in UNIFORM:
        layer = compress(W, scheme, 4, per_channel=True)
        np.testing.assert_array_equal(layer.weights[0], 0)
        assert layer.steps[0] == 0
        assert layer.rate_breakdown["steps"] == 64
        np.testing.assert_array_equal(compress(0 * W, scheme, 4).weights, 0)


def test_steps_are_as_stored_and_ties_go_to_even():
    layer = compress(np.array([[0.1, 0.7]]), "symmetric", 2)
    assert layer.steps[0] == float(np.float32(0.7))
    np.testing.assert_array_equal(compress(np.array([[4.0, 2.0, -2.0]]), "symmetric", 2).weights, [[4, 0, 0]])
    np.testing.assert_array_equal(compress(np.array([[3.0, 1.5, -1.5, 0.5]]), "symmetric", 3).weights, [[3, 2, -2, 0]])


def test_midrise_has_no_zero_and_one_bit_keeps_the_sign():
    layer = compress(np.array([[1.0, -0.2, 0.1]]), "midrise", 1)
    np.testing.assert_array_equal(layer.weights, [[0.5, -0.5, 0.5]])


def test_rates_count_every_stored_bit():
    W = np.ones((10, 64)) * np.linspace(-1, 1, 64)
    assert compress(W, "symmetric", 4).rate == pytest.approx(4 + 32 / 640)
    assert compress(W, "symmetric", 4, per_channel=True).rate == pytest.approx(4 + 320 / 640)
    assert compress(W, "affine", 3, per_channel=True).rate == pytest.approx(3 + 10 * 35 / 640)
    layer = compress(W, "affine", 3)
    assert sum(layer.rate_breakdown.values()) == pytest.approx(layer.rate * W.size)


@pytest.mark.parametrize(("scheme", "bits"), [("symmetric", 1), ("symmetric", 17), ("affine", 0), ("midrise", 17), ("none", 4)])
def test_widths_out_of_range_are_refused(scheme, bits):
    with pytest.raises(InputError, match=r"bits|scheme"):
        compress(np.ones((1, 2)), scheme, bits)


def test_a_range_beyond_float32_is_refused():
    with pytest.raises(InputError, match="float32"):
        compress(np.array([[1e300, 1.0]]), "symmetric", 4)


@pytest.mark.parametrize("matrices", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_affine_is_torchaos(matrices, seed, monkeypatch):
    """Range, step, zero point and codes, a step a layer and a row."""
    primitives = _torchao()
    compared = 0
    for i, W in enumerate(adversarial(seed, matrices)):
        bits, channel = (2, 3, 4, 8)[i % 4], i // 4 % 2 == 1
        layer = compress(W, "affine", bits, per_channel=channel)
        if not (layer.steps > 1e-30).all():
            continue
        x = torch.from_numpy(W)
        block = (1, W.shape[1]) if channel else tuple(W.shape)
        scale, zero = primitives.choose_qparams_affine(
            x, primitives.MappingType.ASYMMETRIC, block, torch.int32, 0, 2**bits - 1, eps=0.0, scale_dtype=torch.float64
        )
        np.testing.assert_allclose(layer.parts["steps"].reshape(-1), scale.numpy().reshape(-1), rtol=1e-6)
        exact = layer.parts["steps"].reshape(scale.shape).astype(float)
        offset = -np.minimum(W.min(1) if channel else W.min(), 0).reshape(scale.shape) / exact
        clear = np.abs(offset % 1 - 0.5) > 1e-6 * 2**bits
        np.testing.assert_array_equal(layer.parts["zero_points"].reshape(scale.shape)[clear], zero.numpy()[clear])
        own = torch.from_numpy(layer.parts["zero_points"].reshape(scale.shape).astype(np.int32))
        step = torch.from_numpy(exact.astype(np.float32))
        codes = primitives.quantize_affine(x.float(), block, step, own, torch.int32, 0, 2**bits - 1)
        ratio = W / layer.steps
        tie = np.abs(ratio % 1 - 0.5) < 1e-6 * 2**bits
        ours = layer.parts["codes"] + layer.parts["zero_points"]
        np.testing.assert_array_equal(ours[~tie], codes.numpy()[~tie])
        compared += int(np.sum(~tie))
    assert compared > 20 * matrices


def _torchao():
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip("torchao.quantization.quant_primitives")
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("matrices", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_pruning_is_torchs(matrices, seed):
    """Unstructured by |w|, structured by the norm of columns; equal sizes apart, which torch gives up in another order."""
    from torch.nn.utils import prune

    rng, compared = np.random.default_rng(seed), 0
    for W in adversarial(seed, matrices):
        W = W.astype(np.float32).astype(np.float64)
        s = float(rng.choice([0.0, 0.25, 0.5, 0.9, 1.0]))
        if s > 0 and round(s * W.size) == 0:
            continue
        layer = compress(W, "prune", sparsity=s)
        sizes = np.sort(np.abs(W).reshape(-1))
        removed = round(s * W.size)
        assert np.sum(~layer.parts["positions"]) == removed
        if 0 < removed < W.size and sizes[removed - 1] == sizes[removed]:
            gone = np.abs(W)[~layer.parts["positions"]]  # the threshold is shared: what stays of it comes last
            assert gone.max() == sizes[removed - 1]
            at = np.flatnonzero(np.abs(W).reshape(-1) == sizes[removed])
            kept = layer.parts["positions"].reshape(-1)[at]
            assert (np.diff(kept.astype(int)) >= 0).all()
            continue
        linear = torch.nn.Linear(W.shape[1], W.shape[0])
        linear.weight.data = torch.from_numpy(W)
        prune.l1_unstructured(linear, "weight", amount=removed)
        np.testing.assert_array_equal(layer.weights, linear.weight.detach().numpy())
        if 0 < round(s * W.shape[1]) < W.shape[1]:
            norms = np.sort(np.sum(W**2, 0))
            if norms[round(s * W.shape[1]) - 1] < norms[round(s * W.shape[1])]:
                linear = torch.nn.Linear(W.shape[1], W.shape[0])
                linear.weight.data = torch.from_numpy(W)
                prune.ln_structured(linear, "weight", amount=round(s * W.shape[1]), n=2, dim=1)
                columns = compress(W, "prune-structured", sparsity=s, unit="feature")
                np.testing.assert_array_equal(columns.weights, linear.weight.detach().numpy())
        compared += 1
    assert compared > 0.4 * matrices


def test_units_of_convolutions(seed):
    """An output map, a kernel, a position of the kernels of one input map; and maps of a dense layer."""
    rng = np.random.default_rng(seed)
    W = rng.uniform(0.5, 1, (6, 4, 3, 3))
    W[2] *= 0.01
    W[4, 1] *= 1e-3
    W[:, 3, 0, 2] *= 1e-4
    gone = {unit: compress(W, "prune-structured", sparsity=s, unit=unit).weights == 0 for unit, s in
            (("map", 1 / 6), ("kernel", 1 / 24), ("strided", 1 / 36))}  # fmt: skip
    want = {unit: np.zeros(W.shape, bool) for unit in gone}
    want["map"][2], want["kernel"][4, 1], want["strided"][:, 3, 0, 2] = True, True, True
    for unit, zeros in gone.items():
        np.testing.assert_array_equal(zeros, want[unit])
    dense = np.ones((2, 6))
    dense[:, 2:4] = 0.1
    layer = compress(dense, "prune-structured", sparsity=1 / 3, unit="map", map_size=2)
    np.testing.assert_array_equal(layer.weights == 0, dense < 1)
    assert layer.rate_breakdown["positions"] == 3
    assert layer.rate_breakdown["codes"] == 32 * 8
    rest = compress(np.array([[3.0, 3.0, 0.1, 1.5, 2.0]]), "prune-structured", sparsity=1 / 3, unit="map", map_size=2)
    np.testing.assert_array_equal(rest.weights, [[3, 3, 0, 0, 2]])


@pytest.mark.parametrize("matrices", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_codebooks_are_scipys(matrices, seed):
    """K-means from the same start, to its fixed point; more centroids than values, one value, ties."""
    from scipy.cluster.vq import kmeans2

    compared = 0
    for i, W in enumerate(adversarial(seed, matrices)):
        bits, x = (1, 2, 3, 6)[i % 4], W.reshape(-1, 1)
        codes, centroids = codebook.clustered(W.reshape(-1), bits)
        start = np.linspace(x.min(), x.max(), 2**bits)[:, None]
        middles = (centroids[:-1] + centroids[1:]) / 2
        np.testing.assert_array_equal(codes, np.sum(x > middles, 1))  # midway goes to the lower one
        counts = np.bincount(codes, minlength=2**bits)
        sums = np.bincount(codes, x[:, 0], 2**bits)
        np.testing.assert_allclose(centroids[counts > 0], (sums / np.maximum(counts, 1))[counts > 0], rtol=1e-9, atol=1e-300)
        if np.abs(x).max() < 1e-30 or np.ptp(x) == 0:
            continue
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # empty clusters stay where they are, here too
            other, label = kmeans2(x, start, iter=300, minit="matrix", missing="warn")
        tied = np.abs(x - middles).min() < 1e-9 * np.ptp(x) or not np.isfinite(other).all()
        if tied:
            continue
        near = np.abs(other[label, 0] - centroids[codes])
        if near.max() <= 1e-9 * np.abs(x).max():
            compared += 1
        else:  # a tie on the way, given to the other side: another fixed point, no worse is asked of neither
            assert _tied_on_the_way(W.reshape(-1), bits), W
    assert compared > 0.5 * matrices


def _tied_on_the_way(values, bits):
    """Whether a value came within rounding of a middle while Lloyd's iteration went on."""
    centroids = np.linspace(values.min(), values.max(), 2**bits)
    for _ in range(300):
        middles = (centroids[:-1] + centroids[1:]) / 2
        if np.abs(values[:, None] - middles).min() < 1e-9 * np.ptp(values):
            return True
        codes = np.sum(values[:, None] > middles, 1)
        counts = np.bincount(codes, minlength=2**bits)
        new = np.where(counts > 0, np.bincount(codes, values, 2**bits) / np.maximum(counts, 1), centroids)
        if np.array_equal(new, centroids):
            return False
        centroids = new
    return False


def test_huffman_codes_are_as_short_as_constrictions(seed):
    """Total bits of 1,000 alphabets, with equal counts, absent symbols, one symbol; what is coded comes back."""
    constriction = pytest.importorskip("constriction")
    rng = np.random.default_rng(seed)
    for i in range(1000):
        counts = rng.integers(0, 2 + int(10 ** rng.uniform(0, 4)), rng.integers(1, 64))
        if i % 5 == 0:
            counts[:] = counts[0]
        if i % 7 == 0:
            counts[1:] = 0
        if i % 11 == 0:
            counts = (1.6 ** np.arange(len(counts) % 24)).astype(int)
        lengths = huffman.code_lengths(counts)
        used = np.flatnonzero(counts)
        symbols = rng.permutation(np.repeat(np.arange(len(counts)), np.minimum(counts, 50)))
        bits = huffman.encode(symbols, lengths)
        stream = BitReader(np.concatenate([bits, rng.integers(0, 2, 20).astype(np.uint8)]))
        np.testing.assert_array_equal(huffman.decode(stream, lengths, len(symbols)), symbols)
        assert stream.position == len(bits)
        if len(used) < 2:
            assert len(bits) == 0
            continue
        assert np.sum(0.5 ** lengths[used]) == 1
        tree = constriction.symbol.huffman.EncoderHuffmanTree(counts[used].astype(float))
        theirs = 0
        for j, count in enumerate(counts[used]):
            one = constriction.symbol.QueueEncoder()
            one.encode_symbol(j, tree)
            theirs += int(count) * one.get_compressed_and_bitrate()[1]
        assert int(counts @ lengths) == theirs


def test_runs_of_zeros_are_hans(seed):
    """0 to 30 zeros and a weight, 31 zeros an escape; nothing after the last weight."""
    stay = np.zeros(200, bool)
    stay[[0, 1, 32, 64, 150]] = True
    np.testing.assert_array_equal(deep_compression.runs(stay), [0, 0, 30, 31, 0, 31, 31, 23])
    rng = np.random.default_rng(seed)
    for share in (0.0, 0.002, 0.02, 0.3, 1.0):
        stay = rng.random(3000) < share
        symbols = deep_compression.runs(stay)
        np.testing.assert_array_equal(deep_compression.positions_of(symbols, 3000), stay)


OPTIONS = [
    *({"scheme": s, "bits": b, "per_channel": c} for s in (*UNIFORM, "optimal") for b in (2, 5, 16) for c in (False, True)),
    *({"scheme": "integer", "bits": b, "per_channel": c, "activation_bits": 8} for b in (2, 8) for c in (False, True)),
    *({"scheme": s, "bits": b, "group_size": g} for s in (*UNIFORM, "optimal") for b in (2, 5) for g in (1, 3, 64)),
    *({"scheme": "prune", "sparsity": s} for s in (0.0, 0.5, 1.0)),
    *({"scheme": "prune-structured", "unit": "feature", "sparsity": s} for s in (0.0, 0.5, 1.0)),
    *({"scheme": "codebook", "bits": b} for b in (1, 4, 8)),
    *({"scheme": "deep-compression", "bits": b, "sparsity": s} for b in (1, 4, 8) for s in (0.0, 0.6, 1.0)),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(x) for x in o.values()))
def test_bytes_give_back_the_layer_and_are_as_many_as_said(options, seed):
    for W in adversarial(seed, 40):
        layer = compress(W, **options)
        bias = np.random.default_rng(seed).standard_normal(len(W)).astype(np.float32).astype(np.float64)
        step = 0.25 if options["scheme"] == "integer" else 0.0  # of the inputs: the bias counts its products with the steps
        bias = np.rint(100 * bias) if step else bias
        data = stored_layer.encode(layer, bias, input_step=step)
        What, read = stored_layer.decode(data)
        np.testing.assert_array_equal(What, layer.weights)
        np.testing.assert_array_equal(read, bias * stored_layer.products(layer.steps[:, 0], step) if step else bias)
        said = sum(layer.rate_breakdown.values())
        assert len(data) == -(-said // 8) + 4 * len(W) + stored_layer.HEADER.size
        assert said == pytest.approx(layer.rate * W.size)
    assert stored_layer.HEADER.size <= 64


def test_bytes_of_a_convolution(seed):
    W = np.random.default_rng(seed).standard_normal((4, 3, 3, 3))
    for unit in ("kernel", "strided", "map"):
        layer = compress(W, "prune-structured", sparsity=0.5, unit=unit)
        np.testing.assert_array_equal(stored_layer.decode(stored_layer.encode(layer, np.zeros(4)))[0], layer.weights)


def test_damaged_bytes_are_refused(seed):
    layer = compress(np.random.default_rng(seed).standard_normal((2, 5)), "affine", 3)
    data = stored_layer.encode(layer, np.zeros(2))
    for bad in (b"", data[:20], data[:-1], data[:60] + bytes([data[60] ^ 1]) + data[61:], b"PK" + data[2:], data + b"x"):
        with pytest.raises(InputError, match="expected"):
            stored_layer.decode(bad)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scheme": "prune"}, "sparsity"),
        ({"scheme": "prune", "sparsity": 1.5}, "sparsity"),
        ({"scheme": "prune", "sparsity": 0.01}, "rounds to none"),
        ({"scheme": "prune", "sparsity": 0.5, "bits": 4}, "bits"),
        ({"scheme": "symmetric", "bits": 4, "sparsity": 0.5}, "sparsity"),
        ({"scheme": "symmetric"}, "bits"),
        ({"scheme": "codebook", "bits": 13}, "bits"),
        ({"scheme": "codebook", "bits": 3, "per_channel": True}, "per_channel"),
        ({"scheme": "prune-structured", "sparsity": 0.5}, "unit"),
        ({"scheme": "prune-structured", "sparsity": 0.5, "unit": "kernel"}, "unit"),
        ({"scheme": "prune-structured", "sparsity": 0.5, "unit": "map"}, "map_size"),
        ({"scheme": "prune-structured", "sparsity": 0.5, "unit": "feature", "map_size": 2}, "map_size"),
        ({"scheme": "symmetric", "bits": 3, "step": 7}, "step: "),
        ({"scheme": "optimal", "bits": 3, "step": 257}, "step: "),
        ({"scheme": "symmetric", "bits": 3, "k": 7}, "k: "),
        ({"scheme": "symmetric", "bits": 3, "group_size": 0}, "group_size"),
        ({"scheme": "symmetric", "bits": 3, "group_size": 2, "per_channel": True}, "group_size"),
        ({"scheme": "codebook", "bits": 3, "group_size": 2}, "group_size"),
        ({"scheme": "integer", "bits": 3, "activation_bits": 8, "group_size": 2}, "group_size"),
        ({"scheme": "prune-structured", "sparsity": 0.5, "unit": "map", "map_size": 5}, "map_size"),
    ],
)
def test_options_of_another_scheme_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        compress(np.ones((2, 4)), **options)


def test_a_finer_grid_clips():
    """k/256 of the step: the largest weight is cut to k/256 of itself, the rest is rounded finer."""
    W = np.array([[1.0, 0.26, -0.3]])
    layer = compress(W, "optimal", 3, step=128)
    np.testing.assert_allclose(layer.weights, [[0.5, 1 / 3, -1 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(compress(W, "optimal", 3).weights, compress(W, "symmetric", 3).weights)


def test_bits_by_hand():
    """Sixteen weights: codes, centroids, tables and the bits of runs counted on paper."""
    W = np.array([[1.0, 0, 0, 0, 2.0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 3.0]])
    assert compress(W, "codebook", 2).rate_breakdown == dict.fromkeys(BREAKDOWN, 0) | {"codes": 32, "codebook": 4 * 32}
    pruned = compress(W, "deep-compression", 2, sparsity=13 / 16).rate_breakdown
    # runs of 0, 3 and 10 zeros: three symbols once each cost 1 + 2 + 2 bits, and so do the three centroids used
    assert pruned == dict.fromkeys(BREAKDOWN, 0) | {"codes": 5, "positions": 5, "codebook": 128, "tables": 8 * (4 + 32)}
    none = compress(W, "deep-compression", 2, sparsity=1.0).rate_breakdown
    assert none == dict.fromkeys(BREAKDOWN, 0) | {"codebook": 128, "tables": 8 * 36}


def test_steps_of_schemes_without_one_have_the_variance_of_their_errors():
    W = np.random.default_rng(0).standard_normal((3, 20))
    layer = compress(W, "prune", sparsity=0.5)
    np.testing.assert_allclose(layer.steps**2 / 12, np.mean((layer.weights - W) ** 2))


def test_symbols_without_a_huffman_word_are_refused():
    with pytest.raises(InputError, match="with a code word, got 2"):
        huffman.encode(np.array([0, 2, 1]), np.array([1, 1, 0]))
    with pytest.raises(InputError, match="lengths of a Huffman code"):
        huffman.encode(np.array([0, 1]), np.array([1, 2]))


def test_huffman_words_are_canonical():
    """Lengths 2, 1, 3, 3: the words 10, 0, 110, 111."""
    assert huffman.encode(np.array([0, 1, 2, 3]), np.array([2, 1, 3, 3])).tolist() == [1, 0, 0, 1, 1, 0, 1, 1, 1]
