// Codes of one group of 32, in increasing k.

void store_codes(const int32_t* q, ActivationType, unsigned char* to) {
  int16_t* out = reinterpret_cast<int16_t*>(to);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<int16_t>(q[i]);
}
