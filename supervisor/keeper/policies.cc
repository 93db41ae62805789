#include "supervisor/keeper/policies.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "base/unix.h"
#include "proto/keeper.pb.h"

namespace kai::keeper {
namespace {

/// Whoever can write a policy decides what root does.
Result<> only_root_writes(const std::string& path, const struct stat& status) {
  if (status.st_uid != 0) {
    return failure(path + ": belongs to uid " + std::to_string(status.st_uid) +
                   ", who could change what agents may do; as root kaid reads policies of root only: chown root " +
                   path);
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return failure(path + ": its group or everybody can write to it, and so change what agents may do: chmod go-w " +
                   path);
  }
  return {};
}

/// Who can rename one of the directories above can put another in its place.
Result<> check_parents(std::string path) {
  while (path != "/") {
    path.resize(std::max<std::size_t>(path.rfind('/'), 1));
    struct stat status {};
    if (stat(path.c_str(), &status) < 0) return errno_failure("stat", path);
    const bool sticky = (status.st_mode & S_ISVTX) != 0;
    if (status.st_uid != 0) {
      return failure(path + ": is above the policies and belongs to uid " + std::to_string(status.st_uid) +
                     ", who could replace them: chown root " + path + ", or name another directory (policies:)");
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0 && !sticky) {
      return failure(path + ": is above the policies, and others than root can write to it and so replace them: " +
                     "chmod go-w " + path + ", or name another directory (policies:)");
    }
  }
  return {};
}

Result<std::vector<std::string>> names_in(const Fd& directory, const std::string& path) {
  const int copy = fcntl(directory.get(), F_DUPFD_CLOEXEC, 0);
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(copy < 0 ? nullptr : fdopendir(copy), closedir);
  if (!entries) return errno_failure("policies directory", path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name.starts_with('.') || !name.ends_with(".yaml")) continue;  // an editor's, or no policy
    names.emplace_back(name);
    if (names.size() > kMaxPolicyFiles) {
      return failure(path + ": more than " + std::to_string(kMaxPolicyFiles) +
                     " policy files; one file can hold many policies");
    }
  }
  if (errno != 0) return errno_failure("readdir", path);
  std::sort(names.begin(), names.end());
  return names;
}

Result<PolicyFile> read_policy(const Fd& directory, const std::string& path, const std::string& name, bool root) {
  const std::string whole = path + "/" + name;
  const std::string shown = escape_for_terminal(whole);
  if (!is_utf8(name)) return failure(shown + ": the name is not UTF-8; rename it");
  // O_NONBLOCK: a pipe or device of that name does not hold kaid.
  const Fd file(openat(directory.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file && errno == ELOOP) return failure(shown + ": is a symbolic link; put the file itself there");
  if (!file) return errno_failure("open", shown);
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return errno_failure("fstat", shown);
  if (!S_ISREG(status.st_mode)) return failure(shown + ": is not a regular file; move it away");
  if (root) {
    if (auto checked = only_root_writes(shown, status); !checked) return tl::unexpected(checked.error());
  }
  auto text = read_all(file.get(), kMaxPolicyFileBytes);
  if (!text && text.error().error_number == EFBIG) {
    return failure(shown + ": is larger than " + std::to_string(kMaxPolicyFileBytes >> 10) + " KiB; divide it");
  }
  if (!text) return tl::unexpected(Error{"read", text.error().error_number, shown});
  return PolicyFile{name, std::move(*text)};
}

}  // namespace

Result<LoadedPolicies> load_policies(const Config& config, bool root) {
  LoadedPolicies loaded;
  const std::string& path = config.policies_dir;
  const Fd directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory && !(errno == ENOENT && config.default_policies_dir)) return errno_failure("policies directory", path);
  if (directory) {
    struct stat status {};
    if (fstat(directory.get(), &status) < 0) return errno_failure("fstat", path);
    if (root) {
      if (auto checked = only_root_writes(path, status); !checked) return tl::unexpected(checked.error());
      std::array<char, PATH_MAX> resolved{};
      if (realpath(path.c_str(), resolved.data()) == nullptr) return errno_failure("policies directory", path);
      // Both ways down: a link on the first can be replaced where it stands.
      for (const std::string& way : {path, std::string(resolved.data())}) {
        if (auto checked = check_parents(way); !checked) return tl::unexpected(checked.error());
      }
    }
    const auto names = names_in(directory, path);
    if (!names) return tl::unexpected(names.error());
    for (const std::string& name : *names) {
      auto file = read_policy(directory, path, name, root);
      if (!file) return tl::unexpected(file.error());
      loaded.files.push_back(std::move(*file));
    }
  }
  auto parsed = parse_policies(loaded.files, !root);
  // The parser knows the file's name; the operator wants to open it.
  if (!parsed) return tl::unexpected(Error{path + "/" + parsed.error().message(), 0, ""});
  loaded.parsed = std::move(*parsed);
  loaded.parsed.block_everywhere(config.blocked_domains);
  return loaded;
}

Result<Fd> policies_memfd(const std::vector<PolicyFile>& files, const std::vector<GlobalBlock>& blocked) {
  kai::keeper::Policies message;
  for (const PolicyFile& file : files) {
    auto* text = message.add_files();
    text->set_name(file.name);
    text->set_text(file.text);
  }
  for (const GlobalBlock& block : blocked) {
    auto* domain = message.add_blocked_domains();
    domain->set_pattern(block.pattern);
    domain->set_rule(block.rule);
  }
  return sealed_memfd("policies", message.SerializeAsString());
}

}  // namespace kai::keeper
