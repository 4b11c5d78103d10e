// quire perplexity: perplexity of a text, and KL divergence against saved reference logits.
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/engine_flags.h"
#include "apps/human_integer.h"
#include "apps/logits_file.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "base/files.h"
#include "frontend/json.h"

namespace quire {
namespace {

struct PerplexityFlags {
  LlmConfig llm;
  std::string file, kl_base, save_kl_base;
  int context = 512;
  bool score_all = false, json = false;
};

// Sums over scored positions. A position i of a chunk predicts token i + 1.
struct Score {
  int64_t positions = 0, top1_agreements = 0;
  double negative_log_likelihood = 0, kl = 0, max_kl = 0;
  double max_difference = 0, reference_min = INFINITY, reference_max = -INFINITY;

  double perplexity() const { return std::exp(negative_log_likelihood / positions); }
  double mean_kl() const { return kl / positions; }
  double max_difference_over_range() const {
    return max_difference / (reference_max - reference_min);
  }
};

double log_sum_exp(std::span<const float> logits) {
  double largest = -INFINITY;
  for (const float x : logits) largest = std::max(largest, static_cast<double>(x));
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

int64_t argmax(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

// KL(reference || ours) over the whole vocabulary, in double.
void add_reference(std::span<const float> ours, std::span<const float> reference, Score& score) {
  const double our_norm = log_sum_exp(ours), reference_norm = log_sum_exp(reference);
  double kl = 0;
  for (size_t v = 0; v < ours.size(); ++v) {
    const double log_p = reference[v] - reference_norm;
    kl += std::exp(log_p) * (log_p - (ours[v] - our_norm));
    score.max_difference =
        std::max(score.max_difference, std::abs(static_cast<double>(ours[v]) - reference[v]));
    score.reference_min = std::min(score.reference_min, static_cast<double>(reference[v]));
    score.reference_max = std::max(score.reference_max, static_cast<double>(reference[v]));
  }
  score.kl += kl;
  score.max_kl = std::max(score.max_kl, kl);
  score.top1_agreements += argmax(ours) == argmax(reference) ? 1 : 0;
}

class PerplexityRun {
 public:
  PerplexityRun(Llm& llm, const PerplexityFlags& flags) : llm_(&llm), flags_(&flags) {}

  // `text`: what --file holds; unused with --kl-base.
  Status run(const std::string& text) {
    if (!flags_->kl_base.empty()) {
      QUIRE_ASSIGN_OR_RETURN(base_, LogitsReader::open(flags_->kl_base));
      if (base_->vocab_size() != llm_->model_config().vocab_size) {
        return invalid_argument(flags_->kl_base + " has logits of " +
                                std::to_string(base_->vocab_size()) + " tokens; this model has " +
                                std::to_string(llm_->model_config().vocab_size));
      }
      chunks_ = base_->chunks();
    } else {
      QUIRE_RETURN_IF_ERROR(split(text));
    }
    if (!flags_->save_kl_base.empty()) {
      QUIRE_ASSIGN_OR_RETURN(
          saved_,
          LogitsWriter::create(flags_->save_kl_base, chunks_, llm_->model_config().vocab_size));
    }
    ProgressBar bar("perplexity", static_cast<int64_t>(chunks_.size()));
    for (size_t c = 0; c < chunks_.size(); ++c) {
      QUIRE_RETURN_IF_ERROR(score_chunk(c));
      bar.update(static_cast<int64_t>(c) + 1, note());
      if (Interrupt::requested()) return cancelled("interrupted");
    }
    bar.finish(static_cast<int64_t>(chunks_.size()), note());
    if (saved_) QUIRE_RETURN_IF_ERROR(saved_->finish());
    print();
    return {};
  }

 private:
  Status split(const std::string& text) {
    QUIRE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                           llm_->tokenizer().encode(text, {.add_special_tokens = true}));
    const size_t n = static_cast<size_t>(flags_->context);
    for (size_t begin = 0; begin + n <= tokens.size(); begin += n) {
      chunks_.emplace_back(tokens.begin() + begin, tokens.begin() + begin + n);
    }
    if (chunks_.empty()) {
      return invalid_argument("the text has " + std::to_string(tokens.size()) +
                              " tokens, fewer than --context " + std::to_string(n) +
                              "; give a longer text or a smaller --context");
    }
    return {};
  }

  // Positions scored in a chunk of T tokens: [first, T - 1). The second half by default, so that
  // each has context.
  Status score_chunk(size_t chunk) {
    const std::vector<TokenId>& tokens = chunks_[chunk];
    const int last = static_cast<int>(tokens.size()) - 1;
    const int first = flags_->score_all ? 0 : static_cast<int>(tokens.size()) / 2;
    GenerateRequest request;
    request.id = "chunk-" + std::to_string(chunk);
    request.prompt = tokens;
    request.sampling.temperature = 0;
    request.sampling.max_tokens = 1;
    Status tap_status;
    request.logits_tap = [&](int position, std::span<const float> logits) {
      if (position > last || !tap_status.ok()) return;
      tap_status = see(chunk, position, position >= first && position < last, logits);
    };
    QUIRE_ASSIGN_OR_RETURN(TextStream stream, llm_->submit(std::move(request)));
    while (const std::optional<TextDelta> delta = stream.next()) {
      if (delta->finish_reason == FinishReason::kError) return delta->error;
    }
    return tap_status;
  }

  // On the engine thread.
  Status see(size_t chunk, int position, bool scored, std::span<const float> logits) {
    if (saved_) QUIRE_RETURN_IF_ERROR(saved_->append(logits));
    if (!scored) return {};
    ++score_.positions;
    score_.negative_log_likelihood += log_sum_exp(logits) - logits[chunks_[chunk][position + 1]];
    if (base_) {
      QUIRE_ASSIGN_OR_RETURN(const std::span<const float> reference,
                             base_->read(static_cast<int64_t>(chunk), position));
      add_reference(logits, reference, score_);
    }
    return {};
  }

  std::string note() const { return "perplexity " + format_double(score_.perplexity(), 4); }

  void print() const {
    if (flags_->json) {
      Json out = {{"perplexity", score_.perplexity()}, {"positions", score_.positions}};
      if (base_) {
        out["mean_kl"] = score_.mean_kl();
        out["max_kl"] = score_.max_kl;
        out["top1_agreement"] = static_cast<double>(score_.top1_agreements) / score_.positions;
        out["max_abs_diff_over_range"] = score_.max_difference_over_range();
      }
      std::puts(dump_json(out).c_str());
      return;
    }
    std::printf("perplexity %.4f over %lld positions\n",
                score_.perplexity(),
                static_cast<long long>(score_.positions));
    if (base_) {
      std::printf(
          "against the reference: mean KL %.3e, max KL %.3e, same top-1 %.2f %%, largest "
          "difference %.2e "
          "of the range\n",
          score_.mean_kl(),
          score_.max_kl,
          100.0 * score_.top1_agreements / score_.positions,
          score_.max_difference_over_range());
    }
  }

  Llm* llm_;
  const PerplexityFlags* flags_;
  std::vector<std::vector<TokenId>> chunks_;
  std::unique_ptr<LogitsReader> base_;
  std::unique_ptr<LogitsWriter> saved_;
  Score score_;
};

Status run(const PerplexityFlags& flags) {
  if (flags.file.empty() && flags.kl_base.empty()) {
    return invalid_argument("no text: give -f FILE, or --kl-base FILE, which holds its own tokens");
  }
  std::string text;
  if (flags.kl_base.empty()) {
    QUIRE_ASSIGN_OR_RETURN(text, read_whole_file(flags.file, "the text"));
  }
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> llm, Llm::load(flags.llm));
  print_kv_pool(llm->load_report().kv_plan);
  return PerplexityRun(*llm, flags).run(text);
}

}  // namespace

Command add_perplexity_command(CommandLine line) {
  auto flags = std::make_shared<PerplexityFlags>();
  add_model_argument(line, flags->llm);
  line.option("-f,--file", flags->file, "the text");
  line.option("--context", flags->context, "tokens of a chunk").within(2, 1 << 20).shows_default();
  line.option(
      "--kl-base", flags->kl_base, "reference logits (safetensors: tokens [C,T], logits [C,T,V])");
  line.option("--save-kl-base", flags->save_kl_base, "write this model's logits as a reference");
  line.flag("--score-all",
            flags->score_all,
            "score every position, not only the second half of each chunk");
  line.flag("--json", flags->json, "print one JSON object");
  add_engine_flags(line, flags->llm);
  return [flags] { return run(*flags); };
}

}  // namespace quire
