// One-tile products for layout_test.cc; all pointers are device memory. `grouped`: the layout of
// the tile of keys or values (TileLayout). 0 or a cudaError_t; -1: shape not compiled.
#pragma once

namespace quire::cuda {

int run_qk(int n, int d, bool grouped, const void* q, const void* k, float* out);
int run_pv(int n, int d, bool grouped, const void* p, const void* v, float* out);

}  // namespace quire::cuda
