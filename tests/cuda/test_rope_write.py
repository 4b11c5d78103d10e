"""The fused norm, rotation and cache write on the GPU against double precision.

usage: QUIRE_CUDA_LIBRARY=... PYTHONPATH=python python3 -m pytest -q tests/cuda/test_rope_write.py

Values pass through f32 and are rounded once, so results agree with double to one rounding of the type; V is copied bit by
bit. Unused parts of the cache keep what they held.
"""
import math

import pytest
import torch

import quire_attention as qa


def rotate(x, angles, interleaved):
    """x [T,H,D] double, angles [T,rotary] double."""
    half = angles.shape[1] // 2
    cos, sin = angles[:, None, :half], angles[:, None, half:]
    out = x.clone()
    if interleaved:
        a, b = x[..., 0:2 * half:2], x[..., 1:2 * half:2]
        out[..., 0:2 * half:2], out[..., 1:2 * half:2] = a * cos - b * sin, b * cos + a * sin
    else:
        a, b = x[..., :half], x[..., half:2 * half]
        out[..., :half], out[..., half:2 * half] = a * cos - b * sin, b * cos + a * sin
    return out


def norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight.double()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d,rotary", [(64, 64), (64, 32), (96, 96), (128, 128), (128, 64), (128, 0), (256, 256), (80, 80)])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("with_norm", [False, True])
def test_against_double(dtype, d, rotary, interleaved, with_norm):
    g = torch.Generator("cuda").manual_seed(1)
    for tokens, heads, kv_heads, block in [(1, 8, 2, 16), (77, 6, 1, 32), (130, 5, 5, 64)]:
        qkv = torch.randn(tokens, heads + 2 * kv_heads, d, generator=g, device="cuda").to(dtype)
        q, k, v = qkv.split([heads, kv_heads, kv_heads], 1)  # strided views of one projection
        blocks = tokens // block + 3
        slots = torch.randperm(blocks * block, generator=g, device="cuda")[:tokens]
        slots[::5] = -1
        positions = torch.randint(0, 5000, (tokens,), generator=g, device="cuda", dtype=torch.int32)
        angles = qa.rope_angles(5000, rotary)
        caches = [torch.full((blocks, block, kv_heads, d), math.nan, dtype=dtype, device="cuda") for _ in range(2)]
        weights = [torch.randn(d, generator=g, device="cuda").to(dtype) for _ in range(2)] if with_norm else [None, None]
        out = qa.rope_write(q, k, v, positions, angles, slots, *caches, interleaved=interleaved, q_norm=weights[0],
                            k_norm=weights[1], eps=1e-5)
        expected = []
        for x, weight in zip((q, k), weights):
            x = x.double()
            if with_norm:
                x = norm(x, weight, 1e-5)
            expected.append(rotate(x, angles[positions.long()].double(), interleaved))
        eps = torch.finfo(dtype).eps
        written = slots >= 0
        k_out, v_out = (c.view(-1, kv_heads, d)[slots[written]] for c in caches)
        for mine, exact in ((out, expected[0]), (k_out, expected[1][written])):
            if mine.numel() == 0:
                continue
            error = (mine.double() - exact).abs()
            assert (error <= 0.51 * eps * exact.abs() + 2e-6 * exact.abs().max() + 1e-7).all(), error.max()
        assert torch.equal(v_out, v[written])
        for cache in caches:
            rest = torch.ones(blocks * block, dtype=torch.bool, device="cuda")
            rest[slots[written]] = False
            assert cache.view(-1, kv_heads, d)[rest].isnan().all(), "wrote to a slot that is not in the list"


def test_queries_may_be_rotated_in_place():
    q = torch.randn(9, 4, 64, device="cuda").bfloat16()
    k, v = (torch.randn(9, 2, 64, device="cuda").bfloat16() for _ in range(2))
    cache = [torch.zeros(1, 16, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    positions, slots = torch.arange(9, device="cuda", dtype=torch.int32), torch.arange(9, device="cuda")
    angles = qa.rope_angles(16, 64)
    expected = qa.rope_write(q, k, v, positions, angles, slots, *cache)
    qa.rope_write(q, k, v, positions, angles, slots, *cache, q_out=q)
    assert torch.equal(q, expected)


def test_refusals_name_the_limit():
    x = torch.zeros(1, 1, 128, device="cuda", dtype=torch.bfloat16)
    cache = torch.zeros(1, 16, 1, 128, device="cuda", dtype=torch.bfloat16)
    zero = torch.zeros(1, device="cuda", dtype=torch.int32)
    with pytest.raises(qa.Unsupported, match="multiple of 16 up to head_dim 128, got 24"):
        qa.rope_write(x, x, x, zero, torch.zeros(1, 24, device="cuda"), zero.long(), cache, cache)
    with pytest.raises(qa.AttentionError, match="given together"):
        qa.rope_write(x, x, x, zero, torch.zeros(1, 128, device="cuda"), zero.long(), cache, cache, q_norm=x[0, 0])
