// kaictl restore.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/package_intake.h"
#include "supervisor/control/packages_signature.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/snapshot.h"
#include "supervisor/control/snapshot_file.h"
#include "supervisor/memory/memory_export.h"

namespace kai {
namespace {

/// A memory's lines against its quota, in bytes: escapes make six of one at most, and an entry has 64 at least, which
/// is what a line's own words have too.
constexpr std::uint64_t kLinesPerQuota = 8;
constexpr std::uint64_t kLinesBeside = 64ULL << 20;

Failure unreadable(const Error& error) {
  if (error.error_number == 0) {
    return {"INVALID", error.message(), "Name a file that 'kaictl snapshot' or an upgrade's backup wrote", {}, false};
  }
  return {"INTERNAL",
          "the snapshot could not be read: " + error.message() + "; nothing was changed",
          "See that the disk of the state directory has room, and try again",
          {},
          false};
}

/// One restore, held by the callbacks of whatever step it is in. What can fail comes first: the file, the package and
/// its signature, then the memory, which is replaced as a whole or not at all; the registry last.
class Restore : public std::enable_shared_from_this<Restore> {
 public:
  Restore(Operations& operations, Responder responder)
      : operations_(operations), environment_(operations.environment), responder_(std::move(responder)) {}

  void start(Fd file) {
    responder_.progress("reading the snapshot");
    std::uint32_t most = 0;
    for (const Policy& policy : environment_.policies.all().policies) {
      most = std::max(most, policy.limits.memory_store_mb);
    }
    SnapshotLimits limits;
    limits.memory_bytes = (std::uint64_t{most} << 20) * kLinesPerQuota + kLinesBeside;
    environment_.loop.work(
        [self = shared_from_this(), limits, kept = std::make_shared<Fd>(std::move(file)),
         state_dir = environment_.hello.state_dir()] {
          if (auto read = self->read(state_dir, kept->get(), limits); !read)
            self->parts_ = tl::unexpected(read.error());
        },
        [self = shared_from_this()] { self->on_read(); });
  }

 private:
  /// On a worker thread.
  Result<> read(const std::string& state_dir, int file, const SnapshotLimits& limits) {
    const auto backups = open_backups(state_dir);
    if (!backups) return tl::unexpected(backups.error());
    parts_ = read_snapshot_file(file, backups->get(), limits);
    if (!parts_) return {};
    Fd copy(fcntl(parts_->memory.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy) return errno_failure("dup");
    const auto memory = MemoryExportReader::open(std::move(copy));
    if (!memory) return failure("the snapshot is refused: memory.jsonl: " + memory.error().message());
    if (memory->header().agent_id != parts_->header.id || memory->total().entries != parts_->header.memory_entries) {
      return failure("the snapshot is refused: memory.jsonl is not the memory that snapshot.json tells of");
    }
    if (lseek(parts_->memory.get(), 0, SEEK_SET) < 0) return errno_failure("lseek", "memory.jsonl");
    return {};
  }

  void on_read() {
    if (!parts_) return fail(unreadable(parts_.error()));
    const SnapshotHeader& header = parts_->header;
    if (!operations_.restoring.insert(header.id).second) {
      return fail(
          {"CONFLICT", "agent '" + header.id + "' is being restored already", "Wait for that one to end", {}, false});
    }
    id_ = header.id;
    if (operations_.stopping) return fail({"UNAVAILABLE", "kaid is stopping", "Start kaid again", {}, true});
    if (const auto refused = in_service()) return fail(*refused);
    if (Agent* agent = operations_.agents.find(id_)) {
      claim_ = agent->claim();
      if (!claim_) return fail(occupied(id_));
    }
    take_package_in();
  }

  /// What is in the archive, byte for byte, was accepted before.
  void take_package_in() {
    PackageSource source{std::move(parts_->package_tar), true, responder_.uid(), true};
    take_package(
        environment_, std::move(source),
        [responder = responder_](const std::string& text) { responder.progress(text); },
        [self = shared_from_this()](Outcome<Intake> taken) { self->on_taken(std::move(taken)); });
  }

  void on_taken(Outcome<Intake> taken) {
    if (!taken) return fail(taken.error());
    intake_ = std::move(*taken);
    const PolicyRef policy = environment_.policies.for_agent(intake_.manifest.id);
    if (const auto refused = refusal(*policy)) {
      drop_package(environment_, std::move(intake_));
      return fail(*refused);
    }
    if (snapshot_policy(intake_.manifest, *policy) != parts_->policy) {
      intake_.warnings.push_back("the policy of now (" + policy->name + ") is not word for word the one that held (" +
                                 escape_for_terminal(parts_->header.policy) +
                                 "): compare policy.yaml in the snapshot with 'kaictl policy explain " + id_ + "'");
    }
    responder_.progress("bringing back the memory of " + id_);
    open_memory(policy);
  }

  [[nodiscard]] std::optional<Failure> refusal(const Policy& policy) {
    if (intake_.manifest.id != id_ || intake_.manifest.version != parts_->header.version) {
      return Failure{"INVALID",
                     "the snapshot is refused: snapshot.json names " + id_ + " " +
                         escape_for_terminal(parts_->header.version) + ", and its package is " + intake_.manifest.id +
                         " " + intake_.manifest.version + "; nothing was changed",
                     {},
                     {},
                     false};
    }
    if (auto refused = in_service()) return refused;
    const Agent* agent = operations_.agents.find(id_);
    if (agent == nullptr) return std::nullopt;
    const auto versions = environment_.registry.versions(id_);
    if (!versions) {
      return Failure{"INTERNAL", "the registry could not be read: " + versions.error().message(), {}, {}, false};
    }
    const bool archived = std::any_of(versions->begin(), versions->end(), [this](const RegisteredVersion& each) {
      return each.package == intake_.version.package;
    });
    if (archived) return std::nullopt;
    const auto may = may_change_signer(id_, agent->row().active.signer, intake_.version.signer, policy);
    return may ? std::nullopt : std::optional(may.error());
  }

  /// An agent that is here keeps its context, for others may look into it at the same time.
  void open_memory(const PolicyRef& policy) {
    Agent* agent = operations_.agents.find(id_);
    was_known_ = agent != nullptr;
    if (!was_known_)
      memory_ = std::make_unique<MemoryContext>(environment_.memory, id_, intake_.manifest.memory, policy);
    MemoryContext& memory = was_known_ ? agent->memory() : *memory_;
    memory.configure(intake_.manifest.memory, policy);
    // How much goes is recorded; what cannot be opened is replaced all the same.
    memory.prepare([self = shared_from_this()](const MemoryOutcome<>&) {
      Agent* still = self->operations_.agents.find(self->id_);
      if (self->was_known_ && still == nullptr) return self->fail(not_registered(self->id_));
      MemoryContext& opened = self->was_known_ ? still->memory() : *self->memory_;
      self->had_ = opened.usage();
      // Not from within the store: what comes next may end it, and it may be its end that calls.
      opened.restore(std::move(self->parts_->memory), [self](const MemoryOutcome<>& restored) {
        self->environment_.loop.defer([self, restored] { self->on_memory(restored); });
      });
    });
  }

  void on_memory(const MemoryOutcome<>& restored) {
    Agent* agent = operations_.agents.find(id_);
    if (!restored) {
      if (was_known_ && agent != nullptr) {
        agent->memory().configure(agent->manifest().memory, environment_.policies.for_agent(id_));
      }
      drop_package(environment_, std::move(intake_));
      Failure failure = memory_failure(id_, restored.error());
      failure.message += "; nothing was changed";
      return fail(failure);
    }
    if (agent != nullptr ? !was_known_ || !agent->idle() : was_known_) {
      return half_done("CONFLICT", "it was started, registered or unregistered by somebody else meanwhile");
    }
    const auto put = operations_.agents.put(intake_.manifest, intake_.version);
    if (!put) {
      const std::string why = "the registry could not be written: " + put.error().message();
      return was_known_ ? half_done("INTERNAL", why) : take_back(why);
    }
    if (!was_known_) (*put)->memory().keep_what_is_there();
    // Of none, too: the one that another version left must not be given to this one.
    const auto saved = environment_.registry.set_saved_state(id_, parts_->state);
    const auto synced = saved ? environment_.registry.sync() : saved;
    if (!synced) {
      report(**put);
      return fail({"INTERNAL",
                   "agent '" + id_ + "' is restored as version " + intake_.version.version +
                       " with its memory, but the state that it had saved is not: " + synced.error().message(),
                   "Restore it again before it is started",
                   {},
                   false},
                  true);
    }
    acknowledge(**put);
  }

  /// An agent that is registered has the snapshot's memory, and nothing else of it.
  void half_done(std::string code, const std::string& why) {
    report_memory();
    drop_package(environment_, std::move(intake_));
    fail({std::move(code),
          "agent '" + id_ + "' is not restored: " + why +
              ". Its memory is the snapshot's by now; its version and the state that it had saved are as they were",
          "Stop it (kaictl stop " + id_ + ") and restore it again",
          {},
          false},
         true);
  }

  /// Of an agent that is not registered, nothing stays.
  void take_back(const std::string& why) {
    memory_->purge([self = shared_from_this(), why](const MemoryOutcome<MemoryUsage>& purged) {
      const std::string left =
          purged ? "nothing was changed" : "its memory was written already and stays: " + purged.error().message();
      self->environment_.loop.defer(
          [self, message = "agent '" + self->id_ + "' is not restored: " + why + "; " + left] {
            drop_package(self->environment_, std::move(self->intake_));
            self->fail({"INTERNAL", message, "Mend that and restore it again", {}, false});
          });
    });
  }

  void report_memory() {
    const std::array fields = {LogField("memoryEntries", had_.entries), LogField("memoryBytes", had_.bytes),
                               LogField("importedEntries", parts_->header.memory_entries),
                               LogField("operatorUid", responder_.uid())};
    constexpr std::string_view kWhat = "an operator replaced its memory by a snapshot's";
    environment_.log.write(LogLevel::kInfo, id_, "kai.purged", kWhat, {fields[0], fields[1], fields[2], fields[3]});
    environment_.audit.append(id_, "kai.purged", fields_json(kWhat, fields));
  }

  void acknowledge(Agent& agent) {
    report(agent);
    if (agent.idle()) agent.memory().release();
    // The first start finds its description ready.
    static_cast<void>(agent.prepared());
    operations_.restoring.erase(id_);
    environment_.audit.when_durable([self = shared_from_this()](const Result<>& durable) {
      if (!durable) return self->responder_.fail(not_recorded(durable.error()));
      self->responder_.done(self->document(), self->intake_.warnings, self->text());
    });
  }

  void report(const Agent& agent) {
    if (had_.entries > 0) report_memory();
    const SnapshotHeader& header = parts_->header;
    const std::array fields = {LogField("restored", true),
                               LogField("version", intake_.version.version),
                               LogField("package", intake_.version.package),
                               LogField("snapshotOf", header.created_at),
                               LogField("memoryEntries", header.memory_entries),
                               LogField("savedState", header.has_state),
                               LogField("operatorUid", responder_.uid()),
                               LogField("state", to_string(agent.state()))};
    constexpr std::string_view kWhat = "an operator restored it from a snapshot";
    environment_.log.write(LogLevel::kInfo, id_, "registered", kWhat,
                           {fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6]});
    environment_.audit.append(id_, "registered", fields_json(kWhat, fields));
    for (const std::string& warning : intake_.warnings) {
      environment_.log.write(LogLevel::kWarn, id_, "kai.trimmed", warning);
    }
  }

  [[nodiscard]] std::string document() const {
    return nlohmann::ordered_json{{"id", id_},
                                  {"version", intake_.version.version},
                                  {"package", intake_.version.package},
                                  {"memoryEntries", parts_->header.memory_entries},
                                  {"state", parts_->header.has_state},
                                  {"warnings", intake_.warnings}}
        .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

  [[nodiscard]] std::string text() const {
    const std::uint64_t entries = parts_->header.memory_entries;
    return id_ + " is restored as version " + intake_.version.version + ", with " + std::to_string(entries) +
           (entries == 1 ? " entry" : " entries") + " of memory and " +
           (parts_->header.has_state ? "the state that it saved, which its next start gets" : "no saved state") +
           ". It is not started: kaictl start " + id_;
  }

  /// Why it cannot be done to this agent now.
  [[nodiscard]] std::optional<Failure> in_service() const {
    const Agent* agent = operations_.agents.find(id_);
    if (agent == nullptr || agent->idle()) return std::nullopt;
    return Failure{"CONFLICT",
                   "agent '" + id_ + "' is " + std::string(to_string(agent->state())) + " with version " +
                       agent->row().active.version + ", and would change under its own feet; nothing was changed",
                   "Stop it first: kaictl stop " + id_,
                   {},
                   false};
  }

  /// `recorded`: something was changed before, and the audit tells of both.
  void fail(const Failure& failure, bool recorded = false) {
    operations_.restoring.erase(id_);
    const std::string what = "a restore failed: " + failure.message;
    environment_.log.write(LogLevel::kWarn, id_, "error", what,
                           {{"code", failure.code}, {"operatorUid", responder_.uid()}});
    if (recorded) {
      const std::array fields = {LogField("code", failure.code), LogField("operatorUid", responder_.uid())};
      environment_.audit.append(id_, "error", fields_json(what, fields));
    }
    responder_.fail(failure);
  }

  Operations& operations_;
  Environment& environment_;
  Responder responder_;
  std::string id_;  // empty: not among operations_.restoring
  Result<SnapshotParts> parts_;
  Intake intake_;
  std::shared_ptr<void> claim_;            // on an agent that is registered
  bool was_known_ = false;                 // registered before
  std::unique_ptr<MemoryContext> memory_;  // of one that is not registered yet
  MemoryUsage had_;
};

}  // namespace

void handle_restore(Operations& operations, const control::Restore& /*request*/, Fd file, const Responder& responder) {
  if (const auto fault = unfit_snapshot(file, O_RDONLY)) return responder.fail(*fault);
  std::make_shared<Restore>(operations, responder)->start(std::move(file));
}

}  // namespace kai
