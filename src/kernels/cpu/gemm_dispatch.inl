// Chooses the kernel of a vector level by weight and activation type. Included inside an anonymous
// namespace after the level's integer_rows<R> and integer_small_rows<R>.

constexpr int kSmallRows = 4;

void accumulate_rows(DType type,
                     const unsigned char* panel,
                     const Rows& rows,
                     int64_t row0,
                     int64_t m,
                     unsigned char* scratch,
                     float* acc) {
  if (rows.type == ActivationType::kF32) {
    float_rows(type, panel, rows, row0, m, scratch, acc);
    return;
  }
#define QUIRE_INTEGER_ROWS(R) integer_rows<R>(panel, rows, row0, m, scratch, acc)
  QUIRE_FOR_RECORD(type, QUIRE_INTEGER_ROWS)
#undef QUIRE_INTEGER_ROWS
}

void accumulate_small(
    DType type, const unsigned char* panel, const Rows& rows, unsigned char* scratch, float* acc) {
  if (rows.type == ActivationType::kF32) {
    if (is_float(type)) {
      float_small_rows(type, panel, rows, acc);
    } else {
      float_rows(type, panel, rows, 0, rows.count, scratch, acc);
    }
    return;
  }
#define QUIRE_INTEGER_SMALL(R) integer_small_rows<R>(panel, rows, acc)
  QUIRE_FOR_RECORD(type, QUIRE_INTEGER_SMALL)
#undef QUIRE_INTEGER_SMALL
}
