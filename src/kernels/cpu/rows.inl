// A view of prepared activation rows (gemm_common.h). Included inside an anonymous namespace.

struct Rows {
  unsigned char* data;
  ActivationType type;
  int64_t count, cols;
  RowLayout layout;

  unsigned char* codes(int64_t r) const { return data + r * layout.stride; }
  float* floats(int64_t r) const { return reinterpret_cast<float*>(codes(r)); }
  float* scale(int64_t r) const { return reinterpret_cast<float*>(codes(r) + layout.scale); }
  float* fsum(int64_t r) const { return reinterpret_cast<float*>(codes(r) + layout.fsum); }
  int32_t* sum(int64_t r) const { return reinterpret_cast<int32_t*>(codes(r) + layout.sum); }
  int32_t* half_sum(int64_t r) const {
    return reinterpret_cast<int32_t*>(codes(r) + layout.half_sum);
  }
};

Rows make_rows(const Activations& x) {
  return {x.data, x.type, x.rows, x.cols, row_layout(x.type, x.cols)};
}
