// quire completion: shell completion, generated from the same flags that are parsed.
#include <memory>

#include "apps/command.h"
#include "apps/completion.h"
#include "apps/terminal.h"

namespace quire {

Command add_completion_command(CommandLine line) {
  auto shell = std::make_shared<std::string>();
  line.option("SHELL", *shell, "bash, zsh or fish").required().one_of({"bash", "zsh", "fish"});
  const CommandLine program = line.program();
  return [shell, program]() -> Status {
    QUIRE_ASSIGN_OR_RETURN(const std::string script, completion_script(program, *shell));
    return write_stdout(script);
  };
}

}  // namespace quire
