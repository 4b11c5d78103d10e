// quire bench paper: the figures of the PagedAttention paper.
#pragma once

#include "apps/command.h"

namespace quire {

Command add_bench_paper_command(CommandLine line);

}  // namespace quire
