// The exported ops of a level, outside the anonymous namespace: QUIRE_LEVEL is its namespace.

namespace quire::cpu::QUIRE_LEVEL {

#define QUIRE_ROW_OP(op, Args, shape)                                       \
  void op(const ExecContext& exec, const Args& a) {                         \
    run_rows(exec, &a, op##_rows, (shape).rows, (shape).rows*(shape).cols); \
  }
QUIRE_ROW_OP(rms_norm, RmsNormArgs, a.x)
QUIRE_ROW_OP(head_rms_norm, HeadRmsNormArgs, a.x)
QUIRE_ROW_OP(layer_norm, LayerNormArgs, a.x)
QUIRE_ROW_OP(add, AddArgs, a.x)
QUIRE_ROW_OP(add_bias, AddBiasArgs, a.y)
QUIRE_ROW_OP(silu_and_mul, SiluAndMulArgs, a.gate_up)
QUIRE_ROW_OP(relu, ReluArgs, a.x)
QUIRE_ROW_OP(rope, RopeArgs, a.x)
QUIRE_ROW_OP(gather_rows, GatherRowsArgs, a.y)
QUIRE_ROW_OP(top_k, TopKArgs, a.x)
#undef QUIRE_ROW_OP

void kv_write(const ExecContext& exec, const KvWriteArgs& a) { kv_write_all(exec, a); }
void attention(const ExecContext& exec, const AttentionArgs& a) { attention_all(exec, a); }
void attention_scores(const ExecContext& exec, const StandardAttentionArgs& a) {
  attention_phase(exec, a, AttentionPhase::kScores);
}
void attention_softmax(const ExecContext& exec, const StandardAttentionArgs& a) {
  attention_phase(exec, a, AttentionPhase::kSoftmax);
}
void attention_values(const ExecContext& exec, const StandardAttentionArgs& a) {
  attention_phase(exec, a, AttentionPhase::kValues);
}

}  // namespace quire::cpu::QUIRE_LEVEL
