// kaictl versions and prune: the archive of an agent's versions.
#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

/// One version, and how large its package is.
struct Archived {
  RegisteredVersion row;
  std::uint64_t bytes = 0;
};

Failure unreadable(const Error& error) {
  return {"INTERNAL", "the archive could not be read: " + error.message(), {}, {}, false};
}

/// Fills in the sizes. On a worker thread: it looks at each file.
Result<> measure(const PackageStore& packages, const std::string& id, std::vector<Archived>& versions) {
  for (Archived& version : versions) {
    const auto bytes = packages.size(id, version.row.package);
    if (!bytes) return tl::unexpected(bytes.error());
    version.bytes = *bytes;
  }
  return {};
}

Json version_json(const Archived& version, const RegisteredAgent& agent) {
  Json json = {{"version", version.row.version}, {"package", version.row.package}};
  if (!version.row.signer.empty()) json["signer"] = version.row.signer;
  json["registeredAt"] = iso_time(version.row.registered_at);
  json["active"] = version.row.version == agent.active.version;
  json["previous"] = version.row.version == agent.previous_version;
  if (!version.row.bad.empty()) json["bad"] = version.row.bad;
  json["bytes"] = version.bytes;
  return json;
}

/// One request about an agent's archive, held by the callbacks of whatever step it is in.
class ArchiveRequest : public std::enable_shared_from_this<ArchiveRequest> {
 public:
  ArchiveRequest(Operations& operations, std::string id, const Responder& responder)
      : operations_(operations), environment_(operations.environment), id_(std::move(id)), responder_(responder) {}

  void show() {
    if (find() == nullptr) return;
    const auto all = environment_.registry.versions(id_);
    if (!all) return responder_.fail(unreadable(all.error()));
    for (const RegisteredVersion& row : *all) versions_.push_back({row, 0});
    measure_all(&ArchiveRequest::on_shown);
  }

  void prune(std::uint32_t keep) {
    Agent* const agent = find();
    if (agent == nullptr) return;
    claim_ = agent->claim();
    if (!claim_) {
      return responder_.fail({"UPGRADING",
                              "agent '" + id_ + "' is being upgraded: which versions it needs shows when that is done",
                              "Try again then; see 'kaictl status " + id_ + "'",
                              {},
                              true});
    }
    auto removable = find_removable(*agent, keep);
    if (!removable) return responder_.fail(unreadable(removable.error()));
    // The package that its process began with is still at /agent there, and which one that was is not known any more.
    if (!removable->empty() && !agent->idle() && agent->soft_swaps() > 1) {
      return responder_.done(document({}, 0), {"nothing was removed: agent '" + id_ + "' has been upgraded " +
                                               std::to_string(agent->soft_swaps()) +
                                               " times since its process began, and still has the package of then; "
                                               "after kaictl restart " +
                                               id_ + " it can be pruned"});
    }
    versions_ = std::move(*removable);
    measure_all(&ArchiveRequest::on_prunable);
  }

 private:
  /// nullptr: it is answered.
  Agent* find() {
    Agent* const agent = operations_.agents.find(id_);
    if (agent == nullptr) responder_.fail(not_registered(id_));
    return agent;
  }

  void measure_all(void (ArchiveRequest::*then)()) {
    environment_.loop.work(
        [self = shared_from_this()] { self->done_ = measure(self->environment_.packages, self->id_, self->versions_); },
        [self = shared_from_this(), then] {
          if (self->find() == nullptr) return;
          if (!self->done_) return self->responder_.fail(unreadable(self->done_.error()));
          (self.get()->*then)();
        });
  }

  void on_shown() {
    const RegisteredAgent& row = operations_.agents.find(id_)->row();
    Json list = Json::array();
    for (const Archived& version : versions_) list.push_back(version_json(version, row));
    responder_.done(Json{{"id", id_}, {"versions", std::move(list)}}.dump());
  }

  /// Neither the active one nor the one before it, nor one of an upgrade on probation, nor one of the last `keep`
  /// others.
  Result<std::vector<Archived>> find_removable(const Agent& agent, std::uint32_t keep) const {
    const auto all = environment_.registry.versions(id_);
    if (!all) return tl::unexpected(all.error());
    std::vector<Archived> removable;
    for (const RegisteredVersion& version : *all) {
      const std::string& number = version.version;
      const auto& upgrade = agent.upgrade_record();
      const bool needed = number == agent.row().active.version || number == agent.row().previous_version ||
                          (upgrade && (number == upgrade->from || number == upgrade->to));
      if (!needed) removable.push_back({version, 0});
    }
    removable.resize(removable.size() - std::min<std::size_t>(removable.size(), keep));
    return removable;
  }

  void on_prunable() {
    if (versions_.empty()) return responder_.done(document({}, 0));
    for (const Archived& version : versions_) {
      if (const auto removed = environment_.registry.remove_version(id_, version.row.version); !removed) {
        return responder_.fail(unreadable(removed.error()));
      }
    }
    // A row without its package could not be started: the rows are gone for good before the packages are.
    if (const auto synced = environment_.registry.sync(); !synced) return responder_.fail(unreadable(synced.error()));
    for (const Archived& version : versions_) {
      if (environment_.packages.held(id_, version.row.package)) continue;  // it is just being registered again
      const auto aside = environment_.packages.set_aside(id_, version.row.package);
      if (!aside) return responder_.fail(unreadable(aside.error()));
      if (aside->empty()) continue;
      aside_.push_back(*aside);
      freed_ += version.bytes;
    }
    claim_.reset();
    environment_.loop.work(
        [self = shared_from_this()] {
          for (const std::string& aside : self->aside_) {
            self->done_ = self->environment_.packages.remove_aside(aside);
            if (!self->done_) return;
          }
        },
        [self = shared_from_this()] { self->on_pruned(); });
  }

  void on_pruned() {
    if (!done_) {
      // What is left is out of the archive all the same; the next start of kaid removes it.
      environment_.log.write(LogLevel::kError, id_, "error",
                             "packages could not be removed from the disk: " + done_.error().message());
    }
    std::string names;
    std::vector<std::string> removed;
    for (const Archived& version : versions_) {
      names += (names.empty() ? "" : ", ") + version.row.version;
      removed.push_back(version.row.version);
    }
    const std::string_view message = "versions are gone from its archive";
    const std::array fields = {LogField("versions", names), LogField("freedBytes", freed_),
                               LogField("operatorUid", responder_.uid())};
    environment_.log.write(LogLevel::kInfo, id_, "kai.purged", message, fields);
    environment_.audit.append(id_, "kai.purged", fields_json(message, fields));
    environment_.audit.when_durable(
        [responder = responder_, json = document(removed, freed_)](const Result<>& durable) mutable {
          if (durable) return responder.done(std::move(json));
          responder.fail(not_recorded(durable.error()));
        });
  }

  [[nodiscard]] std::string document(const std::vector<std::string>& removed, std::uint64_t freed) const {
    return Json{{"id", id_}, {"removed", removed}, {"freedBytes", freed}}.dump();
  }

  Operations& operations_;
  Environment& environment_;
  const std::string id_;
  Responder responder_;
  std::shared_ptr<void> claim_;
  std::vector<Archived> versions_;
  std::vector<std::string> aside_;
  std::uint64_t freed_ = 0;
  Result<> done_;
};

}  // namespace

void handle_versions(Operations& operations, const control::Versions& request, const Responder& responder) {
  std::make_shared<ArchiveRequest>(operations, request.id(), responder)->show();
}

void handle_prune(Operations& operations, const control::Prune& request, const Responder& responder) {
  std::make_shared<ArchiveRequest>(operations, request.id(), responder)->prune(request.keep());
}

}  // namespace kai
