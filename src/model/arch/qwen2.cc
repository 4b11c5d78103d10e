// Qwen2 and Qwen2.5: Llama with biases on q, k and v, and optionally a sliding window in the upper
// layers. Source: Yang et al., arXiv:2407.10671, section 2.2.1.
#include "model/arch/qwen.h"
#include "model/architecture.h"
#include "model/decoder.h"
#include "model/weights.h"

namespace quire {
namespace {

struct Layer {
  Norm attn_norm;
  Linear qkv;  // [(H + 2K) D, E], with bias
  Linear out;  // [E, H D]
  Norm mlp_norm;
  Linear gate_up;  // [2I, E]
  Linear down;     // [E, I]
};

class Qwen2 final : public DecoderModel {
 public:
  Qwen2(const ModelConfig& c, WeightLoader& w)
      : DecoderModel(c),
        embedding_(w.table("embedding", c.vocab_size, c.hidden_size)),
        final_norm_(w.rms_norm(0, "final_norm", c.hidden_size, c.norm_eps)),
        lm_head_(w.lm_head(c.vocab_size, c.hidden_size, embedding_, c.tie_embeddings)) {
    const int64_t e = c.hidden_size, i = c.intermediate_size;
    const int64_t q = int64_t{c.num_heads} * c.head_dim, kv = int64_t{c.num_kv_heads} * c.head_dim;
    for (int n = 0; n < c.num_layers; ++n) {
      layers_.push_back(
          {w.rms_norm(n, "attn_norm", e, c.norm_eps),
           w.linear(n, {{"q", q, c.num_heads}, {"k", kv, c.num_kv_heads}, {"v", kv}}, e, true),
           w.linear(n, {{"o", e}}, q, false),
           w.rms_norm(n, "mlp_norm", e, c.norm_eps),
           w.linear(n, {{"gate", i}, {"up", i}}, e, false),
           w.linear(n, {{"down", e}}, i, false)});
    }
  }

 private:
  void run(Step& f) const override {
    Residual residual(f);
    embed(f, embedding_, f.context.batch.tokens, residual.sum);
    for (int n = 0; n < config_.num_layers; ++n) {
      const Layer& layer = layers_[static_cast<size_t>(n)];
      {
        Workspace::Scope scope(*f.context.workspace);
        auto [q, k, v, qk] =
            split_heads(f, norm_linear(f, Fusion::kNormQkv, layer.attn_norm, residual, layer.qkv));
        rope(f, qk, config_.num_heads + config_.num_kv_heads);
        add_linear(f, layer.out, {.x = attention(f, n, q, k, v)}, residual);
      }
      {
        Workspace::Scope scope(*f.context.workspace);
        MatF gate_up = norm_linear(f, Fusion::kNormMlp, layer.mlp_norm, residual, layer.gate_up);
        add_linear(f, layer.down, ActivationFunction::kSiluAndMul, gate_up, residual);
      }
    }
    write_logits(f, residual, final_norm_, lm_head_);
  }

  PackedMatrix embedding_;
  Norm final_norm_;
  Linear lm_head_;
  std::vector<Layer> layers_;
};

std::unique_ptr<DecoderModel> make(const ModelConfig& config, WeightLoader& weights) {
  return std::make_unique<Qwen2>(config, weights);
}

}  // namespace

const Architecture kQwen2 = {.name = "Qwen2ForCausalLM",
                             .gguf_name = "qwen2",
                             .gguf_interleaved_rope = false,
                             .activation = "silu",
                             .tensor_names = kDecoderNames,
                             .configure = configure_qwen,
                             .make = make};

}  // namespace quire
