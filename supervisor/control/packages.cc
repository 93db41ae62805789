#include "supervisor/control/packages.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/packages_reader.h"
#include "supervisor/control/packages_tree.h"

namespace kai {
namespace {

constexpr std::string_view kStaging = ".staging-";
constexpr std::string_view kManifest = "manifest.json";
constexpr std::size_t kNameLength = 64;

bool is_package_name(std::string_view name) {
  return name.size() == kNameLength && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// As the manifest's ids are (contracts.md); nothing that this store makes beside them begins so.
bool is_agent_name(std::string_view name) {
  constexpr std::string_view kLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-";
  return !name.empty() && name.size() <= 64 && name.front() != '.' && name.front() != '_' && name.front() != '-' &&
         name.find_first_not_of(kLetters) == std::string_view::npos;
}

/// `tar czf x.tgz directory` gives a tar with one directory at its top, which is the package then. "": the tar's root
/// is.
Result<std::string> find_top(const PackageEntries& entries) {
  if (entries.contains(kManifest)) return "";
  std::set<std::string> tops;
  for (const auto& [path, entry] : entries) tops.insert(path.substr(0, path.find('/')));
  if (tops.size() == 1 && entries.contains(*tops.begin() + "/" + std::string(kManifest))) return *tops.begin();
  return failure("the package is refused: there is no manifest.json at its root");
}

PackageEntries below(PackageEntries entries, const std::string& top) {
  if (top.empty()) return entries;
  PackageEntries inside;
  for (auto& [path, entry] : entries) {
    if (path.size() > top.size()) inside.emplace(path.substr(top.size() + 1), std::move(entry));
  }
  return inside;
}

Result<> check_symlinks(const PackageEntries& entries) {
  for (const auto& [path, entry] : entries) {
    if (entry.type != PackageEntry::Type::kSymlink) continue;
    if (auto checked = check_symlink(path, entry.target); !checked) return checked;
  }
  return {};
}

}  // namespace

Result<PackageStore> PackageStore::open(const std::string& directory) {
  if (sodium_init() < 0) return failure("sodium_init");
  if (mkdir(directory.c_str(), 0755) == 0) {
    if (chmod(directory.c_str(), 0755) < 0) return errno_failure("chmod", directory);
  } else if (errno != EEXIST) {
    return errno_failure("make the package store", directory);
  }
  Fd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return errno_failure("open the package store", directory);
  const auto names = list_directory(opened.get());
  if (!names) return tl::unexpected(names.error());
  for (const std::string& name : *names) {
    if (!name.starts_with(kStaging)) continue;
    if (auto removed = remove_tree(opened.get(), name); !removed) return tl::unexpected(removed.error());
  }
  return PackageStore(std::move(opened));
}

Result<StagedPackage> PackageStore::stage(int tar, const PackageLimits& limits) const {
  struct stat status {};
  if (fstat(tar, &status) < 0) return errno_failure("stat", "the package");
  if (!S_ISREG(status.st_mode)) return failure("the package is refused: its tar is not a regular file");
  if (lseek(tar, 0, SEEK_SET) < 0) return errno_failure("lseek", "the package");

  StagedPackage package;
  package.store_ = Fd(fcntl(directory_.get(), F_DUPFD_CLOEXEC, 0));
  if (!package.store_) return errno_failure("dup");
  const std::string name = std::string(kStaging) + new_uuid();
  if (auto made = make_directory(directory_.get(), name); !made) return tl::unexpected(made.error());
  package.name_ = name;
  auto root = open_directory(directory_.get(), name);
  if (!root) return tl::unexpected(root.error());

  auto entries = PackageReader(root->get(), limits).read(tar);
  if (!entries) return tl::unexpected(entries.error());
  auto top = find_top(*entries);
  if (!top) return tl::unexpected(top.error());
  package.entries_ = below(std::move(*entries), *top);
  package.top_ = std::move(*top);
  auto inside = open_directory(root->get(), package.top_);
  if (!inside) return tl::unexpected(inside.error());
  package.root_ = std::move(*inside);

  if (auto checked = check_symlinks(package.entries_); !checked) return tl::unexpected(checked.error());
  if (!package.has_file(kManifest)) return refused(kManifest, "is not a regular file");
  auto manifest = package.read(kManifest, kMaxManifestBytes);
  if (!manifest) return tl::unexpected(manifest.error());
  package.manifest_ = std::move(**manifest);
  return package;
}

Result<std::string> PackageStore::seal(StagedPackage package, const std::string& agent_id) const {
  const std::string name = package.content_name();
  // What is there needs neither the disk nor this copy to be on it.
  if (has(agent_id, name)) return name;
  const auto of_agent = agent_directory(agent_id, true);
  if (!of_agent) return tl::unexpected(of_agent.error());
  // One call for up to 100,000 files: an fsync each would take minutes.
  if (syncfs(package.root_.get()) < 0) return errno_failure("syncfs", "the package store");
  const std::string from = package.top_.empty() ? package.name_ : package.name_ + "/" + package.top_;
  // Onto a directory that is not empty it fails: the same content is there already.
  if (renameat(directory_.get(), from.c_str(), of_agent->get(), name.c_str()) < 0) {
    if (errno != EEXIST && errno != ENOTEMPTY) return errno_failure("rename", name);
  }
  if (fsync(of_agent->get()) < 0) return errno_failure("fsync", "the package store");
  return name;
}

/// Of one agent's versions.
Result<Fd> PackageStore::agent_directory(const std::string& agent_id, bool make) const {
  if (!is_agent_name(agent_id)) {
    return failure("open the package store", escape_for_terminal(agent_id) + ": is no agent's name");
  }
  if (make && mkdirat(directory_.get(), agent_id.c_str(), 0755) == 0) {
    if (fchmodat(directory_.get(), agent_id.c_str(), 0755, 0) < 0) return errno_failure("chmod", agent_id);
    if (fsync(directory_.get()) < 0) return errno_failure("fsync", "the package store");
  } else if (make && errno != EEXIST) {
    return errno_failure("mkdir", agent_id);
  }
  return open_directory(directory_.get(), agent_id);
}

Result<std::vector<std::string>> PackageStore::list() const {
  const auto agents = list_directory(directory_.get());
  if (!agents) return tl::unexpected(agents.error());
  std::vector<std::string> found;
  for (const std::string& agent : *agents) {
    if (!is_agent_name(agent)) continue;
    const auto directory = agent_directory(agent, false);
    if (!directory) return tl::unexpected(directory.error());
    const auto names = list_directory(directory->get());
    if (!names) return tl::unexpected(names.error());
    for (const std::string& name : *names) {
      if (is_package_name(name)) found.push_back(agent + "/" + name);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool PackageStore::has(const std::string& agent_id, const std::string& name) const {
  if (!is_package_name(name)) return false;
  const auto of_agent = agent_directory(agent_id, false);
  return of_agent && open_directory(of_agent->get(), name);
}

Result<std::uint64_t> PackageStore::size(const std::string& agent_id, const std::string& name) const {
  if (!is_package_name(name)) return 0;
  const auto of_agent = agent_directory(agent_id, false);
  if (!of_agent && of_agent.error().error_number == ENOENT) return 0;
  if (!of_agent) return tl::unexpected(of_agent.error());
  return tree_size(of_agent->get(), name);
}

Result<> PackageStore::remove(const std::string& agent_id, const std::string& name) const {
  const auto aside = set_aside(agent_id, name);
  if (!aside) return tl::unexpected(aside.error());
  return aside->empty() ? Result<>() : remove_aside(*aside);
}

/// Under its own name a package is whole or not there at all, whenever the machine stops.
Result<std::string> PackageStore::set_aside(const std::string& agent_id, const std::string& name) const {
  if (!is_package_name(name)) return failure("remove a package", escape_for_terminal(name) + ": is no package's name");
  const auto of_agent = agent_directory(agent_id, false);
  if (!of_agent && of_agent.error().error_number == ENOENT) return "";
  if (!of_agent) return tl::unexpected(of_agent.error());
  const std::string aside = std::string(kStaging) + new_uuid();
  if (renameat(of_agent->get(), name.c_str(), directory_.get(), aside.c_str()) < 0) {
    if (errno == ENOENT) return "";
    return errno_failure("rename", name);
  }
  return aside;
}

Result<> PackageStore::remove_aside(const std::string& aside) const {
  if (!aside.starts_with(kStaging))
    return failure("remove a package", escape_for_terminal(aside) + ": was not set aside");
  return remove_tree(directory_.get(), aside);
}

PackageStore::Hold PackageStore::hold(const std::string& agent_id, const std::string& name) const {
  std::erase_if(holds_, [](const auto& each) { return each.second.expired(); });
  const std::string key = agent_id + "/" + name;
  auto& known = holds_[key];
  Hold hold = known.lock();
  if (!hold) {
    hold = std::make_shared<const std::string>(key);
    known = hold;
  }
  return hold;
}

bool PackageStore::held(const std::string& agent_id, const std::string& name) const {
  const auto found = holds_.find(agent_id + "/" + name);
  return found != holds_.end() && !found->second.expired();
}

Result<> PackageStore::remove_unreferenced(const std::set<std::string>& keep) const {
  if (auto taken = take_in_flat(keep); !taken) return taken;
  const auto names = list();
  if (!names) return tl::unexpected(names.error());
  for (const std::string& name : *names) {
    if (keep.contains(name)) continue;
    const auto [agent, package] = split_path(name);
    if (auto removed = remove(agent, package); !removed) return removed;
  }
  // Nobody stages now; an agent's directory that is not empty stays.
  const auto agents = list_directory(directory_.get());
  if (!agents) return tl::unexpected(agents.error());
  for (const std::string& agent : *agents) {
    if (is_agent_name(agent)) static_cast<void>(unlinkat(directory_.get(), agent.c_str(), AT_REMOVEDIR));
  }
  return {};
}

/// A package's content names its agent, so that each belongs to one.
Result<> PackageStore::take_in_flat(const std::set<std::string>& keep) const {
  for (const std::string& each : keep) {
    const auto [agent, name] = split_path(each);
    if (!is_package_name(name) || has(agent, name)) continue;
    const std::string manifest = name + "/" + std::string(kManifest);
    if (faccessat(directory_.get(), manifest.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) < 0) continue;
    const auto of_agent = agent_directory(agent, true);
    if (!of_agent) return tl::unexpected(of_agent.error());
    if (renameat(directory_.get(), name.c_str(), of_agent->get(), name.c_str()) < 0) {
      return errno_failure("rename", name);
    }
    if (fsync(of_agent->get()) < 0) return errno_failure("fsync", "the package store");
  }
  const auto names = list_directory(directory_.get());
  if (!names) return tl::unexpected(names.error());
  for (const std::string& name : *names) {
    const std::string manifest = name + "/" + std::string(kManifest);
    if (!is_package_name(name) || faccessat(directory_.get(), manifest.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) < 0)
      continue;
    if (auto removed = remove_tree(directory_.get(), name); !removed) return removed;
  }
  return {};
}

}  // namespace kai
