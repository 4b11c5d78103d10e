// Codes of one group of 32 in increasing k. kInt16: 32 bytes hi, 32 bytes lo; kInt8: 32 bytes.

void store_codes(const int32_t* q, ActivationType type, unsigned char* to) {
  int8_t* out = reinterpret_cast<int8_t*>(to);
  for (int i = 0; i < 32; ++i) {
    const int8_t low = static_cast<int8_t>(q[i]);
    if (type == ActivationType::kInt8) {
      out[i] = low;
    } else {
      out[i] = static_cast<int8_t>((q[i] - low) / 256);
      out[32 + i] = low;
    }
  }
}
