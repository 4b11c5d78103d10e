"""quire's GPU attention kernels on torch tensors, through the C interface of libquire_cuda.so (quire_attention.h).

    import quire_attention as qa
    qa.load("build/src/kernels/cuda/libquire_cuda.so")
    out, lse = qa.forward(q, k, v, causal=True)          # q [B,Sq,H,D], k and v [B,Sk,K,D]
    out = qa.attention(q, k, v, causal=True)             # differentiable
"""
import ctypes
import functools
import os

import torch


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("message", ctypes.c_char * 252)]


_P, _I32, _I64, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class Args(ctypes.Structure):
    """QuireAttentionArgs, field by field."""
    _fields_ = [
        ("struct_size", ctypes.c_uint32), ("dtype", _I32), ("arch", _I32), ("num_sms", _I32),
        ("batch", _I32), ("num_heads", _I32), ("num_kv_heads", _I32), ("head_dim", _I32),
        ("max_seqlen_q", _I32), ("max_seqlen_k", _I32), ("total_q", _I64), ("total_k", _I64),
        ("q", _P), ("k", _P), ("v", _P), ("o", _P), ("lse", _P),
        ("q_stride_batch", _I64), ("q_stride_token", _I64), ("q_stride_head", _I64),
        ("k_stride_batch", _I64), ("k_stride_token", _I64), ("k_stride_head", _I64),
        ("v_stride_batch", _I64), ("v_stride_token", _I64), ("v_stride_head", _I64),
        ("o_stride_batch", _I64), ("o_stride_token", _I64), ("o_stride_head", _I64),
        ("cu_seqlens_q", _P), ("cu_seqlens_k", _P), ("seqused_k", _P), ("block_table", _P),
        ("block_table_stride", _I64), ("block_size", _I32),
        ("window_left", _I32), ("window_right", _I32), ("scale", _F), ("softcap", _F), ("sinks", _P),
        ("batch_invariant", _I32),
        ("workspace", _P), ("workspace_bytes", _I64), ("stream", _P),
    ]


class Grad(ctypes.Structure):
    _fields_ = [("d_o", _P), ("dq", _P), ("dk", _P), ("dv", _P), ("deterministic", _I32)]


_ARGS, _ERROR = ctypes.POINTER(Args), ctypes.POINTER(Error)


class Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("paper", ctypes.c_char_p),
        ("supports", ctypes.CFUNCTYPE(ctypes.c_int, _ARGS, ctypes.POINTER(ctypes.c_char_p))),
        ("cost", ctypes.CFUNCTYPE(ctypes.c_double, _ARGS)),
        ("workspace_bytes", ctypes.CFUNCTYPE(_I64, _ARGS)),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int, _ARGS, _ERROR)),
    ]


@functools.lru_cache(maxsize=None)
def load(path=None):
    """The library; path defaults to $QUIRE_CUDA_LIBRARY. Called implicitly by everything below."""
    lib = ctypes.CDLL(path or os.environ["QUIRE_CUDA_LIBRARY"])
    lib.quire_attention_kernel.restype = ctypes.POINTER(Kernel)
    lib.quire_attention_select.restype = ctypes.POINTER(Kernel)
    lib.quire_attention_backward_workspace_bytes.restype = _I64
    lib.quire_attention_standard_backward_workspace_bytes.restype = _I64
    if lib.quire_attention_version() != 1:
        raise ImportError(f"library has interface version {lib.quire_attention_version()}, this module 1")
    return lib


def kernels():
    """{name: Kernel} of all forward kernels, in the library's order."""
    lib = load()
    all_kernels = [lib.quire_attention_kernel(i).contents for i in range(lib.quire_attention_num_kernels())]
    return {k.name.decode(): k for k in all_kernels}


class AttentionError(RuntimeError):
    pass


class Unsupported(AttentionError):
    pass


def _strides(args, name, tensor, packed):
    strides = tensor.stride()
    if strides[-1] != 1:
        raise ValueError(f"{name}: the last dimension must be contiguous, strides are {strides}")
    setattr(args, f"{name}_stride_batch", 0 if packed else strides[0])
    setattr(args, f"{name}_stride_token", strides[-3])
    setattr(args, f"{name}_stride_head", strides[-2])


def _pointer(tensor):
    return None if tensor is None else tensor.data_ptr()


@functools.lru_cache(maxsize=None)
def _device(index):
    p = torch.cuda.get_device_properties(index)
    return p.major * 10 + p.minor, p.multi_processor_count


class Call:
    """Arguments of one attention problem, reusable; keeps the tensors alive."""

    def __init__(self, q, k, v, *, causal=False, scale=None, window=(-1, -1), softcap=0.0, sinks=None, cu_q=None,
                 cu_k=None, max_q=None, max_k=None, seqused_k=None, block_table=None, out=None, need_lse=True,
                 kernel=None, batch_invariant=False):
        packed = cu_q is not None
        paged = block_table is not None
        a = self.args = Args(struct_size=ctypes.sizeof(Args))
        a.dtype = {torch.float16: 0, torch.bfloat16: 1}[q.dtype]
        a.arch, a.num_sms = _device(q.device.index or 0)
        a.batch = cu_q.numel() - 1 if packed else q.shape[0]
        a.num_heads, a.head_dim, a.num_kv_heads = q.shape[-2], q.shape[-1], k.shape[-2]
        a.max_seqlen_q = max_q if packed else q.shape[1]
        if paged:
            a.block_size, a.total_k = k.shape[1], k.shape[0]
            a.max_seqlen_k = block_table.shape[1] * a.block_size if max_k is None else max_k
            a.block_table_stride = block_table.stride(0)
        elif cu_k is not None:
            a.max_seqlen_k, a.total_k = max_k, k.shape[0]
        else:
            a.max_seqlen_k = k.shape[1]
        a.total_q = q.shape[0] if packed else 0
        self.out = torch.empty_like(q) if out is None else out
        lse_shape = (a.num_heads, a.total_q) if packed else (a.batch, a.num_heads, a.max_seqlen_q)
        self.lse = torch.empty(lse_shape, dtype=torch.float32, device=q.device) if need_lse else None
        for name, tensor, flat in (("q", q, packed), ("k", k, cu_k is not None), ("v", v, cu_k is not None),
                                   ("o", self.out, packed)):
            _strides(a, name, tensor, flat)
            setattr(a, name, tensor.data_ptr())
        a.lse = _pointer(self.lse)
        a.cu_seqlens_q, a.cu_seqlens_k, a.seqused_k = _pointer(cu_q), _pointer(cu_k), _pointer(seqused_k)
        a.block_table, a.sinks = _pointer(block_table), _pointer(sinks)
        a.window_left, a.window_right = window
        if causal:
            a.window_right = 0
        a.scale = q.shape[-1] ** -0.5 if scale is None else scale
        a.softcap = softcap
        a.batch_invariant = int(batch_invariant)
        self._keep = [q, k, v, cu_q, cu_k, seqused_k, block_table, sinks]
        self._error = Error()
        if kernel is None:
            found = load().quire_attention_select(ctypes.byref(a), ctypes.byref(self._error))
            if not found:
                self._raise(self._error.code)
            self.kernel = found.contents
        else:
            self.kernel = kernels()[kernel]
            reason = ctypes.c_char_p()
            if not self.kernel.supports(ctypes.byref(a), ctypes.byref(reason)):
                raise Unsupported(f"{kernel}: {reason.value.decode()}")
        self.name = self.kernel.name.decode()
        size = self.kernel.workspace_bytes(ctypes.byref(a))
        self.workspace = torch.zeros(size, dtype=torch.uint8, device=q.device) if size else None
        a.workspace, a.workspace_bytes = _pointer(self.workspace), size

    def _raise(self, code):
        message = self._error.message.decode()
        raise (Unsupported if code == 1 else AttentionError)(message)

    def run(self):
        self.args.stream = torch.cuda.current_stream().cuda_stream
        code = self.kernel.run(ctypes.byref(self.args), ctypes.byref(self._error))
        if code:
            self._raise(code)
        return self.out, self.lse

    def backward(self, d_out, deterministic=False, standard=False):
        """Gradients after run(); d_out has the layout of the output. standard: by the papers' baseline."""
        q, k, v = self._keep[:3]
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        if d_out.stride() != self.out.stride():
            d_out = torch.empty_like(self.out).copy_(d_out)
        grad = Grad(d_out.data_ptr(), dq.data_ptr(), dk.data_ptr(), dv.data_ptr(), int(deterministic))
        a = self.args
        if standard:
            size = load().quire_attention_standard_backward_workspace_bytes(ctypes.byref(a))
        else:
            size = load().quire_attention_backward_workspace_bytes(ctypes.byref(a), ctypes.byref(grad))
        workspace = torch.empty(size, dtype=torch.uint8, device=q.device)
        a.workspace, a.workspace_bytes = workspace.data_ptr(), size
        a.stream = torch.cuda.current_stream().cuda_stream
        backward = load().quire_attention_standard_backward if standard else load().quire_attention_backward
        code = backward(ctypes.byref(a), ctypes.byref(grad), ctypes.byref(self._error))
        if code:
            self._raise(code)
        return dq, dk, dv


def forward(q, k, v, **options):
    """(out, logsumexp). See Call for the options; kernel=NAME forces one kernel of kernels()."""
    return Call(q, k, v, **options).run()


class _Attention(torch.autograd.Function):

    @staticmethod
    def forward(ctx, q, k, v, deterministic, options):
        ctx.call, ctx.deterministic = Call(q, k, v, **options), deterministic
        return ctx.call.run()[0]

    @staticmethod
    def backward(ctx, d_out):
        standard = ctx.call.name == "standard"
        return *ctx.call.backward(d_out, ctx.deterministic, standard), None, None


def attention(q, k, v, deterministic=False, **options):
    """Differentiable attention: dense or varlen, causal or windowed, GQA. kernel="standard" takes the papers' baseline
    both ways."""
    return _Attention.apply(q, k, v, deterministic, options)


class RopeWriteArgs(ctypes.Structure):
    """QuireRopeWriteArgs, field by field."""
    _fields_ = [
        ("struct_size", ctypes.c_uint32), ("dtype", _I32),
        ("num_tokens", _I32), ("num_heads", _I32), ("num_kv_heads", _I32), ("head_dim", _I32),
        ("rotary_dim", _I32), ("interleaved", _I32),
        ("q", _P), ("k", _P), ("v", _P), ("q_out", _P),
        ("q_stride_token", _I64), ("q_stride_head", _I64), ("k_stride_token", _I64), ("k_stride_head", _I64),
        ("v_stride_token", _I64), ("v_stride_head", _I64),
        ("q_out_stride_token", _I64), ("q_out_stride_head", _I64),
        ("positions", _P), ("angles", _P), ("q_norm", _P), ("k_norm", _P), ("eps", _F), ("block_size", _I32),
        ("slots", _P), ("k_cache", _P), ("v_cache", _P),
        ("cache_stride_block", _I64), ("cache_stride_token", _I64), ("cache_stride_head", _I64), ("stream", _P),
    ]


def rope_angles(positions, rotary_dim, base=10000.0, device="cuda"):
    """[positions, rotary_dim] float32: cosines of all pairs, then sines."""
    frequency = base ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1).float().to(device)


def rope_write(q, k, v, positions, angles, slots, k_cache, v_cache, *, q_out=None, interleaved=False, q_norm=None,
               k_norm=None, eps=1e-6):
    """Norm (optional), rotation, and K and V into the paged cache [blocks, block_size, kv heads, head_dim]. q, k, v:
    [tokens, heads, head_dim]; positions int32, slots int64 (negative: not written). Returns the rotated q."""
    q_out = torch.empty_like(q) if q_out is None else q_out
    a = RopeWriteArgs(struct_size=ctypes.sizeof(RopeWriteArgs))
    a.dtype = {torch.float16: 0, torch.bfloat16: 1}[q.dtype]
    a.num_tokens, a.num_heads, a.head_dim = q.shape
    a.num_kv_heads, a.rotary_dim, a.interleaved = k.shape[1], angles.shape[1], int(interleaved)
    for name, tensor in (("q", q), ("k", k), ("v", v), ("q_out", q_out)):
        setattr(a, name, tensor.data_ptr())
        setattr(a, f"{name}_stride_token", tensor.stride(0))
        setattr(a, f"{name}_stride_head", tensor.stride(1))
    if k_cache.stride() != v_cache.stride():
        raise ValueError(f"k_cache and v_cache have strides {k_cache.stride()} and {v_cache.stride()}")
    a.positions, a.angles, a.slots = positions.data_ptr(), angles.data_ptr(), slots.data_ptr()
    a.q_norm, a.k_norm, a.eps = _pointer(q_norm), _pointer(k_norm), eps
    a.block_size = k_cache.shape[1]
    a.k_cache, a.v_cache = k_cache.data_ptr(), v_cache.data_ptr()
    a.cache_stride_block, a.cache_stride_token, a.cache_stride_head = k_cache.stride()[:3]
    a.stream = torch.cuda.current_stream().cuda_stream
    error = Error()
    code = load().quire_rope_write(ctypes.byref(a), ctypes.byref(error))
    if code:
        raise (Unsupported if code == 1 else AttentionError)(error.message.decode())
    return q_out
