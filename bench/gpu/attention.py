#!/usr/bin/env python3
"""Attention on one GPU: ours beside torch's FlashAttention-2, cuDNN and FlashAttention-3, in one process, interleaved.

usage: QUIRE_CUDA_LIBRARY=... PYTHONPATH=python bench/gpu/attention.py [--fa3 DIR] [--only GROUP,...] [--json FILE]
           [--plot FILE]            [--rounds 20] [--quick]

Each cell: every contender once per round, `rounds` rounds (at least 20), L2 flushed before every run, median of device events.
The flush leaves the L2 full of another kernel's unwritten lines, whose way to memory is part of what follows; "clean" cells
start from lines that need no writing. Decode cells have their own limit beside them: a plain read of as many bytes.
Inputs are random normal bf16. Causal FLOPs count visible pairs only (half). Limits are measured in the same run: a cuBLAS bf16
8192^3 product and a plain read of 4 GB. The SM clock is read between cells.
"""
import argparse
import json
import math
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import quire_attention as qa

DEVICE = "cuda"


class Clock:
    def __init__(self):
        self.flush = torch.zeros(256 << 18, dtype=torch.float32, device=DEVICE)
        self.total = torch.zeros((), dtype=torch.float32, device=DEVICE)
        self.dirty = True  # whether the L2 is full of unwritten lines when a measurement starts

    def once(self, function):
        self.flush.zero_()
        if not self.dirty:
            torch.sum(self.flush, 0, out=self.total)
        torch.cuda._sleep(200000)  # 0.1 ms in which the launches below are queued: host time is not measured
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        return start, end

    def interleaved(self, functions, rounds):
        """{name: median milliseconds}; functions run once each per round, in turn."""
        for function in functions.values():
            function()
            function()
        torch.cuda.synchronize()
        events = {name: [] for name in functions}
        for _ in range(rounds):
            for name, function in functions.items():
                events[name].append(self.once(function))
        torch.cuda.synchronize()
        return {name: statistics.median(s.elapsed_time(e) for s, e in pairs) for name, pairs in events.items()}


def sm_clock():
    out = subprocess.run(["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits"],
                         capture_output=True, text=True).stdout.strip()
    return out.replace(", ", " MHz ") + " W"


def normal(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device=DEVICE, dtype=torch.float32).to(dtype)


def sdpa(backend, q, k, v, causal):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))

    def run():
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])

    return run


class Bench:
    def __init__(self, options):
        self.clock, self.options, self.rows = Clock(), options, []
        self.read = None  # GB/s of a plain read, measured by limits()
        self.fa3 = None
        if options.fa3:
            sys.path.insert(0, options.fa3)
            import fa3
            self.fa3 = fa3

    def cell(self, group, label, functions, work, unit="TFLOP/s", calls=1):
        """work: FLOPs, or bytes when the unit is GB/s. calls: of the kernel in one run of the function."""
        usable = {}
        for name, function in functions.items():
            try:
                function()
                torch.cuda.synchronize()
                usable[name] = function
            except Exception as error:  # a peer that cannot do this cell is left out, and says so once
                print(f"  {name} not in {label}: {str(error).splitlines()[0][:100]}", flush=True)
        times = self.clock.interleaved(usable, self.options.rounds)
        rate = {name: work / t / (1e9 if unit == "TFLOP/s" else 1e6) for name, t in times.items()}
        peers = {name: r for name, r in rate.items() if not name.startswith(("quire", "limit"))}
        best = max(peers, key=peers.get) if peers else None
        row = dict(group=group, label=label, unit=unit, milliseconds=times, rate=rate, best_peer=best, clock=sm_clock(),
                   ratio={n: r / peers[best] for n, r in rate.items() if n.startswith("quire")} if peers else {})
        self.rows.append(row)
        text = "  ".join(f"{n} {r:.0f}" for n, r in rate.items())
        if unit == "GB/s":
            text += " | us " + " ".join(f"{t * 1e3 / calls:.1f}" for t in times.values())
            if self.read and "quire" in rate:
                text += f" | {rate['quire'] / self.read:.1%} of read"
            if "limit" in rate and "quire" in rate:
                text += f", {rate['quire'] / rate['limit']:.1%} of one of these bytes"
        if "quire_invariant" in rate:
            text += f" | invariant {rate['quire_invariant'] / rate['quire']:.2f} of fastest"
        ratios = " ".join(f"{x:.3f}" for x in row["ratio"].values())
        print(f"{group:14s} {label:26s} {text}  | ours/best {ratios}  [{row['clock']}]", flush=True)

    def limits(self):
        a, b = normal(8192, 8192), normal(8192, 8192)
        self.cell("limit", "bf16 8192^3", {"cublas": lambda: a @ b}, 2 * 8192**3)
        x = torch.empty(1 << 30, dtype=torch.float32, device=DEVICE).normal_()
        self.cell("limit", "read 4 GB", {"sum": lambda: x.sum()}, x.numel() * 4, "GB/s")
        self.read = self.rows[-1]["rate"]["sum"]
        y = torch.empty_like(x)
        self.cell("limit", "copy 4 GB", {"copy": lambda: y.copy_(x)}, x.numel() * 8, "GB/s")

    def forward(self, d, causal, lengths, total=16384, extra=()):
        for s in lengths:
            b, h = total // s, 2048 // d
            q, k, v = (normal(b, s, h, d) for _ in range(3))
            functions = {"quire": qa.Call(q, k, v, causal=causal).run}
            for name in extra:
                functions["quire_" + name] = qa.Call(q, k, v, causal=causal, kernel=name).run
            if self.fa3:
                functions["fa3"] = lambda: self.fa3.attention(q, k, v, causal=causal)
            functions["cudnn"] = sdpa(SDPBackend.CUDNN_ATTENTION, q, k, v, causal)
            functions["fa2"] = sdpa(SDPBackend.FLASH_ATTENTION, q, k, v, causal)
            flops = 4 * b * h * s * s * d / (2 if causal else 1)
            self.cell(f"fwd d{d} {'causal' if causal else 'full'}", f"S {s}", functions, flops)

    def ablation(self):
        names = [n for n in qa.kernels() if n.startswith("sm90_forward_no")]
        for causal in (False, True):
            b, s, h, d = 4, 8448, 16, 128
            q, k, v = (normal(b, s, h, d) for _ in range(3))
            functions = {"quire": qa.Call(q, k, v, causal=causal).run}
            for name in names:
                functions["quire_" + name[13:]] = qa.Call(q, k, v, causal=causal, kernel=name).run
            self.cell("ablation", f"B4 S8448 H16 {'causal' if causal else 'full'}", functions,
                      4 * b * h * s * s * d / (2 if causal else 1))

    def varlen(self, lengths=(512, 1024, 2048, 4096, 8192)):
        for s in lengths:
            b, h, kv, d = 16384 // s, 32, 8, 128
            q, k, v = normal(b * s, h, d), normal(b * s, kv, d), normal(b * s, kv, d)
            cu = torch.arange(b + 1, dtype=torch.int32, device=DEVICE) * s
            options = dict(causal=True, cu_q=cu, cu_k=cu, max_q=s, max_k=s)
            functions = {"quire": qa.Call(q, k, v, **options).run,
                         "quire_invariant": qa.Call(q, k, v, batch_invariant=True, **options).run}
            if self.fa3:
                functions["fa3"] = lambda: self.fa3.varlen(q, k, v, cu, cu, s, s)
            self.cell("gqa varlen", f"32/8 S {s}", functions, 2 * b * h * s * s * d)

    def paged_cache(self, b, s, block, kv=8, d=128):
        per = -(-s // block)
        k, v = normal(b * per, block, kv, d), normal(b * per, block, kv, d)
        table = torch.randperm(b * per, device=DEVICE, dtype=torch.int64).to(torch.int32).view(b, per)
        return k, v, table, torch.full((b,), s, dtype=torch.int32, device=DEVICE)

    def chunk(self, lengths=(512, 1024, 2048, 4096, 8192), block=16):
        for s in lengths:
            b, n, h, d = 8, 512, 32, 128
            q = normal(b * n, h, d)
            k, v, table, used = self.paged_cache(b, s, block)
            cu = torch.arange(b + 1, dtype=torch.int32, device=DEVICE) * n
            functions = {"quire": qa.Call(q, k, v, causal=True, cu_q=cu, max_q=n, max_k=s, block_table=table,
                                          seqused_k=used).run}
            functions["quire_invariant"] = qa.Call(q, k, v, causal=True, cu_q=cu, max_q=n, max_k=s, block_table=table,
                                                   seqused_k=used, batch_invariant=True).run
            if self.fa3:
                functions["fa3"] = lambda: self.fa3.paged(q.view(b, n, h, d), k, v, table, used)
            pairs = n * s - n * (n - 1) / 2
            self.cell("chunk 512", f"B8 context {s} block {block}", functions, 4 * b * h * pairs * d)

    def decode(self, cases, block=16, tokens=1, graph_calls=20):
        """One call with a cold L2 (full of unwritten lines, or clean), and calls in a CUDA graph (where those of a size that
        fits L2 find it warm). GB/s of keys and values."""
        for b, s in cases:
            h, kv, d = 32, 8, 128
            q = normal(b * tokens, h, d)
            k, v, table, used = self.paged_cache(b, s, block)
            cu = torch.arange(b + 1, dtype=torch.int32, device=DEVICE) * tokens
            options = dict(causal=True, cu_q=cu, max_q=tokens, max_k=s, block_table=table, seqused_k=used)
            functions = {"quire": qa.Call(q, k, v, **options).run}
            functions["quire_invariant"] = qa.Call(q, k, v, batch_invariant=True, **options).run
            if self.fa3:
                functions["fa3"] = lambda: self.fa3.paged(q.view(b, tokens, h, d), k, v, table, used)
            size = b * s * kv * d * 4
            x = torch.ones(size // 4, dtype=torch.float32, device=DEVICE)
            functions["limit"] = lambda: torch.sum(x, 0, out=self.clock.total)
            label = f"B{b} S{s} block {block}"
            self.cell(f"decode q{tokens}", label, functions, size, "GB/s")
            self.clock.dirty = False
            self.cell(f"decode q{tokens}", f"{label} clean", functions, size, "GB/s")
            self.clock.dirty = True
            graphs = {name: captured(function, graph_calls) for name, function in functions.items()}
            self.cell(f"decode q{tokens}", f"{label} graph", graphs, size * graph_calls, "GB/s", graph_calls)

    def sm80(self, d, causal, lengths, backward):
        for s in lengths:
            b, h = 16384 // s, 2048 // d
            q, k, v, g = (normal(b, s, h, d) for _ in range(4))
            flops = 4 * b * h * s * s * d / (2 if causal else 1)
            mode = "causal" if causal else "full"
            call = qa.Call(q, k, v, causal=causal, kernel="sm80_forward")
            self.cell(f"sm80 fwd d{d}", f"{mode} S {s}",
                      {"quire": call.run, "fa2": sdpa(SDPBackend.FLASH_ATTENTION, q, k, v, causal)}, flops)
            if not backward:
                continue
            call.run()
            qt, kt, vt = (x.detach().requires_grad_() for x in (q, k, v))
            out = sdpa(SDPBackend.FLASH_ATTENTION, qt, kt, vt, causal)()
            gt = g.transpose(1, 2)
            functions = {
                "quire": lambda: call.backward(g),
                "quire_deterministic": lambda: call.backward(g, deterministic=True),
                "fa2": lambda: torch.autograd.grad(out, (qt, kt, vt), gt, retain_graph=True),
            }
            self.cell(f"sm80 bwd d{d}", f"{mode} S {s}", functions, 2.5 * flops)

    def memory(self, lengths=(1024, 2048, 4096, 8192)):
        """Peak extra bytes of forward + backward per length, and the exponent of the length in a least-squares fit: ours
        grows linearly, standard attention quadratically."""
        peaks = {}
        for s in lengths:
            row = {}
            for name in ("quire", "standard"):
                q, k, v = (normal(1, s, 16, 64).requires_grad_() for _ in range(3))
                g = normal(1, s, 16, 64)
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                out = qa.attention(q, k, v, kernel="sm80_forward" if name == "quire" else "standard")
                out.backward(g)
                row[name] = torch.cuda.max_memory_allocated() - before
                peaks.setdefault(name, []).append(row[name])
                del out, q, k, v
            self.rows.append(dict(group="memory", label=f"S {s}", unit="bytes", bytes=row))
            print(f"memory fwd+bwd B1 H16 d64 S {s}: " + "  ".join(f"{n} {x / 2**20:.1f} MiB" for n, x in row.items()))

        for name, bytes_ in peaks.items():
            exponent = slope([math.log(s) for s in lengths], [math.log(x) for x in bytes_])
            self.rows.append(dict(group="memory fit", label=name, unit="exponent", exponent=exponent))
            print(f"memory fwd+bwd {name}: grows with S^{exponent:.2f}", flush=True)

    def traffic(self, s=8192, b=2, h=16, d=64):
        """Bytes that reach the SMs from L2 and device memory in the forward pass, from the plan: each of the N/Br query
        tiles reads Q once and all of K and V, so 2 bytes x (2 N d + 2 N d N/Br) a head, the papers' O(N^2 d^2 / M) with
        Br ~ M/d; standard attention moves Q, K, V, O and three times the N x N matrix (S out, S in, P out, P in). Time of
        each Br x Bc beside it."""
        q, k, v = (normal(b, s, h, d) for _ in range(3))
        functions, moved = {}, {}
        names = [("64x32", 64), ("64x64", 64), ("64x128", 64), ("128x32", 128), ("128x64", 128),
                 ("128x128", 128)]
        for name, rows in names:
            functions["quire_" + name] = qa.Call(q, k, v, kernel="sm80_forward_" + name).run
            moved["quire_" + name] = b * h * 2 * (2 * s * d + 2 * s * d * -(-s // rows))
        functions["standard"] = qa.Call(q, k, v, kernel="standard").run
        tiles = -(-s // 64)  # both products of the baseline work in 64 x 64 tiles
        moved["standard"] = b * h * 2 * (4 * s * s + 2 * s * d * tiles + s * d + s * s // 64 * d)
        self.cell("traffic", f"Br x Bc, B{b} S{s} H{h} d{d}", functions, 4 * b * h * s * s * d)
        self.rows[-1]["bytes"] = moved
        print("  GB moved, from the plan: " + "  ".join(f"{n} {x / 1e9:.2f}" for n, x in moved.items()), flush=True)

    def rope(self):
        """The fused norm, rotation and cache write (32/8 heads of 128) beside the same steps in torch."""
        h, kv, d, block = 32, 8, 128, 16
        for tokens in (64, 8192, 65536):
            qkv = normal(tokens, h + 2 * kv, d)
            q, k, v = qkv.split([h, kv, kv], 1)
            out = torch.empty(tokens, h, d, device=DEVICE, dtype=torch.bfloat16)
            caches = [normal(tokens // block, block, kv, d) for _ in range(2)]
            slots = torch.randperm(tokens, device=DEVICE)
            positions = torch.randint(0, 8192, (tokens,), device=DEVICE, dtype=torch.int32)
            angles = qa.rope_angles(8192, d)
            weights = [normal(d), normal(d)]

            def torch_rope(x, weight):
                x = F.rms_norm(x.float(), (d,), weight.float(), 1e-6)
                cos, sin = angles[positions.long()].view(-1, 1, 2, d // 2).unbind(2)
                a, b = x.chunk(2, -1)
                return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).bfloat16()

            def in_torch():
                torch_rope(q, weights[0])
                caches[0].view(-1, kv, d)[slots] = torch_rope(k, weights[1])
                caches[1].view(-1, kv, d)[slots] = v

            def ours():
                qa.rope_write(q, k, v, positions, angles, slots, *caches, q_out=out, q_norm=weights[0],
                              k_norm=weights[1])

            self.cell("rope write", f"{tokens} tokens", {"quire": ours, "torch": in_torch},
                      tokens * (h + 2 * kv) * d * 2 * 2, "GB/s")

    def plot(self, path):
        """All cells with peers as bars relative to the best peer."""
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        rows = [r for r in self.rows if r.get("ratio") and "quire" in r["ratio"]]
        labels = [f"{r['group']} {r['label']}" for r in rows]
        figure, axis = plt.subplots(figsize=(9, 0.22 * len(rows) + 1))
        axis.barh(range(len(rows)), [r["ratio"]["quire"] for r in rows], color="#3b6ea5")
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(rows)), labels, fontsize=6)
        axis.invert_yaxis()
        axis.set_xlabel("speed relative to the best peer in the same run")
        figure.tight_layout()
        figure.savefig(path, dpi=120)

    def training_step(self):
        """12 layers of attention, 12 heads of 64, S 1024, B 16 (GPT-2 small), forward + backward."""
        b, s, h, d, layers = 16, 1024, 12, 64, 12
        q, k, v = (normal(b, s, h, d).requires_grad_() for _ in range(3))
        g = normal(b, s, h, d)

        def step(attention):
            def run():
                for _ in range(layers):
                    torch.autograd.grad(attention(), (q, k, v), g)
            return run

        mask = torch.ones(s, s, device=DEVICE, dtype=torch.bool).tril()

        def standard():
            qh, kh, vh = (x.transpose(1, 2) for x in (q, k, v))
            scores = (qh @ kh.transpose(2, 3) / 8).masked_fill(~mask, -math.inf)
            return (torch.softmax(scores, -1) @ vh).transpose(1, 2)

        def fa2():
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                                      is_causal=True).transpose(1, 2)

        functions = {"quire_sm80": step(lambda: qa.attention(q, k, v, causal=True, kernel="sm80_forward")),
                     "quire": step(lambda: qa.attention(q, k, v, causal=True)),
                     "standard": step(standard), "fa2": step(fa2)}
        self.cell("training step", "GPT-2 small attention", functions, layers * 3.5 * 2 * b * h * s * s * d)


def captured(function, calls):
    """A replay of `calls` calls in one CUDA graph."""
    function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            function()
    return graph.replay


def slope(x, y):
    """Of the least-squares line."""
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x)**2 for a in x)


ALL = "limits,d128,d64,d256,ablation,varlen,chunk,decode,small,spec,sm80,memory,traffic,rope,training"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fa3")
    parser.add_argument("--only", default=ALL)
    parser.add_argument("--json")
    parser.add_argument("--plot", help="write bars relative to the best peer to this PNG")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three lengths instead of six")
    options = parser.parse_args()
    torch.manual_seed(1)
    bench = Bench(options)
    lengths = [1024, 4096, 16384] if options.quick else [512, 1024, 2048, 4096, 8192, 16384]
    groups = options.only.split(",")
    print(torch.cuda.get_device_name(), "torch", torch.__version__, sm_clock())
    for group in groups:
        try:
            if group == "limits":
                bench.limits()
            elif group in ("d128", "d64", "d256"):
                for causal in (False, True):
                    bench.forward(int(group[1:]), causal, lengths)
            elif group == "ablation":
                bench.ablation()
            elif group == "varlen":
                bench.varlen()
            elif group == "chunk":
                bench.chunk()
            elif group == "decode":
                bench.decode([(16, 8192), (64, 4096), (128, 2048), (256, 2048)])
            elif group == "small":
                bench.decode([(1, 2048), (1, 8192), (32, 2048)])
            elif group == "spec":
                for tokens in (4, 8, 16):
                    bench.decode([(32, 4096)], tokens=tokens)
            elif group == "sm80":
                for causal in (False, True):
                    bench.sm80(128, causal, [2048, 16384], backward=True)
                    bench.sm80(64, causal, [16384], backward=True)
            elif group == "memory":
                bench.memory()
            elif group == "traffic":
                bench.traffic()
            elif group == "rope":
                bench.rope()
            elif group == "training":
                bench.training_step()
            else:
                print(f"unknown group {group}; known: {ALL}")
        except Exception as error:
            print(f"group {group} stopped: {type(error).__name__}: {error}", flush=True)
    if options.plot:
        bench.plot(options.plot)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(dict(device=torch.cuda.get_device_name(), torch=torch.__version__, rows=bench.rows), file, indent=1)


if __name__ == "__main__":
    main()
