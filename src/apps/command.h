// A subcommand: add_*_command() declares its flags on `app` and returns what runs when it was
// chosen.
#pragma once

#include <functional>

#include "base/status.h"

namespace CLI {
class App;
}

namespace quire {

using Command = std::function<Status()>;

Command add_run_command(CLI::App& app);
Command add_chat_command(CLI::App& app);
Command add_generate_command(CLI::App& app);
Command add_bench_command(CLI::App& app);
Command add_perplexity_command(CLI::App& app);
Command add_info_command(CLI::App& app);
Command add_plan_command(CLI::App& app);
Command add_tokenize_command(CLI::App& app);
Command add_detokenize_command(CLI::App& app);
Command add_devices_command(CLI::App& app);
Command add_completion_command(CLI::App& app);

}  // namespace quire
