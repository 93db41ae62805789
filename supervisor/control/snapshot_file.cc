// The writer, and what it has in common with the reader (snapshot_reader.cc).
#include "supervisor/control/snapshot_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <ctime>
#include <functional>
#include <memory>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "package/sums.h"
#include "supervisor/control/packages_tree.h"

namespace kai {
namespace {

constexpr int kFormat = 1;
constexpr std::size_t kBlock = 128 << 10;
constexpr std::string_view kOwn = ".kai";  // kaid compiles it anew at each registration

/// `take` for each piece of the file, from its start.
Result<> read_pieces(int file, const std::function<Result<>(std::string_view)>& take) {
  std::vector<char> block(kBlock);
  for (off_t at = 0;;) {
    const ssize_t count = pread(file, block.data(), block.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure("read");
    if (count == 0) return {};
    if (auto taken = take({block.data(), static_cast<std::size_t>(count)}); !taken) return taken;
    at += count;
  }
}

/// What is in a package of the store, directories before what they hold.
struct StoredEntry {
  const std::string& path;
  const struct stat& status;
  const std::string& target;  // of a symlink
  int file;                   // of a regular file
};
using Visit = std::function<Result<>(const StoredEntry&)>;

Result<> visit_entry(int directory, const std::string& name, const std::string& path, const Visit& visit);

Result<> visit_directory(int directory, const std::string& prefix, const Visit& visit) {
  auto names = list_directory(directory);
  if (!names) return tl::unexpected(names.error());
  std::sort(names->begin(), names->end());
  for (const std::string& name : *names) {
    if (prefix.empty() && name == kOwn) continue;
    if (auto visited = visit_entry(directory, name, prefix + name, visit); !visited) return visited;
  }
  return {};
}

Result<> visit_entry(int directory, const std::string& name, const std::string& path, const Visit& visit) {
  struct stat status {};
  if (fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) < 0) return errno_failure("stat", path);
  if (S_ISLNK(status.st_mode)) {
    std::array<char, PATH_MAX> target;
    const ssize_t length = readlinkat(directory, name.c_str(), target.data(), target.size());
    if (length < 0) return errno_failure("readlink", path);
    return visit({path, status, std::string(target.data(), static_cast<std::size_t>(length)), -1});
  }
  const bool is_directory = S_ISDIR(status.st_mode);
  if (!is_directory && !S_ISREG(status.st_mode)) return failure("the stored package has what no package has", path);
  const auto opened =
      open_at(directory, name, O_RDONLY | (is_directory ? O_DIRECTORY : 0), RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
  if (!opened) return tl::unexpected(opened.error());
  if (auto visited = visit({path, status, "", is_directory ? -1 : opened->get()}); !visited) return visited;
  return is_directory ? visit_directory(opened->get(), path + "/", visit) : Result<>{};
}

class Writer {
 public:
  Writer() : archive_(archive_write_new(), archive_write_free) {}

  Result<> open(int file);
  Result<> add_text(const std::string& name, std::string_view text);
  Result<> add_file(const std::string& name, int file, mode_t mode);
  Result<> add_package(int package);
  /// SHA256SUMS and the tar's end.
  Result<> finish();

 private:
  Result<> add_header(const std::string& name, mode_t mode, std::uint64_t size, const std::string& target = {});
  Result<> add_bytes(std::string_view bytes);
  Result<> add_entry(const StoredEntry& entry);
  [[nodiscard]] tl::unexpected<Error> failed(const std::string& name) const;

  std::unique_ptr<archive, int (*)(archive*)> archive_;
  const time_t now_ = time(nullptr);
  package::Sums sums_;
};

tl::unexpected<Error> Writer::failed(const std::string& name) const {
  const char* why = archive_error_string(archive_.get());
  return tl::unexpected(Error{"write the snapshot", archive_errno(archive_.get()),
                              why == nullptr ? name : name + " (" + escape_for_terminal(why) + ")"});
}

Result<> Writer::open(int file) {
  // In GNU's format names are the bytes that they are, whatever the locale is; in pax they would be so only with a
  // header for each that tar(1) warns of.
  if (!archive_ || archive_write_set_format_gnutar(archive_.get()) != ARCHIVE_OK ||
      archive_write_open_fd(archive_.get(), file) != ARCHIVE_OK) {
    return failed("its beginning");
  }
  return {};
}

Result<> Writer::add_header(const std::string& name, mode_t mode, std::uint64_t size, const std::string& target) {
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
  archive_entry_copy_pathname(entry.get(), name.c_str());
  archive_entry_set_mode(entry.get(), mode);
  archive_entry_set_mtime(entry.get(), now_, 0);
  archive_entry_set_size(entry.get(), static_cast<la_int64_t>(size));
  if (!target.empty()) archive_entry_copy_symlink(entry.get(), target.c_str());
  if (archive_write_header(archive_.get(), entry.get()) != ARCHIVE_OK) return failed(name);
  return {};
}

Result<> Writer::add_bytes(std::string_view bytes) {
  if (archive_write_data(archive_.get(), bytes.data(), bytes.size()) != static_cast<la_ssize_t>(bytes.size())) {
    return failed("its content");
  }
  return {};
}

Result<> Writer::add_text(const std::string& name, std::string_view text) {
  package::Sha256 sum;
  crypto_hash_sha256(sum.data(), reinterpret_cast<const unsigned char*>(text.data()), text.size());
  sums_.files.emplace(name, sum);
  if (auto added = add_header(name, S_IFREG | 0600, text.size()); !added) return added;
  return add_bytes(text);
}

Result<> Writer::add_file(const std::string& name, int file, mode_t mode) {
  struct stat status {};
  if (fstat(file, &status) < 0) return errno_failure("stat", name);
  auto left = static_cast<std::uint64_t>(status.st_size);
  if (auto added = add_header(name, S_IFREG | mode, left); !added) return added;
  crypto_hash_sha256_state hash;
  crypto_hash_sha256_init(&hash);
  auto read = read_pieces(file, [&](std::string_view bytes) -> Result<> {
    if (bytes.size() > left) return failure("write the snapshot", name + " grew while it was read");
    left -= bytes.size();
    crypto_hash_sha256_update(&hash, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    return add_bytes(bytes);
  });
  if (!read) return read;
  if (left != 0) return failure("write the snapshot", name + " became shorter while it was read");
  package::Sha256 sum;
  crypto_hash_sha256_final(&hash, sum.data());
  sums_.files.emplace(name, sum);
  return {};
}

Result<> Writer::add_entry(const StoredEntry& entry) {
  const std::string name = "package/" + entry.path;
  if (S_ISDIR(entry.status.st_mode)) return add_header(name, S_IFDIR | 0755, 0);
  if (S_ISLNK(entry.status.st_mode)) return add_header(name, S_IFLNK | 0777, 0, entry.target);
  return add_file(name, entry.file, (entry.status.st_mode & S_IXUSR) != 0 ? 0755 : 0644);
}

Result<> Writer::add_package(int package) {
  if (auto added = add_header("package", S_IFDIR | 0755, 0); !added) return added;
  return visit_directory(package, "", [this](const StoredEntry& entry) { return add_entry(entry); });
}

Result<> Writer::finish() {
  const std::string sums = package::format_sums(sums_);
  if (auto added = add_text(std::string(package::kSumsFile), sums); !added) return added;
  if (archive_write_close(archive_.get()) != ARCHIVE_OK) return failed("its end");
  return {};
}

}  // namespace

Result<std::uint64_t> write_snapshot_file(int file, const SnapshotContent& content) {
  Writer writer;
  auto done = writer.open(file);
  if (done) done = writer.add_text("snapshot.json", to_json(content.header) + "\n");
  if (done) done = writer.add_package(content.package.get());
  if (done) done = writer.add_file("memory.jsonl", content.memory.get(), 0600);
  if (done && content.header.has_state) done = writer.add_text("state.json", content.state);
  if (done) done = writer.add_text("policy.yaml", content.policy);
  if (done) done = writer.finish();
  if (!done) return tl::unexpected(done.error());
  if (fsync(file) < 0) return errno_failure("fsync", "the snapshot");
  struct stat status {};
  if (fstat(file, &status) < 0) return errno_failure("stat", "the snapshot");
  return static_cast<std::uint64_t>(status.st_size);
}

Result<Fd> open_backups(const std::string& state_dir) {
  const std::string path = state_dir + "/backups";
  // The keeper makes it where the state directory is not control's own.
  if (mkdir(path.c_str(), 0700) < 0 && errno != EEXIST) return errno_failure("mkdir", path);
  return open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

Result<Fd> scratch_file(int directory) {
  const std::string name = ".scratch-" + new_uuid();
  Fd file(openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return errno_failure("make a file beside the backups");
  if (unlinkat(directory, name.c_str(), 0) < 0) return errno_failure("unlink", name);
  return file;
}

std::string to_json(const SnapshotHeader& header) {
  return nlohmann::ordered_json{
      {"format", kFormat},
      {"id", header.id},
      {"version", header.version},
      {"package", header.package},
      {"signer", header.signer},
      {"createdAt", header.created_at},
      {"kai", header.kai},
      {"policy", header.policy},
      {"hasState", header.has_state},
      {"memory",
       {{"type", header.memory_type}, {"backend", header.memory_backend}, {"entries", header.memory_entries}}}}
      .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<SnapshotHeader> parse_snapshot_header(std::string_view text) {
  const auto bad = [](std::string_view why) { return failure("snapshot.json " + std::string(why)); };
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return bad("is no JSON object");
  const auto format = json.find("format");
  if (format == json.end() || !format->is_number_unsigned()) return bad("has no format");
  if (*format != kFormat) {
    return bad("is of format " + format->dump() + ", and this kaid knows format " + std::to_string(kFormat) +
               " alone: use a newer kaid");
  }
  SnapshotHeader header;
  const auto string = [](const nlohmann::json& object, const char* name, std::string& value) {
    const auto found = object.find(name);
    if (found == object.end() || !found->is_string()) return false;
    value = found->get<std::string>();
    return true;
  };
  for (auto [name, value] :
       {std::pair{"id", &header.id}, std::pair{"version", &header.version}, std::pair{"package", &header.package},
        std::pair{"signer", &header.signer}, std::pair{"createdAt", &header.created_at}, std::pair{"kai", &header.kai},
        std::pair{"policy", &header.policy}}) {
    if (!string(json, name, *value)) return bad("has no " + std::string(name));
  }
  if (!is_agent_id(header.id)) return bad("has an id that is none of an agent's");
  const auto has_state = json.find("hasState");
  if (has_state == json.end() || !has_state->is_boolean()) return bad("has no hasState");
  header.has_state = *has_state;
  const auto memory = json.find("memory");
  if (memory == json.end() || !memory->is_object() || !string(*memory, "type", header.memory_type) ||
      !string(*memory, "backend", header.memory_backend)) {
    return bad("does not say what kind of memory the agent had");
  }
  const auto entries = memory->find("entries");
  if (entries == memory->end() || !entries->is_number_unsigned()) return bad("does not say how much memory there is");
  header.memory_entries = *entries;
  return header;
}

}  // namespace kai
