// OPT: learned positions, LayerNorm before (or, in the 350M model, after) each block, ReLU, biases.
// Source: Zhang et al., arXiv:2205.01068, section 2.1; table of positions with offset 2 and the
// projections around a narrower embedding as in facebookresearch/metaseq.
#include "model/architecture.h"
#include "model/decoder.h"
#include "model/json_fields.h"
#include "model/weights.h"

namespace quire {
namespace {

constexpr int64_t kPositionOffset = 2;  // the table's first two rows belong to no position

struct Layer {
  Norm attn_norm;
  Linear qkv;  // [3E, E]
  Linear out;  // [E, E]
  Norm mlp_norm;
  Linear fc1;  // [I, E]
  Linear fc2;  // [E, I]
};

class Opt final : public DecoderModel {
 public:
  Opt(const ModelConfig& c, WeightLoader& w)
      : DecoderModel(c),
        embedding_(w.table("embedding", c.vocab_size, embedding_size(c))),
        positions_(w.table("positions", c.max_position, c.hidden_size, kPositionOffset)),
        lm_head_(w.lm_head(c.vocab_size, embedding_size(c), embedding_, c.tie_embeddings)) {
    const int64_t e = c.hidden_size, i = c.intermediate_size;
    if (c.embed_proj_dim != 0) {
      project_in_ = w.linear(0, {{"project_in", e}}, c.embed_proj_dim, false);
      project_out_ = w.linear(0, {{"project_out", c.embed_proj_dim}}, e, false);
    }
    if (c.final_norm) final_norm_ = w.layer_norm(0, "final_norm", e, c.norm_eps);
    for (int n = 0; n < c.num_layers; ++n) {
      layers_.push_back({w.layer_norm(n, "attn_norm", e, c.norm_eps),
                         w.linear(n, {{"q", e}, {"k", e}, {"v", e}}, e, c.attention_bias),
                         w.linear(n, {{"o", e}}, e, c.attention_bias),
                         w.layer_norm(n, "mlp_norm", e, c.norm_eps),
                         w.linear(n, {{"fc1", i}}, e, c.mlp_bias),
                         w.linear(n, {{"fc2", e}}, i, c.mlp_bias)});
      layers_.back().attn_norm.replaces_sum = !c.norm_before;
      layers_.back().mlp_norm.replaces_sum = !c.norm_before;
    }
  }

 private:
  static int64_t embedding_size(const ModelConfig& c) {
    return c.embed_proj_dim != 0 ? c.embed_proj_dim : c.hidden_size;
  }

  void run(Step& f) const override {
    Residual residual(f);
    embed_tokens(f, residual.sum);
    const bool before = config_.norm_before;
    const Norm none;
    // Post-norm: the norm behind a block is what the next matrix reads, and what is added to.
    const Norm* behind = &none;
    for (int n = 0; n < config_.num_layers; ++n) {
      const Layer& layer = layers_[static_cast<size_t>(n)];
      {
        Workspace::Scope scope(*f.context.workspace);
        const Norm& norm = before ? layer.attn_norm : *behind;
        auto [q, k, v, qk] =
            split_heads(f, norm_linear(f, Fusion::kNormQkv, norm, residual, layer.qkv));
        add_linear(f, layer.out, {.x = attention(f, n, q, k, v)}, residual);
      }
      {
        Workspace::Scope scope(*f.context.workspace);
        const Norm& norm = before ? layer.mlp_norm : layer.attn_norm;
        MatF hidden = norm_linear(f, Fusion::kNormMlp, norm, residual, layer.fc1);
        add_linear(f, layer.fc2, ActivationFunction::kRelu, hidden, residual);
      }
      behind = &layer.mlp_norm;
    }
    const Norm& last = before ? final_norm_ : *behind;
    if (config_.embed_proj_dim == 0 || f.num_logit_rows == 0) {
      write_logits(f, residual, last, lm_head_);
      return;
    }
    Residual wanted = gather_logit_rows(f, residual);
    lm_head_(f, norm_linear(f, Fusion::kNormQkv, last, wanted, project_out_), f.context.logits);
  }

  // residual = token embedding (projected when narrower) + position embedding.
  void embed_tokens(Step& f, const MatF& residual) const {
    Workspace::Scope scope(*f.context.workspace);
    MatF x = f.rows(config_.hidden_size);
    if (config_.embed_proj_dim != 0) {
      MatF narrow = f.rows(config_.embed_proj_dim);
      embed(f, embedding_, f.context.batch.tokens, narrow);
      project_in_(f, narrow, residual);
    } else {
      embed(f, embedding_, f.context.batch.tokens, residual);
    }
    embed(f, positions_, f.context.batch.positions, x);
    add(f, x, residual);
  }

  PackedMatrix embedding_, positions_;
  Linear lm_head_, project_in_, project_out_;
  Norm final_norm_;
  std::vector<Layer> layers_;
};

Status configure(const JsonValue& json, ModelConfig& config) {
  JsonFields fields(json);
  config.intermediate_size = fields.integer("ffn_dim");
  config.norm_before = fields.boolean("do_layer_norm_before", true);
  config.final_norm = config.norm_before && !fields.boolean("_remove_final_layer_norm", false);
  const int embedding = fields.integer("word_embed_proj_dim", config.hidden_size);
  config.embed_proj_dim = embedding == config.hidden_size ? 0 : embedding;
  config.activation = fields.string("activation_function", "relu");
  config.tie_embeddings = fields.boolean("tie_word_embeddings", true);
  config.attention_bias = config.mlp_bias = fields.boolean("enable_bias", true);
  config.norm_eps = 1e-5;
  config.rope = RopeConfig();  // none
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (!fields.boolean("layer_norm_elementwise_affine", true)) {
    return unsupported("layer_norm_elementwise_affine = false");
  }
  if (embedding < 1 || embedding > kMaxHiddenSize) {
    return unsupported("word_embed_proj_dim is " + std::to_string(embedding) +
                       "; supported: 1 to " + std::to_string(kMaxHiddenSize));
  }
  if (config.head_dim * config.num_heads != config.hidden_size) {
    return unsupported("hidden_size is not num_attention_heads * head_dim");
  }
  return fields.status();
}

std::unique_ptr<DecoderModel> make(const ModelConfig& config, WeightLoader& weights) {
  return std::make_unique<Opt>(config, weights);
}

}  // namespace

const Architecture kOpt = {.name = "OPTForCausalLM",
                           .gguf_name = nullptr,
                           .gguf_interleaved_rope = false,
                           .activation = "relu",
                           .tensor_names = kOptNames,
                           .configure = configure,
                           .make = make};

}  // namespace quire
