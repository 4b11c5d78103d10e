// The papers' baseline and the yardstick: attention as written in the formula.
#pragma once

#include "kernels/cuda/quire_attention.h"

namespace quire::cuda {

// Everything in double precision from the 16-bit inputs; the result is rounded once. Supports all
// arguments.
int run_reference(const QuireAttentionArgs& args, QuireAttentionError* error);

// S = scale Q K^T and P = softmax(S) as whole 16-bit matrices in memory, quadratic in the length
// ("standard attention" in arXiv 2205.14135, algorithm 0). Dense only.
const char* standard_unsupported(const QuireAttentionArgs& args);
int64_t standard_workspace_bytes(const QuireAttentionArgs& args);
int run_standard(const QuireAttentionArgs& args, QuireAttentionError* error);

// dP = dO V^T, dS = P * (dP - rowsum(P * dP)), then dV = P^T dO, dQ = scale dS K, dK = scale dS^T
// Q, each a product of whole matrices (algorithm 3 there, without dropout). Dense only.
int64_t standard_backward_workspace_bytes(const QuireAttentionArgs& args);
int run_standard_backward(const QuireAttentionArgs& args,
                          const QuireAttentionGrad& grad,
                          QuireAttentionError* error);

}  // namespace quire::cuda
