// quire generate: a file of prompts in, a file of answers out, resumable.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "apps/answer_file.h"
#include "apps/command.h"
#include "apps/engine_flags.h"
#include "apps/report.h"
#include "apps/sampling_flags.h"
#include "apps/terminal.h"

namespace quire {
namespace {

struct GenerateFlags {
  LlmConfig llm;
  SamplingFlags sampling;
  std::string input, output;
  bool raw = false;
};

const std::vector<std::string> kOwnFields = {"id", "prompt", "messages", "tools", "cache_salt"};

Result<GenerateRequest> parse_request(const Llm& llm,
                                      const GenerateFlags& flags,
                                      const Json& object) {
  GenerateRequest request;
  request.sampling = flags.sampling.over(llm.default_sampling());
  request.output = flags.sampling.output();
  if (!object.is_object()) return invalid_argument("a line must be a JSON object");
  if (object.contains("prompt") == object.contains("messages")) {
    return invalid_argument("a line must have exactly one of \"prompt\" and \"messages\"");
  }
  if (object.contains("messages")) {
    request.prompt =
        ChatPrompt{.messages_json = dump_json(object["messages"]),
                   .tools_json = object.contains("tools") ? dump_json(object["tools"]) : ""};
  } else if (!object["prompt"].is_string()) {
    return invalid_argument("\"prompt\" must be a string");
  } else if (flags.raw || !llm.has_chat_template()) {
    request.prompt = object["prompt"].get<std::string>();
  } else {
    const Json messages = {{{"role", "user"}, {"content", object["prompt"]}}};
    request.prompt = ChatPrompt{.messages_json = dump_json(messages)};
  }
  if (object.contains("cache_salt")) {
    if (!object["cache_salt"].is_string())
      return invalid_argument("\"cache_salt\" must be a string");
    request.cache_salt = object["cache_salt"].get<std::string>();
  }
  QUIRE_RETURN_IF_ERROR(
      apply_sampling_fields(object, kOwnFields, request.sampling, request.output));
  return request;
}

// One batch: worker threads take lines and block on their streams; the engine batches what is in
// flight.
class BatchJob {
 public:
  BatchJob(Llm& llm, const GenerateFlags& flags, InputLines& in, AnswerFile& out)
      : llm_(&llm), flags_(&flags), in_(&in), out_(&out), bar_("generate", in.total_lines()) {}

  Status run() {
    const int64_t lines = in_->total_lines();
    const int workers = static_cast<int>(
        std::clamp<int64_t>(lines, 1, std::min(llm_->engine_config().max_num_seqs, 256)));
    std::vector<std::thread> threads;
    try {
      for (int i = 0; i < workers; ++i) threads.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // the system's limit of threads: go on with those there
      if (threads.empty()) throw;
    }
    for (std::thread& thread : threads) thread.join();
    bar_.finish(in_->num_skipped() + done_, note());
    if (!status_.ok()) return status_;
    if (Interrupt::requested()) {
      return cancelled("interrupted; run the same command again to go on from " + flags_->output);
    }
    return {};
  }

 private:
  void work() {
    while (std::optional<InputLine> line = in_->next()) {
      if (Interrupt::requested()) return;
      std::optional<Json> record = answer(*line);
      if (!record) return;
      std::lock_guard lock(mutex_);
      if (Status written = out_->append(*record); !written.ok()) {
        if (status_.ok()) status_ = written;
        in_->stop();
        return;
      }
      ++done_;
      bar_.update(in_->num_skipped() + done_, note(), in_->num_skipped());
    }
  }

  // The output record of a line; nothing when interrupted.
  std::optional<Json> answer(const InputLine& line) {
    Json record = {{"id", line.id}};
    if (line.id.is_null()) record["line"] = line.number;
    const auto fail = [&](const Status& status) {
      record["line"] = line.number;
      record["error"] = status.message();
      ++failed_;
      return record;
    };
    if (!line.status.ok()) return fail(line.status);
    Result<GenerateRequest> request = parse_request(*llm_, *flags_, line.object);
    if (!request.ok()) return fail(request.status());
    request->id = record_key(line.id, line.number);
    const int num_answers = request->sampling.n;
    Result<TextStream> stream = llm_->submit(std::move(*request));
    if (!stream.ok()) return fail(stream.status());
    std::vector<TextDelta> answers(num_answers);
    while (!stream->finished()) {
      if (Interrupt::requested()) return std::nullopt;
      const std::optional<TextDelta> delta = stream->next_for(std::chrono::milliseconds(200));
      if (!delta) continue;
      if (delta->finish_reason == FinishReason::kError) return fail(delta->error);
      generated_ += static_cast<int64_t>(delta->tokens.size());
      answers[delta->index].append(*delta);
    }
    record.update(answers_json(answers, *stream, llm_->tokenizer()));
    record.erase("prompt_token_ids");
    return record;
  }

  std::string note() const {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    std::string text = format_double(generated_ / std::max(elapsed.count(), 1e-3), 1) + " tok/s";
    if (in_->num_skipped() > 0)
      text += ", " + std::to_string(in_->num_skipped()) + " answered before";
    if (failed_ > 0) text += ", " + std::to_string(failed_) + " failed";
    return text;
  }

  Llm* llm_;
  const GenerateFlags* flags_;
  InputLines* in_;
  AnswerFile* out_;
  std::mutex mutex_;  // guards out_, bar_, done_, status_
  ProgressBar bar_;
  int64_t done_ = 0;
  Status status_;
  std::atomic<int64_t> generated_{0}, failed_{0};
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Status run(const GenerateFlags& flags) {
  // What costs nothing first: a wrong flag leaves no empty output, a wrong path costs no load.
  QUIRE_RETURN_IF_ERROR(flags.llm.engine.validate());
  QUIRE_RETURN_IF_ERROR(resolve_model(flags.llm.model).status());
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<InputLines> in, InputLines::open(flags.input));
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<AnswerFile> out,
                         AnswerFile::open(flags.output, flags.input));
  in->skip(out->answered());
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> llm, Llm::load(flags.llm));
  print_kv_pool(llm->load_report().kv_plan);
  return BatchJob(*llm, flags, *in, *out).run();
}

}  // namespace

Command add_generate_command(CommandLine line) {
  auto flags = std::make_shared<GenerateFlags>();
  add_model_argument(line, flags->llm);
  line.option("-i,--input",
              flags->input,
              "JSON lines: {\"id\", \"prompt\" or \"messages\", sampling fields}; without id, "
              "the answer has "
              "the line's number as \"line\"")
      .required();
  line.option("-o,--output", flags->output, "answers as JSON lines; an existing file is resumed")
      .required();
  line.flag(
      "--raw", flags->raw, "give prompts to the model as they are, without the chat template");
  add_sampling_flags(line, flags->sampling);
  add_answer_count_flags(line, flags->sampling);
  add_engine_flags(line, flags->llm);
  return [flags] { return run(*flags); };
}

}  // namespace quire
