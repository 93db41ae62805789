#include "kaictl/fresh_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

namespace kai {
namespace {

constexpr const char* kCannotWrite = "cannot write the file";

}  // namespace

Outcome<FreshFile> FreshFile::open(const std::string& what, const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return fail("INVALID", what + " " + path + " is there and is no regular file", "Give another name");
  }
  std::string name = path + ".XXXXXX";
  Fd file(mkostemp(name.data(), O_CLOEXEC));
  if (!file && (errno == ENOENT || errno == ENOTDIR)) return no_directory(path);
  const bool forbidden = !file && (errno == EACCES || errno == EROFS);
  if (!file) {
    return local_failure(kCannotWrite, Error{"mkostemp", errno, path},
                         forbidden ? "Give a name in a directory that you may write" : "");
  }
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

tl::unexpected<Failure> FreshFile::is_there(const std::string& path) {
  return fail("CONFLICT", path + " is there already", "Give another name, or --overwrite");
}

tl::unexpected<Failure> FreshFile::no_directory(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return fail("NOT_FOUND", "cannot write " + path + ": there is no directory " + (parent.empty() ? "." : parent),
              "Make it, or give another name");
}

Outcome<> FreshFile::keep_new(const std::string& path) {
  if (fsync(file_.get()) < 0) return local_failure(kCannotWrite, Error{"fsync", errno, name_});
  // A link is refused where the name is taken, on every file system that has links; the other name goes with this.
  if (link(name_.c_str(), path.c_str()) < 0) {
    if (errno == EEXIST) return is_there(path);
    return local_failure(kCannotWrite, Error{"link", errno, path});
  }
  return {};
}

}  // namespace kai
