// quire completion: shell completion, generated from the same flags that are parsed.
#include <CLI/CLI.hpp>
#include <memory>

#include "apps/command.h"
#include "apps/completion.h"
#include "apps/terminal.h"

namespace quire {

Command add_completion_command(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  const CLI::App* root = app.get_parent();
  return [shell, root]() -> Status {
    QUIRE_ASSIGN_OR_RETURN(const std::string script, completion_script(*root, *shell));
    return write_stdout(script);
  };
}

}  // namespace quire
