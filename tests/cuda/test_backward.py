"""Gradients on the GPU against double precision autograd of the formula.

usage: QUIRE_CUDA_LIBRARY=... PYTHONPATH=python:tests/cuda python3 -m pytest -q tests/cuda/test_backward.py

Rule: max|grad - ref| <= 2 max|plain - ref| + 2 max|rounding of ref|, plain being autograd of the formula in the input type.
"""
import pytest
import torch

import quire_attention as qa
from test_forward import Problem, formula


def reference(q, k, v, d_o, window, dtype):
    leaves = [x.to(dtype).detach().requires_grad_() for x in (q, k, v)]
    out, _ = formula(*leaves, window, 0.0, None, dtype)
    return torch.autograd.grad(out, leaves, d_o.to(dtype))


def check(problem, deterministic, forward="sm80_forward", standard=False):
    g = torch.Generator("cuda").manual_seed(7)
    d_o = torch.randn(problem.q.shape, generator=g, device="cuda").to(problem.dtype)
    call = qa.Call(problem.q, problem.k, problem.v, kernel=forward, **problem.options)
    call.run()
    grads = call.backward(d_o, deterministic, standard)
    again = call.backward(d_o, deterministic, standard)
    torch.cuda.synchronize()
    for name, first, second in zip(("dq", "dk", "dv"), grads, again):
        if deterministic or name != "dq":
            assert torch.equal(first, second), f"{name} differs between two runs"
    starts_q = [sum(problem.lens_q[:b]) for b in range(len(problem.lens_q))]
    starts_k = [sum(problem.lens_k[:b]) for b in range(len(problem.lens_k))]
    for b in range(len(problem.lens_q)):
        if problem.layout == "dense":
            mine = [x[b] for x in grads]
            d_out = d_o[b]
        else:
            rows_q = slice(starts_q[b], starts_q[b] + problem.lens_q[b])
            rows_k = slice(starts_k[b], starts_k[b] + problem.lens_k[b])
            mine = [grads[0][rows_q], grads[1][rows_k], grads[2][rows_k]]
            d_out = d_o[rows_q]
        arguments = problem.qs[b], problem.ks[b], problem.vs[b], d_out, problem.window
        exact = reference(*arguments, torch.float64)
        plain = reference(*arguments, problem.dtype)
        for name, x, e, p in zip(("dq", "dk", "dv"), mine, exact, plain):
            if x.numel() == 0:
                continue
            rounding = ((e + 0.3).to(problem.dtype).double() - 0.3 - e).abs().max().item()
            error = (x.double() - e).abs().max().item()
            # Rows that see no key make the plain formula NaN in autograd; the exact one is zero there.
            # Standard attention rounds S, P, dP and dS as the plain formula does.
            limit = (3 if standard else 2) * (p.double() - e).abs().nan_to_num(0).max().item() + 2 * rounding
            assert error <= limit, f"{name} of sequence {b}: error {error:.3g} over {limit:.3g}"


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [64, 96, 128, 256])
@pytest.mark.parametrize("causal", [False, True])
def test_dense(deterministic, dtype, d, causal):
    for i, (sq, sk) in enumerate([(64, 128), (113, 203), (256, 256), (1024, 1023), (1000, 1024), (129, 640)]):
        heads, kv_heads = [(4, 4), (4, 2), (6, 1)][i % 3]
        check(Problem([sq] * 2, [sk] * 2, heads, kv_heads, d, dtype, (-1, 0) if causal else (-1, -1)), deterministic)


@pytest.mark.parametrize("window", [(17, 0), (128, 40), (-1, 100)])
def test_windows(window):
    for deterministic in (False, True):
        check(Problem([300], [511], window=window), deterministic)


@pytest.mark.parametrize("deterministic", [False, True])
def test_varlen(deterministic):
    for causal in (False, True):
        check(Problem([1, 113, 512, 64], [1, 203, 512, 640], 4, 2, window=(-1, 0) if causal else (-1, -1),
                      layout="varlen"), deterministic)


def test_after_the_hopper_forward():
    check(Problem([500] * 2, [500] * 2, window=(-1, 0)), True, "sm90_forward")


@pytest.mark.parametrize("d", [64, 128])
def test_standard_backward(d):
    for heads, kv_heads in ((4, 4), (4, 2)):
        for window in ((-1, -1), (-1, 0), (40, 3)):
            for sq, sk in ((64, 64), (113, 203), (300, 257)):
                check(Problem([sq] * 2, [sk] * 2, heads, kv_heads, d, window=window), True, standard=True)


def test_autograd_function():
    q, k, v = (torch.randn(2, 200, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    out = qa.attention(q, k, v, causal=True)
    out.backward(torch.randn_like(out))
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in (q, k, v))
