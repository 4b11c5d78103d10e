// The exported ops of prepare_<level>.cc, outside the anonymous namespace: QUIRE_LEVEL is its
// namespace.

namespace quire::cpu::QUIRE_LEVEL {

void quantize(const ExecContext& exec, const QuantizeArgs& args) { run_quantize(exec, args); }
void norm_quantize(const ExecContext& exec, const NormQuantizeArgs& args) {
  run_norm_quantize(exec, args);
}
void activate_quantize(const ExecContext& exec, const ActivateQuantizeArgs& args) {
  run_activate_quantize(exec, args);
}

}  // namespace quire::cpu::QUIRE_LEVEL
