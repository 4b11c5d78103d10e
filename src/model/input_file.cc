#include "model/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace quire {
namespace {

int64_t mtime_ns(const struct stat& info) {
  return static_cast<int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
}

}  // namespace

Result<InputFile> InputFile::open(const std::filesystem::path& path) {
  InputFile file;
  file.name_ = path.string();
  // O_NONBLOCK: opening a pipe must not wait for a writer before it is refused below.
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) {
    std::string message = "cannot open " + file.name_ + ": " + std::strerror(errno);
    return errno == ENOENT ? not_found(message) : unavailable(message);
  }
  struct stat info;
  if (fstat(file.fd_, &info) != 0) {
    return unavailable("cannot stat " + file.name_ + ": " + std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    return invalid_argument(file.name_ +
                            " is not a regular file; give a file that can be read in pieces");
  }
  file.size_ = info.st_size;
  file.mtime_ns_ = mtime_ns(info);
  return file;
}

InputFile InputFile::from_memory(std::string name, std::string contents) {
  InputFile file;
  file.name_ = std::move(name);
  file.size_ = static_cast<int64_t>(contents.size());
  file.contents_ = std::move(contents);
  return file;
}

InputFile::InputFile(InputFile&& other) noexcept { *this = std::move(other); }

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(mtime_ns_, other.mtime_ns_);
  std::swap(contents_, other.contents_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0) close(fd_);
}

Status InputFile::read(int64_t offset, int64_t size, void* destination) const {
  if (offset < 0 || size < 0 || offset > size_ || size > size_ - offset) {
    return data_loss(name_ + " ends at byte " + std::to_string(size_) + ", but " +
                     std::to_string(size) + " bytes at " + std::to_string(offset) +
                     " are wanted; the file is truncated, fetch it again");
  }
  if (fd_ < 0) {
    if (size > 0) std::memcpy(destination, contents_.data() + offset, static_cast<size_t>(size));
    return Status();
  }
  auto* out = static_cast<unsigned char*>(destination);
  while (size > 0) {
    ssize_t got = pread(fd_, out, static_cast<size_t>(size), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unavailable("cannot read " + name_ + ": " + std::strerror(errno));
    if (got == 0) {
      return data_loss(name_ + " was truncated while it was read (byte " + std::to_string(offset) +
                       " of " + std::to_string(size_) + " is gone); load it again");
    }
    out += got;
    offset += got;
    size -= got;
  }
  return Status();
}

Status InputFile::check_unchanged() const {
  if (fd_ < 0) return Status();
  struct stat info;
  if (fstat(fd_, &info) != 0) {
    return unavailable("cannot stat " + name_ + ": " + std::strerror(errno));
  }
  if (info.st_size != size_ || mtime_ns(info) != mtime_ns_) {
    return data_loss(name_ + " changed while it was loaded (" + std::to_string(size_) +
                     " bytes at the start, " + std::to_string(info.st_size) +
                     " now); load it again when nothing writes to it");
  }
  return Status();
}

Result<std::string> read_text_file(const std::filesystem::path& path, int64_t max_bytes) {
  QUIRE_ASSIGN_OR_RETURN(InputFile file, InputFile::open(path));
  if (file.size() > max_bytes) {
    return resource_exhausted(path.string() + " has " + std::to_string(file.size()) +
                              " bytes; the limit for this file is " + std::to_string(max_bytes));
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  QUIRE_RETURN_IF_ERROR(file.read(0, file.size(), text.data()));
  return text;
}

}  // namespace quire
