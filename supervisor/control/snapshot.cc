#include "supervisor/control/snapshot.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json_check.h"
#include "base/text.h"
#include "base/unix.h"
#include "policies/explain.h"
#include "policies/manifest_names.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/packages_tree.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/snapshot_file.h"
#include "supervisor/memory/memory_export.h"

namespace kai {
namespace {

constexpr std::string_view kUnfinished = ".new-";
constexpr std::string_view kBackup = ".tar";
constexpr std::size_t kMaxVersionInName = 128;

Failure cannot_write(const std::string& id, const Error& error) {
  return {"INTERNAL",
          "the snapshot of agent '" + id + "' could not be written: " + error.message(),
          "Nothing of it is kept; see that the disks of the state directory and of the file have room, and try again",
          {},
          false};
}

/// The same open file: whoever gets it closes his own.
Result<Fd> duplicate(int file) {
  Fd copy(fcntl(file, F_DUPFD_CLOEXEC, 0));
  if (!copy) return errno_failure("dup");
  return copy;
}

/// One snapshot, held by the callbacks of whatever step it is in.
class SnapshotWriting : public std::enable_shared_from_this<SnapshotWriting> {
 public:
  using Done = std::function<void(Outcome<std::string>)>;

  SnapshotWriting(Environment& environment, Agent& agent, Fd file, Done done)
      : environment_(environment),
        agent_(agent),
        alive_(agent.alive()),
        id_(agent.row().id),
        file_(std::move(file)),
        done_(std::move(done)) {}

  /// What is asked of an agent that ends meanwhile may be dropped without a word.
  ~SnapshotWriting() {
    if (!done_ || alive_.expired()) return;
    environment_.loop.defer([&agent = agent_, alive = alive_, held = held_, id = id_, done = std::move(done_)] {
      if (held && !alive.expired()) agent.release_messages();
      done(refuse("UNAVAILABLE", "agent '" + id + "' ended while its snapshot was being taken",
                  "Try again: see 'kaictl status " + id + "'"));
    });
  }
  SnapshotWriting(const SnapshotWriting&) = delete;
  SnapshotWriting& operator=(const SnapshotWriting&) = delete;

  void start() {
    environment_.loop.work(
        [self = shared_from_this(), state_dir = environment_.hello.state_dir()] {
          const auto backups = open_backups(state_dir);
          self->memory_ = backups ? scratch_file(backups->get()) : tl::unexpected(backups.error());
        },
        [self = shared_from_this()] { self->take_state(); });
  }

 private:
  void take_state() {
    if (!memory_) return fail(cannot_write(id_, memory_.error()));
    if (alive_.expired()) return fail(not_registered(id_));
    const State state = agent_.state();
    if (state == State::kStarting || state == State::kStopping) {
      return fail({"BUSY",
                   "agent '" + id_ + "' is " + std::string(to_string(state)),
                   "Take the snapshot when it has come to rest or serves: kaictl status " + id_,
                   {},
                   true});
    }
    if (state == State::kRunning) {
      held_ = true;
      return agent_.save_state(
          [self = shared_from_this()](const Outcome<std::string>& saved) { self->on_state(saved); });
    }
    // A state that was brought back and has not been given to the agent yet.
    const auto waiting = environment_.registry.saved_state(id_);
    if (!waiting) return fail(cannot_write(id_, waiting.error()));
    on_state(*waiting);
  }

  void on_state(const Outcome<std::string>& saved) {
    // Somebody else has it hold its requests, and releases them.
    if (!saved && saved.error().code == "CONFLICT") held_ = false;
    if (!saved) return fail(saved.error());
    if (alive_.expired()) return fail(not_registered(id_));
    if (saved->size() > kMaxSnapshotState || (!saved->empty() && !is_json(*saved))) {
      return fail({"AGENT_ERROR",
                   "what saveState of agent '" + id_ + "' gave is no JSON of at most " +
                       std::to_string(kMaxSnapshotState >> 10) + " KB",
                   "Mend the agent, or stop it and take the snapshot then, which is without state",
                   {},
                   false});
    }
    if (*saved != "null") content_.state = *saved;
    describe();
    auto file = duplicate(memory_->get());
    if (!file) return fail(cannot_write(id_, file.error()));
    agent_.memory().save(std::move(*file), [self = shared_from_this()](const MemoryOutcome<>& memory) {
      // Not from within the store, whose end may be what calls.
      self->environment_.loop.defer([self, memory] { self->on_memory(memory); });
    });
  }

  void describe() {
    const RegisteredVersion& active = agent_.row().active;
    const Manifest& manifest = agent_.manifest();
    content_.header = {
        .id = id_,
        .version = active.version,
        .package = active.package,
        .signer = active.signer,
        .created_at = iso_now(),
        .kai = KAI_VERSION,
        .policy = agent_.policy().name,
        .has_state = !content_.state.empty(),
        .memory_type = std::string(manifest::name_of<MemoryType>(manifest::kMemoryTypes, manifest.memory.type)),
        .memory_backend =
            std::string(manifest::name_of<MemoryBackend>(manifest::kMemoryBackends, manifest.memory.backend))};
    content_.policy = snapshot_policy(manifest, agent_.policy());
    package_ = environment_.packages.hold(id_, active.package);
  }

  void on_memory(const MemoryOutcome<>& memory) {
    release();
    if (!alive_.expired() && agent_.idle()) agent_.memory().release();
    if (!memory) return fail(memory_failure(id_, memory.error()));
    environment_.loop.work(
        [self = shared_from_this(), state_dir = environment_.hello.state_dir()] {
          self->bytes_ = self->write(state_dir + "/packages/" + self->id_ + "/" + self->content_.header.package);
        },
        [self = shared_from_this()] { self->on_written(); });
  }

  /// On a worker thread.
  Result<std::uint64_t> write(const std::string& package) {
    auto opened = open_at(AT_FDCWD, package, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!opened) return tl::unexpected(opened.error());
    content_.package = std::move(*opened);
    if (lseek(memory_->get(), 0, SEEK_SET) < 0) return errno_failure("lseek", "the memory");
    auto copy = duplicate(memory_->get());
    if (!copy) return tl::unexpected(copy.error());
    const auto counted = MemoryExportReader::open(std::move(*copy));
    if (!counted) return tl::unexpected(counted.error());
    content_.header.memory_entries = counted->total().entries;
    content_.memory = std::move(*memory_);
    return write_snapshot_file(file_.get(), content_);
  }

  void on_written() {
    if (!bytes_) return fail(cannot_write(id_, bytes_.error()));
    const SnapshotHeader& header = content_.header;
    std::exchange(done_, nullptr)(nlohmann::ordered_json{
        {"id", id_},
        {"version", header.version},
        {"bytes", *bytes_},
        {"memoryEntries", header.memory_entries},
        {"state", header.has_state}}.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  }

  void release() {
    if (std::exchange(held_, false) && !alive_.expired()) agent_.release_messages();
  }

  void fail(const Failure& failure) {
    release();
    std::exchange(done_, nullptr)(tl::unexpected(failure));
  }

  Environment& environment_;
  Agent& agent_;  // as long as alive_ has not expired
  std::weak_ptr<bool> alive_;
  const std::string id_;
  Fd file_;
  Done done_;
  Result<Fd> memory_;  // what it keeps, as `kaictl memory export` writes it
  bool held_ = false;  // requests wait
  SnapshotContent content_;
  PackageStore::Hold package_;  // nobody prunes it meanwhile
  Result<std::uint64_t> bytes_;
};

/// STATE/backups/ID. Nobody but kaid writes there, and what it left half done is removed.
Result<Fd> open_backups_of(const std::string& state_dir, const std::string& id) {
  const auto backups = open_backups(state_dir);
  if (!backups) return tl::unexpected(backups.error());
  if (mkdirat(backups->get(), id.c_str(), 0700) < 0 && errno != EEXIST) return errno_failure("mkdir", "backups/" + id);
  auto own = open_at(backups->get(), id, O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
  if (!own) return own;
  const auto names = list_directory(own->get());
  if (!names) return tl::unexpected(names.error());
  for (const std::string& name : *names) {
    if (name.starts_with(kUnfinished)) static_cast<void>(unlinkat(own->get(), name.c_str(), 0));
  }
  return own;
}

/// VERSION-TIME.tar: by time, the newest last.
Result<> remove_oldest(int directory) {
  auto names = list_directory(directory);
  if (!names) return tl::unexpected(names.error());
  std::erase_if(*names, [](const std::string& name) { return !name.ends_with(kBackup) || name.starts_with('.'); });
  const auto time = [](const std::string& name) { return name.substr(name.rfind('-') + 1); };
  std::sort(names->begin(), names->end(),
            [&](const std::string& one, const std::string& other) { return time(one) < time(other); });
  for (std::size_t at = 0; at + kKeptBackups < names->size(); ++at) {
    if (unlinkat(directory, (*names)[at].c_str(), 0) < 0) return errno_failure("remove an old backup", (*names)[at]);
  }
  return {};
}

/// 2026-05-04T13:00:00.000Z as 20260504T130000.000Z.
std::string compact_time() {
  std::string time = iso_now();
  std::erase_if(time, [](char c) { return c == '-' || c == ':'; });
  return time;
}

class Backup : public std::enable_shared_from_this<Backup> {
 public:
  Backup(Environment& environment, Agent& agent, SnapshotWriting::Done done)
      : environment_(environment),
        agent_(agent),
        alive_(agent.alive()),
        id_(agent.row().id),
        name_(std::string(clip_utf8(agent.row().active.version, kMaxVersionInName)) + "-" + compact_time() +
              std::string(kBackup)),
        unfinished_(std::string(kUnfinished) + new_uuid()),
        done_(std::move(done)) {}

  void start() {
    environment_.loop.work([self = shared_from_this()] { self->file_ = self->make_file(); },
                           [self = shared_from_this()] { self->write(); });
  }

 private:
  Result<Fd> make_file() {
    auto directory = open_backups_of(environment_.hello.state_dir(), id_);
    if (!directory) return directory;
    directory_ = std::move(*directory);
    return kai::make_file(directory_.get(), unfinished_);
  }

  void write() {
    if (!file_) return done_(tl::unexpected(cannot_write(id_, file_.error())));
    if (alive_.expired()) return finish(tl::unexpected(not_registered(id_)));
    write_snapshot(environment_, agent_, std::move(*file_),
                   [self = shared_from_this()](const Outcome<std::string>& written) { self->finish(written); });
  }

  void finish(const Outcome<std::string>& written) {
    environment_.loop.work(
        [self = shared_from_this(), whole = written.has_value()] { self->kept_ = self->keep(whole); },
        [self = shared_from_this(), written] {
          if (!written) return self->done_(tl::unexpected(written.error()));
          if (!self->kept_) return self->done_(tl::unexpected(cannot_write(self->id_, self->kept_.error())));
          self->done_(self->environment_.hello.state_dir() + "/backups/" + self->id_ + "/" + self->name_);
        });
  }

  Result<> keep(bool whole) {
    if (whole && renameat(directory_.get(), unfinished_.c_str(), directory_.get(), name_.c_str()) == 0) {
      if (fsync(directory_.get()) < 0) return errno_failure("fsync", "the backups of " + id_);
      return remove_oldest(directory_.get());
    }
    auto failed = errno_failure("rename", name_);
    static_cast<void>(unlinkat(directory_.get(), unfinished_.c_str(), 0));
    return failed;
  }

  Environment& environment_;
  Agent& agent_;  // as long as alive_ has not expired
  std::weak_ptr<bool> alive_;
  const std::string id_, name_, unfinished_;
  SnapshotWriting::Done done_;
  Fd directory_;
  Result<Fd> file_;
  Result<> kept_;
};

}  // namespace

void write_snapshot(Environment& environment, Agent& agent, Fd file, std::function<void(Outcome<std::string>)> done) {
  std::make_shared<SnapshotWriting>(environment, agent, std::move(file), std::move(done))->start();
}

void write_backup(Environment& environment, Agent& agent, std::function<void(Outcome<std::string>)> done) {
  std::make_shared<Backup>(environment, agent, std::move(done))->start();
}

void remove_backups(Environment& environment, const std::string& id, std::function<void(const Result<>&)> done) {
  const auto removed = std::make_shared<Result<>>();
  environment.loop.work(
      [removed, id, state_dir = environment.hello.state_dir()] {
        const auto backups = open_backups(state_dir);
        *removed = backups ? remove_tree(backups->get(), id) : tl::unexpected(backups.error());
      },
      [removed, done = std::move(done)] { done(*removed); });
}

std::string snapshot_policy(const Manifest& manifest, const Policy& policy) {
  const auto compiled = compile(manifest, policy, {"unnamed", {}});
  if (!compiled) return "# policy " + policy.name + " refuses it: " + compiled.error().message() + "\n";
  const auto document = nlohmann::ordered_json::parse(explain_json(*compiled, policy, {}));
  return document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace kai
