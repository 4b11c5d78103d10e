// quire serve: an OpenAI-compatible HTTP server.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/engine_flags.h"
#include "apps/report.h"
#include "apps/sampling_flags.h"
#include "apps/terminal.h"
#include "base/files.h"
#include "serve/access_log.h"
#include "serve/application.h"
#include "serve/server.h"

namespace quire {
namespace {

struct ServeFlags {
  LlmConfig llm;
  ServerConfig server;
  AccessConfig access;
  std::vector<std::string> model_names;
  std::string api_key_file;
  std::string generation_config = "auto", metrics_prefix = "vllm:", version;
  int64_t max_header_bytes = 64 << 10, max_body_bytes = 16 << 20;
  int shutdown_timeout = 30, stall_timeout = 60;
  bool no_access_log = false;

  Status validate() const;
};

Status ServeFlags::validate() const {
  if (shutdown_timeout < 0) {
    return invalid_argument("--shutdown-timeout is " + std::to_string(shutdown_timeout) +
                            ", but must be >= 0 seconds");
  }
  if (stall_timeout < 1) {
    return invalid_argument("--stall-timeout is " + std::to_string(stall_timeout) +
                            ", but must be >= 1 second");
  }
  for (const char c : metrics_prefix) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == ':') continue;
    return invalid_argument("--metrics-prefix is \"" + metrics_prefix +
                            "\", but may hold letters, digits, _ and : only");
  }
  return {};
}

// SIGTERM and SIGINT, counted; a byte in the pipe for each, so that a poll() sees them.
std::atomic<int> stop_signals{0};
int stop_pipe[2] = {-1, -1};

void on_stop(int) {
  stop_signals.fetch_add(1);
  const int saved = errno;
  [[maybe_unused]] const ssize_t written = write(stop_pipe[1], "", 1);
  errno = saved;
}

Status catch_stop_signals() {
  if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return unavailable("cannot make a pipe");
  struct sigaction action = {};
  action.sa_handler = on_stop;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  return {};
}

// False when `timeout` passed first (negative: none).
bool wait_for_stop_signal(int signals_before, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (stop_signals <= signals_before) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (timeout.count() >= 0 && left.count() <= 0) return false;
    pollfd entry = {.fd = stop_pipe[0], .events = POLLIN};
    poll(&entry, 1, timeout.count() < 0 ? -1 : static_cast<int>(left.count()));
    char bytes[16];
    while (read(stop_pipe[0], bytes, sizeof bytes) > 0) {
    }
  }
  return true;
}

void log(const char* level, const char* event, const HttpHeaders& fields) {
  const std::string line = log_line(level, event, fields, std::chrono::system_clock::now());
  std::fwrite(line.data(), 1, line.size(), stderr);
}

// Until all requests have ended, the time is over or a second signal comes.
Status drain(HttpServer& server, Service& service, int timeout_seconds) {
  constexpr std::chrono::milliseconds kLook{20};
  log("info",
      "draining",
      {{"in_flight", std::to_string(service.in_flight.count())},
       {"timeout_s", std::to_string(timeout_seconds)}});
  service.draining = true;
  server.drain();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_seconds);
  // A request is done when its connection has sent it.
  while (server.num_connections() > 0 && std::chrono::steady_clock::now() < deadline) {
    if (wait_for_stop_signal(1, kLook)) {
      log("warning",
          "stopped",
          {{"cut", std::to_string(service.in_flight.count())}, {"why", "second signal"}});
      return cancelled("stopped at once by a second signal");
    }
  }
  const int cut = service.in_flight.count();
  log(cut > 0 ? "warning" : "info", "stopped", {{"cut", std::to_string(cut)}});
  return {};
}

Status add_keys(const std::string& text, std::vector<std::string>* keys) {
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    std::string key = text.substr(at, end - at);
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
    if (!key.empty()) keys->push_back(key);
    at = end + 1;
  }
  return {};
}

// From the flags, the file and the environment, together.
Result<std::vector<std::string>> api_keys(const ServeFlags& flags) {
  std::vector<std::string> keys;
  for (const std::string& key : flags.access.api_keys) {
    if (key.empty()) return invalid_argument("--api-key must not be empty");
    keys.push_back(key);
  }
  if (!flags.api_key_file.empty()) {
    QUIRE_ASSIGN_OR_RETURN(const std::string text,
                           read_whole_file(flags.api_key_file, "the API keys"));
    QUIRE_RETURN_IF_ERROR(add_keys(text, &keys));
    if (keys.empty())
      return invalid_argument("--api-key-file " + flags.api_key_file + " has no key: one a line");
  }
  for (const char* name : {"QUIRE_API_KEY", "VLLM_API_KEY"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') keys.emplace_back(value);
  }
  return keys;
}

// "smollm2.gguf" is served as "smollm2"; org/name as it is.
std::vector<std::string> served_names(const ServeFlags& flags) {
  if (!flags.model_names.empty()) return flags.model_names;
  const std::filesystem::path path(flags.llm.model);
  const bool is_file = path.extension() == ".gguf";
  const bool exists = std::filesystem::exists(path);
  if (is_file) return {path.stem().string()};
  return {exists ? std::filesystem::canonical(path).filename().string() : flags.llm.model};
}

Status run(const ServeFlags& flags) {
  // What costs nothing first.
  ServerConfig server_config = flags.server;
  server_config.max_header_bytes = static_cast<size_t>(flags.max_header_bytes);
  server_config.max_body_bytes = static_cast<size_t>(flags.max_body_bytes);
  QUIRE_RETURN_IF_ERROR(server_config.validate());
  AccessConfig access = flags.access;
  QUIRE_ASSIGN_OR_RETURN(access.api_keys, api_keys(flags));

  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> llm, Llm::load(flags.llm));
  print_kv_pool(llm->load_report().kv_plan);
  Service service(llm.get(),
                  {.model_names = served_names(flags),
                   .model_root = flags.llm.model,
                   .version = flags.version,
                   .use_generation_config = flags.generation_config == "auto",
                   .metrics_prefix = flags.metrics_prefix,
                   .stall_timeout = std::chrono::seconds(flags.stall_timeout)});
  const Application application(service, std::move(access));
  const HttpObserver observer = [quiet = flags.no_access_log](const HttpRecord& record) {
    if (quiet) return;
    const std::string line = access_log_line(record, std::chrono::system_clock::now());
    std::fwrite(line.data(), 1, line.size(), stderr);
  };
  QUIRE_RETURN_IF_ERROR(catch_stop_signals());
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<HttpServer> server,
                         HttpServer::start(
                             std::move(server_config),
                             [&application](HttpRequest request, Wake wake) {
                               return application.handle(std::move(request), std::move(wake));
                             },
                             observer));
  log("info",
      "ready",
      {{"address", server->address()},
       {"model", service.config.model_names.front()},
       {"load_s", format_double(llm->load_report().seconds, 2)},
       {"max_model_len", std::to_string(service.api.max_model_len)}});
  wait_for_stop_signal(0, std::chrono::milliseconds(-1));
  return drain(*server, service, flags.shutdown_timeout);
}

// ["a", "b"], as vLLM's flags take lists.
Status parse_list(const std::string& flag, const std::string& text, std::vector<std::string>* out) {
  const Result<Json> json = parse_json_document(text);
  const bool is_list =
      json.ok() && json->is_array() &&
      std::ranges::all_of(*json, [](const Json& entry) { return entry.is_string(); });
  if (!is_list) {
    return invalid_argument(
        flag + " must be a JSON list of texts, as in '[\"https://example.com\"]', got " + text);
  }
  *out = json->get<std::vector<std::string>>();
  return {};
}

void add_http_flags(CommandLine line, ServeFlags& f) {
  const std::string group = "Server";
  ServerConfig& s = f.server;
  line.option("--host", s.host, "address to listen on; empty = every interface").group(group);
  line.option("--port", s.port, "TCP port; 0 = any free one").group(group).shows_default();
  line.option("--uds", s.uds, "listen on a Unix socket with this path instead").group(group);
  line.option("--ssl-certfile", s.ssl_certfile, "serve HTTPS with this certificate chain (PEM)")
      .group(group);
  line.option("--ssl-keyfile", s.ssl_keyfile, "its private key (PEM)").group(group);
  line.option("--http-threads", s.num_threads, "threads for sockets, JSON and text")
      .group(group)
      .shows_default();
  line.option("--max-connections", s.max_connections, "open at once; further ones are closed")
      .human_integer()
      .group(group)
      .shows_default();
  line.option(
          "--h11-max-incomplete-event-size", f.max_header_bytes, "most bytes of a request's header")
      .human_integer()
      .group(group)
      .shows_default();
  line.option("--max-body-bytes", f.max_body_bytes, "most bytes of a request's body")
      .human_integer()
      .group(group)
      .shows_default();
  line.option("--shutdown-timeout",
              f.shutdown_timeout,
              "seconds that running requests have after SIGTERM")
      .group(group)
      .shows_default();
  line.option("--stall-timeout",
              f.stall_timeout,
              "seconds without a step, with work waiting, until /health is 503")
      .group(group)
      .shows_default();
  line.flag("--disable-access-log,--disable-uvicorn-access-log",
            f.no_access_log,
            "no line in the log for each request")
      .group(group);
  line.option("--metrics-prefix", f.metrics_prefix, "of the names in /metrics")
      .group(group)
      .shows_default();
}

void add_access_flags(CommandLine line, ServeFlags& f) {
  const std::string group = "Access";
  CorsConfig& cors = f.access.cors;
  line.option(
          "--api-key",
          f.access.api_keys,
          "accept requests with this key only (may be given several times; also QUIRE_API_KEY or "
          "VLLM_API_KEY); /health and /ping stay open")
      .one_value_each()
      .group(group);
  line.option("--api-key-file", f.api_key_file, "file with API keys, one a line").group(group);
  const auto add_list = [&](const char* name, std::vector<std::string>& target, const char* help) {
    line.option(
            name,
            [&target, name](const std::string& text) { return parse_list(name, text, &target); },
            help)
        .type_name("JSON")
        .group(group);
  };
  add_list("--allowed-origins",
           cors.origins,
           "origins whose pages may use the server (CORS); none by default");
  add_list("--allowed-methods", cors.methods, "and with which methods; any by default");
  add_list("--allowed-headers", cors.headers, "and headers; any by default");
  line.flag("--allow-credentials", cors.allow_credentials, "and with cookies").group(group);
}

}  // namespace

Command add_serve_command(CommandLine line) {
  auto flags = std::make_shared<ServeFlags>();
  ServeFlags& f = *flags;
  f.version = line.program().version();
  add_model_argument(line, f.llm);
  line.option("--served-model-name",
              f.model_names,
              "the model's name in the API (several: all are accepted, the first is answered)")
      .group("Model");
  line.option("--generation-config",
              f.generation_config,
              "auto = the model's own sampling defaults, vllm = none")
      .one_of({"auto", "vllm"})
      .shows_default()
      .group("Model");
  line.option(
          "--seed",
          [&f](const std::string& text) { return parse_seed(text, f.llm.engine.seed); },
          "makes requests without a seed repeatable, in their order of arrival")
      .type_name("INT")
      .group("Model");
  add_http_flags(line, f);
  add_access_flags(line, f);
  add_engine_flags(line, f.llm);
  line.when_parsed([&f] { return f.validate(); });
  return [flags] { return run(*flags); };
}

}  // namespace quire
