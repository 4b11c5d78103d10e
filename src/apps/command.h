// A subcommand: add_*_command() declares its flags on `line` and returns what runs when it was
// chosen.
#pragma once

#include <functional>

#include "apps/command_line.h"

namespace quire {

using Command = std::function<Status()>;

Command add_run_command(CommandLine line);
Command add_chat_command(CommandLine line);
Command add_generate_command(CommandLine line);
Command add_serve_command(CommandLine line);
Command add_bench_command(CommandLine line);
Command add_perplexity_command(CommandLine line);
Command add_info_command(CommandLine line);
Command add_plan_command(CommandLine line);
Command add_tokenize_command(CommandLine line);
Command add_detokenize_command(CommandLine line);
Command add_devices_command(CommandLine line);
Command add_completion_command(CommandLine line);

}  // namespace quire
