// The exported loops of limits.h, outside the anonymous namespace.
namespace quire::cpu::QUIRE_LEVEL {
uint32_t limit_read(const unsigned char* data, int64_t bytes) {
  return read_at_full_speed(data, bytes);
}
int64_t limit_fma(int64_t rounds) { return fma_at_full_speed(rounds); }
int64_t limit_int8(int64_t rounds) { return int8_at_full_speed(rounds); }
int64_t limit_int16(int64_t rounds) { return int16_at_full_speed(rounds); }
}  // namespace quire::cpu::QUIRE_LEVEL
