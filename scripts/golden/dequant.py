"""Makes tests/data/golden/dequant: for each weight format the bytes of some blocks and the float32
values that the gguf package makes of them, which quire must equal bit for bit (README.md)."""

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import save_file

import blocks
import reference

PLAIN = {Type.F16: np.uint16, Type.BF16: np.uint16}


def half_bits(kind):
    """Every sign and exponent with some mantissas, both zeros, subnormals, the largest finite
    values and both infinities; no NaN."""
    mantissa_bits = 10 if kind == Type.F16 else 7
    exponents = 1 << (15 - mantissa_bits)
    top = (1 << mantissa_bits) - 1
    mantissas = [0, 1, top // 3, top // 2, top - 1, top]
    bits = [sign << 15 | exponent << mantissa_bits | mantissa
            for sign in (0, 1) for exponent in range(exponents - 1) for mantissa in mantissas]
    bits += [sign << 15 | (exponents - 1) << mantissa_bits for sign in (0, 1)]
    return np.array(bits, dtype="<u2").view(np.uint8)[None]


def block_bytes(kind):
    """64 blocks (32 of the 256-value formats): most with everyday scales; then scales of zero,
    negative, subnormal and the largest."""
    rng = reference.generator("dequant", kind.name)
    block_size = GGML_QUANT_SIZES[kind][0]
    count = 64 if block_size == 32 else 32
    data = blocks.random_blocks(rng, kind, (count, block_size), deviation=0.5)
    layout = blocks.FORMATS[kind]
    for offset in {layout["d"], layout.get("m", layout["d"])}:
        blocks.put(data[:6], offset, np.array([0.0, -0.0, -0.37, 6e-8, 6.1e-5, 65504.0]))
    if "m" in layout:
        blocks.put(data[6:8], layout["m"], np.array([0.0, -65504.0]))
    return data


def main():
    folder = reference.GOLDEN / "dequant"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in [*PLAIN, *blocks.FORMATS]:
        data = half_bits(kind) if kind in PLAIN else block_bytes(kind)
        values = dequantize(data.view(np.uint8), kind).astype(np.float32).reshape(-1)
        assert not np.isnan(values).any()
        save_file({"blocks": data.reshape(-1), "values": values},
                  folder / f"{kind.name.lower()}.safetensors")
        print(f"{kind.name:5} {data.size:6} bytes -> {values.size} values, "
              f"{np.abs(values[np.isfinite(values)]).min():.2g} .. {np.abs(values).max():.4g}")


if __name__ == "__main__":
    main()
