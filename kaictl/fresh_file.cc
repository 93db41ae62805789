#include "kaictl/fresh_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

namespace kai {
namespace {

constexpr const char* kCannotWrite = "cannot write the export";

}  // namespace

Outcome<FreshFile> FreshFile::open(const std::string& what, const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return fail("INVALID", what + " " + path + " is there and is no regular file", "Give another name");
  }
  std::string name = path + ".XXXXXX";
  Fd file(mkostemp(name.data(), O_CLOEXEC));
  if (!file) return local_failure(kCannotWrite, Error{"mkostemp", errno, name});
  return FreshFile(std::move(file), std::move(name), path);
}

FreshFile::FreshFile(FreshFile&& other) noexcept
    : file_(std::move(other.file_)), name_(std::exchange(other.name_, {})), path_(std::move(other.path_)) {}

FreshFile::~FreshFile() {
  if (!name_.empty()) unlink(name_.c_str());
}

Outcome<> FreshFile::keep() {
  if (fsync(file_.get()) < 0) return local_failure(kCannotWrite, Error{"fsync", errno, name_});
  if (rename(name_.c_str(), path_.c_str()) < 0) return local_failure(kCannotWrite, Error{"rename", errno, path_});
  name_.clear();
  return {};
}

}  // namespace kai
