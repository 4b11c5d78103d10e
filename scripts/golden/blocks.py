"""Random but valid blocks of every weight format, made from bytes: scales are small finite numbers,
everything else is any bits. gguf's Python package can write K-quants in no other way."""

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

# What stands where in a block: offsets of its f16 scale (d) and of its f16 minimum (m or dmin),
# the mean of the quants that d multiplies, and how large d * quant gets on average per unit of d.
# K-quants hold two levels of scales, so d is smaller and the minimum must cancel the product of
# the means.
FORMATS = {
    Type.Q4_0: {"d": 0, "spread": 4.6},
    Type.Q4_1: {"d": 0, "m": 2, "minimum": -7.5, "spread": 4.6},
    Type.Q5_0: {"d": 0, "spread": 9.2},
    Type.Q5_1: {"d": 0, "m": 2, "minimum": -15.5, "spread": 9.2},
    Type.Q8_0: {"d": 0, "spread": 74.0},
    Type.Q4_K: {"d": 0, "m": 2, "minimum": 7.5, "spread": 230.0},
    Type.Q5_K: {"d": 0, "m": 2, "minimum": 15.5, "spread": 460.0},
    Type.Q6_K: {"d": 208, "spread": 1360.0},
}


def random_blocks(rng, kind, shape, deviation):
    """Bytes [.., row bytes] of a tensor of that shape whose values have about that standard
    deviation and a mean near zero."""
    block_size, type_size = GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // block_size
    assert shape[-1] % block_size == 0
    layout = FORMATS[kind]
    blocks = rng.integers(0, 256, size=(count, type_size), dtype=np.uint8)
    scale = deviation / layout["spread"] * rng.uniform(0.7, 1.3, size=count)
    put(blocks, layout["d"], scale)
    if "m" in layout:
        put(blocks, layout["m"], scale * layout["minimum"] * rng.uniform(0.9, 1.1, size=count))
    return blocks.reshape(*shape[:-1], shape[-1] // block_size * type_size)


def put(blocks, offset, values):
    blocks[:, offset:offset + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)
