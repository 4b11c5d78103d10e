#include "base/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace quire {
namespace {

Status cannot_read(const std::string& path, const std::string& what, int error) {
  const std::string message =
      "cannot read " + what + " " + path + ": " + std::string(std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return not_found(message);
  if (error == EISDIR) {
    return invalid_argument("cannot read " + what + ": " + path + " is a directory; give a file");
  }
  return unavailable(message);
}

}  // namespace

Result<std::string> read_whole_file(const std::string& path, const std::string& what) {
  const bool standard_input = path == "-";
  const int fd = standard_input ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return cannot_read(path, what, errno);
  std::string text;
  char buffer[1 << 16];
  int error = 0;
  for (;;) {
    const ssize_t count = read(fd, buffer, sizeof buffer);
    if (count > 0) text.append(buffer, static_cast<size_t>(count));
    if (count == 0) break;
    if (count < 0 && errno != EINTR) {
      error = errno;
      break;
    }
  }
  if (!standard_input) close(fd);
  if (error != 0) return cannot_read(standard_input ? "(standard input)" : path, what, error);
  return text;
}

}  // namespace quire
