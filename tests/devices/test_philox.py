"""Random numbers: published test vectors, distribution, independence of chunking, equal bits on all devices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from gpu_sublinear.devices import philox


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123's kat_vectors for philox4x32-10
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_vectors(counter, key, words):
    assert tuple(int(word) for word in philox.philox4x32(counter, key)) == words


def test_quantile_agrees_with_scipy():
    rng = np.random.default_rng(0)
    u = np.concatenate([rng.random(100_000), 10.0 ** -np.arange(1, 16), 1 - 10.0 ** -np.arange(1, 15)])
    want = special.ndtri(u)
    # AS 241 promises 1e-16 in u's terms; the quantile is as ill-conditioned as 1 / |q| near its zero
    assert np.max(np.abs(philox.normal_quantile(u) - want) / np.maximum(np.abs(want), 1e-2)) < 32 * np.finfo(float).eps


def test_extreme_words_give_finite_normals():
    words = np.array([0, 0xFFFFFFFF], np.uint64)
    u = philox.uniform(words, words)
    assert u[0] > 0 and u[1] < 1
    assert np.isfinite(philox.normal_quantile(u)).all()


def test_normals_are_normal():
    sample = philox.normal_rows(11, 0, 4000, 5).ravel()
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 4 / np.sqrt(len(sample))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("paired", [False, True])
def test_every_device_draws_the_same_bits(device, reference, dtype, d, paired):
    whole = reference.normal_rows(2**63 + 5, 0, 40, d, dtype, paired)
    part = device.to_host(device.normal_rows(2**63 + 5, 7, 33, d, dtype, paired))
    assert part.dtype == dtype
    assert np.array_equal(part, whole[7:33])
    if paired:
        assert np.array_equal(whole[0::2], whole[1::2])


def test_no_rows(device):
    assert device.to_host(device.normal_rows(1, 5, 5, 3, "float32")).shape == (0, 3)


def test_rows_beyond_32_bits_differ(device):
    start = 2**32
    far, near = device.normal_rows(1, start, start + 4, 3, "float64"), device.normal_rows(1, 0, 4, 3, "float64")
    assert not np.array_equal(device.to_host(far), device.to_host(near))
    assert np.array_equal(device.to_host(far), philox.normal_rows(1, start, start + 4, 3))
