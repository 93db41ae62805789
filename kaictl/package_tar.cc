#include "kaictl/package_tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <memory>
#include <vector>

#include "base/text.h"
#include "base/unix.h"

namespace kai {
namespace {

struct ArchiveDeleter {
  void operator()(archive* writer) const { archive_write_free(writer); }
};
struct EntryDeleter {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};
struct DirDeleter {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Writer = std::unique_ptr<archive, ArchiveDeleter>;
using Entry = std::unique_ptr<archive_entry, EntryDeleter>;

class Packer {
 public:
  Packer(std::string root, const PackageLimits& limits, Writer writer)
      : root_(std::move(root)), limits_(limits), writer_(std::move(writer)) {}

  /// Packs what is in `directory`, whose place in the package is `prefix`: "" or "lib/".
  Outcome<> pack(Fd directory, const std::string& prefix, int depth);
  Outcome<> finish();

 private:
  Outcome<> pack_one(int directory, const std::string& name, const std::string& prefix, int depth);
  Outcome<> pack_file(int directory, const std::string& name, archive_entry* entry, const struct stat& info);
  Outcome<> pack_link(int directory, const std::string& name, archive_entry* entry);
  Outcome<> write_header(archive_entry* entry);
  [[nodiscard]] std::string shown(const std::string& name) const { return root_ + "/" + name; }
  [[nodiscard]] tl::unexpected<Failure> unreadable(const std::string& name, const Error& error) const {
    return local_failure("cannot read " + shown(name), Error{error.what, error.error_number, ""});
  }

  std::string root_;  // as the operator typed it, for messages
  PackageLimits limits_;
  Writer writer_;
  std::uint64_t bytes_ = 0;
  std::uint64_t entries_ = 0;
};

Result<std::vector<std::string>> sorted_names(int directory) {
  // fdopendir takes the descriptor over, and moves its position: it gets one of its own.
  Fd own(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own) return errno_failure("openat");
  const std::unique_ptr<DIR, DirDeleter> stream(fdopendir(own.get()));
  if (!stream) return errno_failure("fdopendir");
  static_cast<void>(own.release());
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* const found = readdir(stream.get());
    if (found == nullptr) break;
    const std::string name = found->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return errno_failure("readdir");
  std::sort(names.begin(), names.end());
  return names;
}

Outcome<> Packer::pack(Fd directory, const std::string& prefix, int depth) {
  const auto names = sorted_names(directory.get());
  if (!names) return unreadable(prefix, names.error());
  for (const std::string& name : *names) {
    if (auto packed = pack_one(directory.get(), name, prefix, depth); !packed) return packed;
  }
  return {};
}

Outcome<> Packer::pack_one(int directory, const std::string& name, const std::string& prefix, int depth) {
  const std::string path = prefix + name;
  if (++entries_ > limits_.entries) {
    return fail("TOO_LARGE", root_ + " holds more than " + std::to_string(limits_.entries) + " files",
                "Register a directory that holds the agent only");
  }
  if (!is_utf8(path)) return fail("INVALID", "the name of " + shown(path) + " is not UTF-8", "Rename it");
  struct stat info {};
  if (fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
    return unreadable(path, Error{"fstatat", errno, ""});
  }
  const Entry entry(archive_entry_new());
  archive_entry_copy_pathname(entry.get(), path.c_str());
  archive_entry_set_mtime(entry.get(), 0, 0);
  archive_entry_set_uid(entry.get(), 0);
  archive_entry_set_gid(entry.get(), 0);
  archive_entry_set_perm(entry.get(), S_ISREG(info.st_mode) && (info.st_mode & S_IXUSR) == 0 ? 0644 : 0755);
  if (S_ISREG(info.st_mode)) return pack_file(directory, name, entry.get(), info);
  if (S_ISLNK(info.st_mode)) return pack_link(directory, name, entry.get());
  if (!S_ISDIR(info.st_mode)) {
    return fail("INVALID", shown(path) + " is a device, a FIFO or a socket, which no package may hold", "Remove it");
  }
  if (depth >= limits_.depth) {
    return fail("TOO_LARGE", shown(path) + " is more than " + std::to_string(limits_.depth) + " directories deep");
  }
  Fd inner(openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!inner) return unreadable(path, Error{"openat", errno, ""});
  archive_entry_set_filetype(entry.get(), AE_IFDIR);
  if (auto written = write_header(entry.get()); !written) return written;
  return pack(std::move(inner), path + "/", depth + 1);
}

Outcome<> Packer::pack_file(int directory, const std::string& name, archive_entry* entry, const struct stat& info) {
  const std::string path = archive_entry_pathname(entry);
  // O_NONBLOCK: a FIFO put in the file's place meanwhile must not hold us.
  const Fd file(openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) return unreadable(path, Error{"openat", errno, ""});
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size > limits_.bytes - bytes_) {
    return fail("TOO_LARGE", root_ + " is larger than " + std::to_string(limits_.bytes >> 20) + " MB, at " + path,
                "Register a directory that holds the agent only");
  }
  bytes_ += size;
  archive_entry_set_filetype(entry, AE_IFREG);
  archive_entry_set_size(entry, info.st_size);
  if (auto written = write_header(entry); !written) return written;
  std::array<char, 65536> buffer;
  for (std::uint64_t left = size; left > 0;) {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size()));
    const ssize_t count = read(file.get(), buffer.data(), wanted);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return unreadable(path, Error{"read", errno, ""});
    if (count == 0) {
      return local_failure("cannot pack " + shown(path), Error{"it became shorter while it was read", 0, ""},
                           "Try again when nothing writes to it");
    }
    if (archive_write_data(writer_.get(), buffer.data(), static_cast<std::size_t>(count)) != count) {
      return local_failure("cannot pack " + shown(path), Error{archive_error_string(writer_.get()), 0, ""});
    }
    left -= static_cast<std::uint64_t>(count);
  }
  return {};
}

Outcome<> Packer::pack_link(int directory, const std::string& name, archive_entry* entry) {
  const std::string path = archive_entry_pathname(entry);
  std::array<char, PATH_MAX> target;
  const ssize_t length = readlinkat(directory, name.c_str(), target.data(), target.size());
  if (length < 0) return unreadable(path, Error{"readlinkat", errno, ""});
  const std::string text(target.data(), static_cast<std::size_t>(length));
  if (!is_utf8(text)) return fail("INVALID", "the target of the link " + shown(path) + " is not UTF-8", "Rename it");
  archive_entry_set_filetype(entry, AE_IFLNK);
  archive_entry_copy_symlink(entry, text.c_str());
  return write_header(entry);
}

Outcome<> Packer::write_header(archive_entry* entry) {
  // ARCHIVE_WARN is fatal too: a name that could not be stored as it is would be another name for kaid.
  if (archive_write_header(writer_.get(), entry) == ARCHIVE_OK) return {};
  return local_failure("cannot pack " + shown(archive_entry_pathname(entry)),
                       Error{archive_error_string(writer_.get()), 0, ""});
}

Outcome<> Packer::finish() {
  if (archive_write_close(writer_.get()) == ARCHIVE_OK) return {};
  return local_failure("cannot pack " + root_, Error{archive_error_string(writer_.get()), 0, ""});
}

Outcome<Fd> pack_opened(Fd directory, const std::string& shown_as, const PackageLimits& limits) {
  Fd memory(memfd_create("kai-package", MFD_CLOEXEC));
  if (!memory) return local_failure("cannot pack " + shown_as, Error{"memfd_create", errno, ""});
  Writer writer(archive_write_new());
  archive_write_set_format_pax_restricted(writer.get());
  archive_write_add_filter_none(writer.get());
  // Names are stored as the bytes that they are (checked to be UTF-8): libarchive 3.6 would convert them from this
  // process's locale, and crashes where that is C.
  archive_write_set_options(writer.get(), "hdrcharset=BINARY");
  if (archive_write_open_fd(writer.get(), memory.get()) != ARCHIVE_OK) {
    return local_failure("cannot pack " + shown_as, Error{archive_error_string(writer.get()), 0, ""});
  }
  Packer packer(shown_as, limits, std::move(writer));
  if (auto packed = packer.pack(std::move(directory), "", 0); !packed) return tl::unexpected(packed.error());
  if (auto finished = packer.finish(); !finished) return tl::unexpected(finished.error());
  if (lseek(memory.get(), 0, SEEK_SET) < 0) {
    return local_failure("cannot pack " + shown_as, Error{"lseek", errno, ""});
  }
  return memory;
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

Outcome<Fd> pack_directory(const std::string& directory, const PackageLimits& limits) {
  Fd opened(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened) return local_failure("cannot read the package", Error{"open", errno, directory});
  return pack_opened(std::move(opened), without_trailing_slash(directory), limits);
}

Outcome<OpenedPackage> open_package(const std::string& path) {
  Fd opened(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!opened && (errno == ENOENT || errno == ENOTDIR)) {
    return fail("NOT_FOUND", "there is no package at " + path,
                "Give the directory that holds manifest.json, or a .tar.gz of it");
  }
  if (!opened) {
    return local_failure("cannot read the package", Error{"open", errno, path},
                         "Give the directory that holds manifest.json, or a .tar.gz of it");
  }
  struct stat info {};
  if (fstat(opened.get(), &info) < 0) return local_failure("cannot read the package", Error{"fstat", errno, path});
  if (S_ISDIR(info.st_mode)) {
    auto packed = pack_opened(std::move(opened), without_trailing_slash(path), {});
    if (!packed) return tl::unexpected(packed.error());
    return OpenedPackage{std::move(*packed), true};
  }
  if (!S_ISREG(info.st_mode)) {
    return fail("INVALID", path + " is neither a directory nor a file",
                "Give the directory that holds manifest.json, or a .tar.gz of it");
  }
  return OpenedPackage{std::move(opened), false};
}

}  // namespace kai
