"""Forward attention on the GPU against double precision, over every listed kernel.

usage: QUIRE_CUDA_LIBRARY=... PYTHONPATH=python python3 -m pytest -q tests/cuda/test_forward.py

Rule: max|out - ref| <= 2 max|plain - ref| + 2 max|rounding of ref|, where ref is the formula in double and plain the same
formula in the input type with the scale applied to K (3 instead of 2 with a soft cap). Unused memory holds NaN.
"""
import math
import os

import pytest
import torch

import quire_attention as qa

SEED = int(os.environ.get("QUIRE_TEST_SEED", "1"))
FORWARD = ["sm90_forward", "sm90_split", "sm90_merged", "sm80_forward", "standard", "reference"]
exercised = set()


def mask_of(len_q, len_k, window, device):
    """[len_q, len_k] bool, True where visible; aligned to the bottom right."""
    position = torch.arange(len_q, device=device)[:, None] + len_k - len_q
    key = torch.arange(len_k, device=device)[None, :]
    left, right = window
    visible = torch.ones(len_q, len_k, dtype=torch.bool, device=device)
    if left >= 0:
        visible &= key >= position - left
    if right >= 0:
        visible &= key <= position + right
    return visible


def formula(q, k, v, window, softcap, sinks, dtype):
    """One sequence: q [Sq,H,D], k and v [Sk,K,D] -> out [Sq,H,D], lse [H,Sq], in dtype arithmetic."""
    scale = q.shape[-1] ** -0.5
    group = q.shape[1] // k.shape[1]
    q, k, v = (x.to(dtype).transpose(0, 1) for x in (q, k, v))
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    s = q @ (k * scale).transpose(1, 2)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    s = s.masked_fill(~mask_of(q.shape[1], k.shape[1], window, q.device), -math.inf).to(
        torch.float64 if dtype == torch.float64 else torch.float32)
    if sinks is not None:
        s = torch.cat([s, sinks.to(s.dtype)[:, None, None].expand(-1, s.shape[1], 1)], 2)
    lse = torch.logsumexp(s, 2) if s.shape[2] else torch.full(s.shape[:2], -math.inf, device=s.device)
    p = torch.exp(s - lse[..., None]).nan_to_num(0.0) if s.shape[2] else s
    p = p[..., :k.shape[1]].to(dtype)
    return (p @ v).transpose(0, 1), lse


class Problem:
    """Random inputs of one case; sequences kept apart for the reference."""

    def __init__(self, lens_q, lens_k, heads=4, kv_heads=2, d=128, dtype=torch.bfloat16, window=(-1, -1), softcap=0.0,
                 sinks=False, layout="dense", block=16, amplitude=1.0, seed=SEED):
        g = torch.Generator("cuda").manual_seed(seed)

        def normal(*shape):
            return (torch.randn(*shape, generator=g, device="cuda") * amplitude).to(dtype)

        self.window, self.softcap, self.dtype = window, softcap, dtype
        self.lens_q, self.lens_k = lens_q, lens_k
        self.sinks = torch.randn(heads, generator=g, device="cuda") if sinks else None
        self.qs = [normal(n, heads, d) for n in lens_q]
        self.ks = [normal(n, kv_heads, d) for n in lens_k]
        self.vs = [normal(n, kv_heads, d) for n in lens_k]
        self.options = dict(window=window, softcap=softcap, sinks=self.sinks)
        self.layout = layout
        if layout == "dense":
            self.q = torch.stack(self.qs)
            if len(set(lens_k)) == 1:
                self.k, self.v = torch.stack(self.ks), torch.stack(self.vs)
            else:  # seqused_k: what is not used is NaN
                shape = (len(lens_k), max(lens_k), kv_heads, d)
                self.k, self.v = (torch.full(shape, math.nan, dtype=dtype, device="cuda") for _ in range(2))
                for b, n in enumerate(lens_k):
                    self.k[b, :n], self.v[b, :n] = self.ks[b], self.vs[b]
                self.options["seqused_k"] = torch.tensor(lens_k, dtype=torch.int32, device="cuda")
        else:
            self.q = torch.cat(self.qs)
            self.options["cu_q"] = self.cumulative(lens_q)
            self.options["max_q"] = max(lens_q)
            self.options["max_k"] = max(lens_k)
            if layout == "varlen":
                self.k, self.v = torch.cat(self.ks), torch.cat(self.vs)
                self.options["cu_k"] = self.cumulative(lens_k)
            else:
                self.page(block, kv_heads, d, g)

    @staticmethod
    def cumulative(lens):
        return torch.tensor([0] + lens, dtype=torch.int32, device="cuda").cumsum(0, dtype=torch.int32)

    def page(self, block, kv_heads, d, g):
        counts = [-(-n // block) for n in self.lens_k]
        blocks = 3 * sum(counts) + 1
        self.k, self.v = (torch.full((blocks, block, kv_heads, d), math.nan, dtype=self.dtype, device="cuda")
                          for _ in range(2))
        order = torch.randperm(blocks, generator=g, device="cuda").tolist()
        # Entries past the end of a sequence are garbage.
        table = torch.full((len(counts), max(counts + [1])), 2**31 - 1, dtype=torch.int32, device="cuda")
        for b, count in enumerate(counts):
            for i in range(count):
                index = order.pop()
                rows = slice(i * block, min((i + 1) * block, self.lens_k[b]))
                self.k[index, :rows.stop - rows.start] = self.ks[b][rows]
                self.v[index, :rows.stop - rows.start] = self.vs[b][rows]
                table[b, i] = index
        self.options["block_table"] = table
        self.options["seqused_k"] = torch.tensor(self.lens_k, dtype=torch.int32, device="cuda")

    def run(self, kernel):
        fence = torch.full((self.q.numel() + 2 * 4096,), 7.0, dtype=self.dtype, device="cuda")
        out = fence[4096:-4096].view(self.q.shape)
        out.fill_(math.nan)
        call = qa.Call(self.q, self.k, self.v, out=out, kernel=kernel, **self.options)
        call.lse.fill_(math.nan)
        call.run()
        torch.cuda.synchronize()
        assert (fence[:4096] == 7).all() and (fence[-4096:] == 7).all(), "wrote outside of the output"
        return out, call.lse

    def split(self, out, lse):
        for b in range(len(self.lens_q)):
            if self.layout == "dense":
                yield b, out[b], lse[b]
            else:
                start = sum(self.lens_q[:b])
                rows = slice(start, start + self.lens_q[b])
                yield b, out[rows], lse[:, rows]

    def check(self, kernel):
        exercised.add(kernel)
        out, lse = self.run(kernel)
        factor = 3 if self.softcap else 2
        for b, o, l in self.split(out, lse):
            if o.numel() == 0:
                continue
            arguments = self.qs[b], self.ks[b], self.vs[b], self.window, self.softcap, self.sinks
            ref, ref_lse = formula(*arguments, torch.float64)
            plain, _ = formula(*arguments, self.dtype)
            rounding = ((ref + 0.3).to(self.dtype).double() - 0.3 - ref).abs().max().item()
            error = (o.double() - ref).abs().max().item()
            limit = factor * (plain.double() - ref).abs().max().item() + 2 * rounding
            assert error <= limit, f"{kernel} sequence {b}: error {error:.3g} over {limit:.3g}"
            finite = torch.isfinite(ref_lse)
            assert torch.equal(torch.isfinite(l), finite), f"{kernel}: log-sum-exp finite elsewhere"
            l_error = (l.double() - ref_lse)[finite].abs().max().item() if finite.any() else 0
            l_limit = 4 * torch.finfo(self.dtype).eps if kernel == "standard" else 1e-4 if not self.softcap else 2e-2
            assert l_error <= l_limit * max(1, ref_lse[finite].abs().max().item() / 8 if finite.any() else 1), l_error


def check_all(problem, kernels=FORWARD):
    ran = 0
    for kernel in kernels:
        try:
            problem.check(kernel)
            ran += 1
        except qa.Unsupported:
            pass
    assert ran >= 1


LENGTHS = [(1, 1), (64, 128), (128, 192), (256, 256), (239, 1), (799, 3), (113, 203), (113, 128), (128, 217), (113, 211),
           (108, 256), (256, 512), (384, 256), (640, 128), (512, 256), (1024, 1024), (1023, 1024), (1024, 1023),
           (2048, 2048)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [64, 96, 128, 192, 256])
@pytest.mark.parametrize("causal", [False, True])
def test_dense_lengths(dtype, d, causal):
    for i, (sq, sk) in enumerate(LENGTHS):
        heads, kv_heads = [(6, 6), (6, 2), (6, 1), (8, 1)][i % 4]
        check_all(Problem([sq] * 2, [sk] * 2, heads, kv_heads, d, dtype, (-1, 0) if causal else (-1, -1)))


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("window", [(0, 0), (17, 0), (128, 40), (511, 0), (-1, 100), (200, -1)])
def test_windows(d, window):
    for sq, sk in [(113, 203), (512, 1024), (1023, 1024), (300, 77)]:
        check_all(Problem([sq], [sk], d=d, window=window))


@pytest.mark.parametrize("d", [64, 128, 256])
def test_softcap_and_sinks(d):
    for softcap, sinks in [(15.0, False), (0.0, True), (15.0, True)]:
        for window in [(-1, -1), (-1, 0), (63, 0)]:
            check_all(Problem([257], [300], d=d, window=window, softcap=softcap, sinks=sinks, amplitude=2.0))
            check_all(Problem([300], [257], d=d, window=window, softcap=softcap, sinks=sinks))


@pytest.mark.parametrize("heads,kv_heads", [(1, 1), (2, 1), (5, 1), (7, 1), (8, 8), (12, 1), (16, 2), (32, 1), (64, 1), (128, 1)])
def test_head_groups(heads, kv_heads):
    for causal in (False, True):
        check_all(Problem([131] * 2, [259] * 2, heads, kv_heads, window=(-1, 0) if causal else (-1, -1)))


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads,kv_heads", [(4, 4), (8, 2)])
def test_varlen(d, causal, heads, kv_heads):
    window = (-1, 0) if causal else (-1, -1)
    cases = [([1, 113, 0, 512, 64], [1, 203, 5, 512, 0]), ([511, 3, 307], [1, 513, 256]),
             ([128] * 40, [97 + 3 * i for i in range(40)]), ([2048, 1, 1023], [2048, 700, 1024])]
    for lens_q, lens_k in cases:
        check_all(Problem(lens_q, lens_k, heads, kv_heads, d, window=window, layout="varlen"))


def test_used_keys():
    for window in [(-1, -1), (-1, 0)]:
        check_all(Problem([200] * 4, [256, 1, 131, 300], window=window))


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("d", [64, 128, 256])
def test_paged(block, d):
    lens_k = [block - 1, block, block + 1, 1, 700, 0, 1021]
    for lens_q in ([1] * 7, [1, 4, 16, 1, 512, 3, 100]):
        for window in [(-1, 0), (-1, -1), (200, 0)]:
            check_all(Problem(lens_q, lens_k, 8, 2, d, window=window, layout="paged", block=block))


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 16, 17])
def test_decode(d, tokens):
    g = torch.Generator().manual_seed(SEED)
    for group in (1, 2, 5, 7, 8, 12, 16, 32):
        lens_k = [max(tokens, int(10 ** (1 + 3 * x))) for x in torch.rand(9, generator=g).tolist()] + [0]
        problem = Problem([tokens] * 10, lens_k, 2 * group, 2, d, window=(-1, 0), layout="paged", sinks=group == 8)
        problem.check("sm90_split")
        problem.options["batch_invariant"] = True
        problem.check("sm90_split")


def test_results_do_not_depend_on_the_batch():
    lens_k = [700, 5000, 64, 131, 2049, 1024]
    problem = Problem([1] * 6, lens_k, 32, 8, window=(-1, 0), layout="paged")
    problem.options["batch_invariant"] = True
    together, _ = problem.run("sm90_split")
    for b in range(6):
        alone = Problem([1] * 6, lens_k, 32, 8, window=(-1, 0), layout="paged")
        options = dict(alone.options, batch_invariant=True, seqused_k=alone.options["seqused_k"][b:b + 1],
                       block_table=alone.options["block_table"][b:b + 1],
                       cu_q=torch.tensor([0, 1], dtype=torch.int32, device="cuda"))
        out, _ = qa.forward(alone.q[b:b + 1], alone.k, alone.v, kernel="sm90_split", **options)
        assert torch.equal(out[0], together[b]), b


@pytest.mark.parametrize("d,options", [(128, {}), (64, {}), (256, {}), (128, dict(sinks=True)), (64, dict(sinks=True)),
                                       (128, dict(window=(700, 0))), (128, dict(softcap=15.0))])
def test_invariant_prefill_and_decode_agree_in_every_bit(d, options):
    lens_q, lens_k = [300, 1, 65, 1, 1100, 40], [1400, 3000, 65, 513, 1100, 4000]
    problem = Problem(lens_q, lens_k, 32, 8, d, **{"window": (-1, 0), **options}, layout="paged")
    together = qa.Call(problem.q, problem.k, problem.v, batch_invariant=True, **problem.options)
    assert together.name == ("sm90_split" if d == 256 or "softcap" in options else "sm90_merged")
    together.run()
    problem.options["batch_invariant"] = True
    problem.check("sm90_split")
    one = torch.tensor([0, 1], dtype=torch.int32, device="cuda")
    rows = [(0, 0), (0, 17), (0, 200), (0, 299), (1, 0), (2, 0), (2, 63), (3, 0), (4, 0), (4, 100), (4, 511), (4, 512),
            (4, 640), (4, 1099), (5, 0), (5, 39)]
    for b, i in rows:
        row = sum(lens_q[:b]) + i
        options = dict(problem.options, max_q=1, cu_q=one, block_table=problem.options["block_table"][b:b + 1],
                       seqused_k=torch.tensor([lens_k[b] - lens_q[b] + i + 1], dtype=torch.int32, device="cuda"))
        call = qa.Call(problem.q[row:row + 1], problem.k, problem.v, **options)
        assert call.name == "sm90_split"
        out, _ = call.run()
        assert torch.equal(out[0], together.out[row]), (b, i)


def test_graph_replays_with_other_lengths():
    longest = 4096
    problem = Problem([1] * 4, [longest] * 4, 32, 8, window=(-1, 0), layout="paged")
    call = qa.Call(problem.q, problem.k, problem.v, **problem.options)
    assert call.name == "sm90_split"
    call.run()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        call.run()
    for lens in ([1, 17, 640, 4096], [4096, 3, 2000, 100], [1, 1, 1, 1]):
        problem.options["seqused_k"].copy_(torch.tensor(lens, dtype=torch.int32))
        graph.replay()
        torch.cuda.synchronize()
        expected, _ = qa.forward(problem.q, problem.k, problem.v, kernel="reference", **problem.options)
        assert (call.out.double() - expected.double()).abs().max() < 2e-2
        direct, _ = qa.forward(problem.q, problem.k, problem.v, kernel="sm90_split", **problem.options)
        assert torch.equal(call.out, direct)


def test_two_streams_at_once():
    problems = [Problem([700] * 2, [900] * 2, 8, 2, window=(-1, 0), seed=i) for i in range(2)]
    problems += [Problem([1] * 9, [3000] * 9, 8, 2, window=(-1, 0), layout="paged", seed=i) for i in range(2)]
    calls = [qa.Call(p.q, p.k, p.v, **p.options) for p in problems]
    expected = [c.run()[0].clone() for c in calls]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in calls]
    for _ in range(50):
        for call, stream in zip(calls, streams):
            with torch.cuda.stream(stream):
                call.run()
    torch.cuda.synchronize()
    for call, out in zip(calls, expected):
        assert torch.equal(call.out, out)


def test_large_logits_do_not_overflow():
    check_all(Problem([256], [512], amplitude=10.0), ["sm90_forward", "sm80_forward", "reference"])


def test_other_rows_do_not_see_a_nan_row():
    problem = Problem([256], [256], heads=2, kv_heads=2)
    for kernel in ("sm90_forward", "sm80_forward"):
        clean, _ = problem.run(kernel)
        clean = clean.clone()
        problem.q[0, 77] = math.nan
        dirty, _ = problem.run(kernel)
        problem.q[0, 77] = 0
        keep = torch.arange(256, device="cuda") != 77
        assert torch.equal(clean[0, keep], dirty[0, keep]) and dirty[0, 77].isnan().all()


@pytest.mark.parametrize("d", [64, 128, 256])
def test_thousand_runs_are_bitwise_equal(d):
    problem = Problem([777] * 4, [777] * 4, 8, 2, d, window=(-1, 0))
    for kernel in ("sm90_forward", "sm80_forward"):
        call = qa.Call(problem.q, problem.k, problem.v, kernel=kernel, **problem.options)
        first, first_lse = (x.clone() for x in call.run())
        different = torch.zeros((), dtype=torch.int64, device="cuda")
        for _ in range(1000):
            out, lse = call.run()
            different += (out != first).sum() + (lse != first_lse).sum()
        assert different.item() == 0, kernel
    decode = Problem([1] * 60, [777 + 13 * i for i in range(60)], 8, 2, d, window=(-1, 0), layout="paged")
    call = qa.Call(decode.q, decode.k, decode.v, kernel="sm90_split", **decode.options)
    first = call.run()[0].clone()
    different = sum((call.run()[0] != first).sum() for _ in range(1000))
    assert different.item() == 0


def test_ablations_match():
    for name in qa.kernels():
        if name.startswith("sm90_forward_no"):
            for window in [(-1, -1), (-1, 0)]:
                Problem([1000] * 2, [1100] * 2, window=window).check(name)
        if name.startswith("sm80_forward_"):
            for window in [(-1, -1), (-1, 0)]:
                Problem([300] * 2, [411] * 2, d=64, window=window).check(name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (5000, 0)])
def test_long_sequences_at_d64(dtype, window):  # they have tiles of their own
    check_all(Problem([1300], [8300], 4, 2, 64, dtype, window), ["sm90_forward", "sm80_forward"])


def test_long_context():
    check_all(Problem([64], [131072], 4, 1, window=(-1, 0)), ["sm90_forward", "sm80_forward"])


def test_every_kernel_was_exercised():
    assert exercised == set(qa.kernels()), set(qa.kernels()) - exercised
