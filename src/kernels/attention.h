// The normative order of attention: every CPU kernel, prefill or decode, computes each (token,
// query head) row with exactly these operations in this order, so that chunking, preemption, cache
// hits, block size, batch and threads cannot change a bit. (Across ISA levels the bits may differ:
// exp and FMA do.)
//
// For a row at position p with visible keys j in (p - window, p] (all of [0, p] without a window):
//   q'_d = q_d * scale                                                      (one rounding)
//   s_j  = fma chain over d = 0, 1, ..., D-1 of q'_d * k_j,d, starting at 0
// Keys are taken in tiles of kAttentionTile tokens aligned to position 0; a tile without a visible
// key is skipped; an invisible key of a visible tile has weight 0. Online softmax inside a partial
// of kAttentionPartial tokens aligned to position 0, from m = -inf, l = 0, o = 0:
//   m' = max(m, max_j s_j);  c = exp(m - m') (0 for m = -inf);  w_j = exp(s_j - m')
//   l  = l * c + sum_j w_j,  the sum taken over lanes j mod 16 in increasing j, then lanes folded
//                            8+8, 4+4, 2+2, 1+1 (lane i with lane i + half)
//   o_d = o_d * c, then o_d = fma(w_j, v_j,d, o_d) for increasing j;  m = m'
// Partials are merged in increasing order into (M, L, O) = the first partial, then
//   M' = max(M, m); a = exp(M - M'); b = exp(m - M'); L = L*a + l*b; O_d = O_d*a + o_d*b (mul, mul,
//   add)
// and the output is O_d / L.
//
// Source: online softmax, Milakov & Gimelshein, arXiv:1805.02867, alg. 3; tiles, FlashAttention,
// arXiv:2205.14135, alg. 1; partials, Flash-Decoding (split KV).
#pragma once

#include <stdint.h>

namespace quire {

inline constexpr int32_t kAttentionTile = 64;
inline constexpr int32_t kAttentionPartial = 512;

}  // namespace quire
