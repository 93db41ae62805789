// kaictl snapshot.
#include <fcntl.h>
#include <sys/stat.h>

#include <array>

#include <nlohmann/json.hpp>

#include "supervisor/control/audit_log.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/snapshot.h"

namespace kai {
namespace {

void record_export(Environment& environment, const std::string& id, const std::string& document,
                   const Responder& responder) {
  const auto written = nlohmann::json::parse(document);
  const std::string version = written["version"];
  const std::array fields = {LogField("snapshot", true),
                             LogField("version", version),
                             LogField("memoryEntries", written["memoryEntries"].get<std::uint64_t>()),
                             LogField("savedState", written["state"].get<bool>()),
                             LogField("bytes", written["bytes"].get<std::uint64_t>()),
                             LogField("operatorUid", responder.uid())};
  constexpr std::string_view kWhat = "an operator took a snapshot of it";
  environment.log.write(LogLevel::kInfo, id, "kai.exported", kWhat,
                        {fields[0], fields[1], fields[2], fields[3], fields[4], fields[5]});
  environment.audit.append(id, "kai.exported", fields_json(kWhat, fields));
}

}  // namespace

std::optional<Failure> unfit_snapshot(const Fd& file, int access) {
  struct stat found {};
  if (!file || fstat(file.get(), &found) < 0 || !S_ISREG(found.st_mode)) {
    return Failure{"INVALID", "a snapshot is a regular file", "Name one as FILE", {}, false};
  }
  const int mode = fcntl(file.get(), F_GETFL) & O_ACCMODE;
  if (mode != O_RDWR && mode != access) {
    return Failure{"INVALID", "the file was not opened in the way that this needs", {}, {}, false};
  }
  if (access == O_WRONLY && found.st_size != 0) {
    return Failure{"INVALID", "the file for a snapshot is not empty", "Name a new one as FILE", {}, false};
  }
  return std::nullopt;
}

Failure occupied(const std::string& id) {
  return {"CONFLICT",
          "an upgrade, a snapshot or a restore of agent '" + id + "' is under way",
          "See 'kaictl status " + id + "', and try again when that has ended",
          {},
          false};
}

void handle_snapshot(Operations& operations, const control::Snapshot& request, Fd file, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  if (const auto fault = unfit_snapshot(file, O_WRONLY)) return responder.fail(*fault);
  auto claim = agent->claim();
  if (!claim) return responder.fail(occupied(request.id()));
  responder.progress("taking a snapshot of " + request.id());
  Environment& environment = operations.environment;
  write_snapshot(environment, *agent, std::move(file),
                 [&environment, id = request.id(), responder, claim](const Outcome<std::string>& written) {
                   if (!written) return responder.fail(written.error());
                   record_export(environment, id, *written, responder);
                   environment.audit.when_durable([document = *written, responder](const Result<>& durable) {
                     if (!durable) return responder.fail(not_recorded(durable.error()));
                     responder.done(document);
                   });
                 });
}

}  // namespace kai
