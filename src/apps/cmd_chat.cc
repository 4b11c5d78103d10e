// quire chat: a conversation on the terminal.
#include <cstdio>
#include <fstream>
#include <memory>

#include "apps/command.h"
#include "apps/engine_flags.h"
#include "apps/line_reader.h"
#include "apps/report.h"
#include "apps/sampling_flags.h"
#include "apps/terminal.h"
#include "frontend/conversation.h"

namespace quire {
namespace {

struct ChatFlags {
  LlmConfig llm;
  SamplingFlags sampling;
  std::string system;
};

constexpr const char* kHelp =
    "/system TEXT  set the system message and start over\n"
    "/reset        forget the conversation\n"
    "/save FILE    write the conversation as JSON messages\n"
    "/stats        figures of the last answer and of the KV cache\n"
    "/help         this list\n"
    "/exit         leave (also Ctrl-D)\n"
    "Ctrl-C stops an answer; at the prompt it clears the line, twice in a row it leaves.\n";

class ChatSession {
 public:
  ChatSession(Llm& llm, const ChatFlags& flags) : llm_(&llm), flags_(&flags), conversation_(llm) {
    if (!flags.system.empty()) conversation_.set_system(flags.system);
  }

  // False ends the session.
  Result<bool> handle(const std::string& line) {
    if (line.empty()) return true;
    if (line[0] != '/') {
      QUIRE_RETURN_IF_ERROR(ask(line));
      return true;
    }
    const size_t space = line.find(' ');
    const std::string command = line.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (command == "/exit" || command == "/quit") return false;
    if (command == "/reset") {
      conversation_.reset();
    } else if (command == "/system") {
      conversation_.set_system(rest);
    } else if (command == "/save") {
      save(rest);
    } else if (command == "/stats") {
      print_stats();
    } else if (command == "/help") {
      std::fputs(kHelp, stdout);
    } else {
      const std::string near =
          nearest(command, {"/help", "/system", "/reset", "/save", "/stats", "/exit"});
      std::printf("unknown command %s%s; /help lists them\n",
                  command.c_str(),
                  near.empty() ? "" : (" (did you mean " + near + "?)").c_str());
    }
    return true;
  }

 private:
  // What the model or the engine refuses is told to the user and forgotten; an error is one of
  // standard output.
  Status ask(const std::string& text) {
    Interrupt::clear();
    Result<std::vector<TokenId>> prompt = conversation_.ask(text);
    if (!prompt.ok()) return refuse(prompt.status());
    GenerateRequest request;
    request.id = "chat";
    request.prompt = std::move(*prompt);
    request.sampling = flags_->sampling.over(llm_->default_sampling());
    request.output = flags_->sampling.output();
    Result<TextStream> stream = llm_->submit(std::move(request));
    if (!stream.ok()) return refuse(with_flag_names(stream.status()));
    return stream_answer(*stream);
  }

  Status refuse(const Status& why) {
    conversation_.forget_question();
    return write_stdout("error: " + why.message() + "\n");
  }

  Status stream_answer(TextStream& stream) {
    TextDelta answer;
    while (!stream.finished()) {
      if (Interrupt::requested()) stream.cancel();
      const std::optional<TextDelta> delta = stream.next_for(std::chrono::milliseconds(50));
      if (!delta) continue;
      answer.append(*delta);
      QUIRE_RETURN_IF_ERROR(write_stdout(delta->text));
    }
    if (answer.finish_reason == FinishReason::kError) return refuse(with_flag_names(answer.error));
    if (answer.finish_reason == FinishReason::kLength) {
      std::printf("\n(stopped at the length limit; --max-tokens raises it)");
    } else if (answer.finish_reason == FinishReason::kAborted) {
      std::printf("\n(stopped)");
    }
    QUIRE_RETURN_IF_ERROR(write_stdout("\n"));
    // The token that ended the answer belongs to the template's next turn.
    if (answer.stop_token && !answer.tokens.empty()) answer.tokens.pop_back();
    conversation_.answer(answer.tokens, answer.text);
    last_figures_ = figures_line(stream.stats(), *llm_);
    Interrupt::clear();
    return {};
  }

  void save(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    file << conversation_.messages_json() << "\n";
    file.flush();
    if (path.empty() || !file) {
      std::printf("cannot write \"%s\": give a writable file, as in /save chat.json\n",
                  path.c_str());
    } else {
      std::printf("saved to %s\n", path.c_str());
    }
  }

  void print_stats() {
    const EngineStats stats = llm_->stats();
    if (!last_figures_.empty()) std::printf("%s\n", last_figures_.c_str());
    std::printf(
        "conversation %zu tokens of %d | KV blocks: %lld used, %lld cached, %lld free | prefix "
        "cache: %lld of %lld tokens found\n",
        conversation_.num_tokens(),
        llm_->engine_config().max_model_len,
        static_cast<long long>(stats.num_used_blocks),
        static_cast<long long>(stats.num_cached_blocks),
        static_cast<long long>(stats.num_free_blocks),
        static_cast<long long>(stats.prefix_cache_hits),
        static_cast<long long>(stats.prefix_cache_queries));
  }

  Llm* llm_;
  const ChatFlags* flags_;
  Conversation conversation_;
  std::string last_figures_;
};

Status run(const ChatFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> llm, Llm::load(flags.llm));
  if (!llm->has_chat_template()) {
    return invalid_argument(
        "this model has no chat template: give one with --chat-template FILE, or use "
        "quire run --raw");
  }
  print_kv_pool(llm->load_report().kv_plan);
  ChatSession session(*llm, flags);
  LineReader lines;
  if (lines.on_terminal()) {
    Interrupt::never_exit();  // the editor must put the terminal's mode back
    std::printf("/help lists the commands.\n");
  }
  while (std::optional<std::string> line = lines.next()) {
    QUIRE_ASSIGN_OR_RETURN(const bool goes_on, session.handle(*line));
    QUIRE_RETURN_IF_ERROR(flush_stdout());
    if (!goes_on) break;
  }
  return {};
}

}  // namespace

Command add_chat_command(CommandLine line) {
  auto flags = std::make_shared<ChatFlags>();
  add_model_argument(line, flags->llm);
  line.option("--system", flags->system, "system message");
  add_sampling_flags(line, flags->sampling);
  add_engine_flags(line, flags->llm);
  return [flags] { return run(*flags); };
}

}  // namespace quire
