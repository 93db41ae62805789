// A file that is written beside its place and moved there when it is whole: what was there before is replaced then, and
// stays when anything fails.
#pragma once

#include <string>

#include "base/fd.h"
#include "kaictl/failure.h"

namespace kai {

class FreshFile {
 public:
  /// Readable and writable by its owner only, in the directory of `path`. INVALID where something else than a regular
  /// file has that name: a name like /dev/stdout is no place for a rename. no_directory() where that is missing.
  /// `what`: "--file", "FILE".
  static Outcome<FreshFile> open(const std::string& what, const std::string& path);
  FreshFile(FreshFile&& other) noexcept;
  FreshFile& operator=(FreshFile&&) = delete;
  /// Removes it, unless it was moved to its place.
  ~FreshFile();

  [[nodiscard]] int fd() const { return file_.get(); }
  /// It is on the disk and in its place.
  Outcome<> keep();
  /// The same at `path`, of the same directory, where nothing has that name yet; else is_there().
  Outcome<> keep_new(const std::string& path);
  [[nodiscard]] static tl::unexpected<Failure> is_there(const std::string& path);
  /// NOT_FOUND.
  [[nodiscard]] static tl::unexpected<Failure> no_directory(const std::string& path);

 private:
  FreshFile(Fd file, std::string name, std::string path)
      : file_(std::move(file)), name_(std::move(name)), path_(std::move(path)) {}
  Fd file_;
  std::string name_;  // empty: it is not ours to remove any more
  std::string path_;
};

}  // namespace kai
