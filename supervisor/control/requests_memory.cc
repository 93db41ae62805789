// `kaictl memory`: what agents keep, for the operator's eyes and hands.
#include <fcntl.h>
#include <sys/stat.h>

#include <array>

#include "base/base64.h"
#include "base/text.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

/// What a client passed is a file that cannot block whoever writes or reads it.
std::optional<Failure> unfit(const Fd& file, int access) {
  struct stat found {};
  if (!file || ::fstat(file.get(), &found) < 0 || !S_ISREG(found.st_mode)) {
    return Failure{"INVALID", "a memory goes to and comes from a regular file", "Name one as FILE", {}, false};
  }
  const int mode = ::fcntl(file.get(), F_GETFL) & O_ACCMODE;
  if (mode != O_RDWR && mode != access) {
    return Failure{"INVALID", "the file was not opened in the way that this needs", {}, {}, false};
  }
  return std::nullopt;
}

std::string usage_document(const Agent& agent) {
  const MemoryUsage usage = agent.memory().usage();
  return R"({"id":")" + agent.row().id + R"(","entries":)" + std::to_string(usage.entries) + R"(,"bytes":)" +
         std::to_string(usage.bytes) + '}';
}

void answer_with_stats(Operations& operations, const std::vector<std::string>& ids, const Responder& responder) {
  std::vector<std::pair<std::string, const MemoryContext*>> contexts;
  for (const std::string& id : ids) {
    if (const Agent* agent = operations.agents.find(id)) contexts.emplace_back(id, &agent->memory());
  }
  responder.done(memory_stats_document(contexts));
  for (const std::string& id : ids) {
    Agent* agent = operations.agents.find(id);
    if (agent != nullptr && agent->idle()) agent->memory().release();
  }
}

std::string entry_document(const klp::MemoryEntry& entry) {
  std::string json = "{\"key\":";
  append_json_string(json, entry.key());
  if (entry.binary()) {
    json += ",\"valueBase64\":\"";
    append_base64(json, entry.value());
    json += '"';
  } else {
    json.append(",\"value\":").append(entry.value());
  }
  return json.append(",\"version\":").append(std::to_string(entry.version())).append("}");
}

std::string keys_document(const klp::MemoryListed& listed) {
  std::string json = "{\"keys\":[";
  for (int each = 0; each < listed.keys_size(); ++each) {
    if (each > 0) json += ',';
    append_json_string(json, listed.keys(each));
  }
  json += ']';
  if (listed.more() && listed.keys_size() > 0) {
    json += ",\"cursor\":";
    append_json_string(json, listed.keys(listed.keys_size() - 1));
  }
  return json += '}';
}

void acknowledge_import(Operations& operations, const std::string& id, const MemoryUsage& before,
                        const Responder& responder) {
  const Agent* agent = operations.agents.find(id);
  if (agent == nullptr) return responder.fail(not_registered(id));
  const MemoryUsage now = agent->memory().usage();
  const std::array fields = {LogField("memoryEntries", before.entries), LogField("memoryBytes", before.bytes),
                             LogField("importedEntries", now.entries), LogField("importedBytes", now.bytes),
                             LogField("operatorUid", responder.uid())};
  constexpr std::string_view kWhat = "an operator replaced its memory by an import";
  operations.environment.log.write(LogLevel::kInfo, id, "kai.purged", kWhat,
                                   {fields[0], fields[1], fields[2], fields[3], fields[4]});
  operations.environment.audit.append(id, "kai.purged", fields_json(kWhat, fields));
  operations.environment.audit.when_durable([document = usage_document(*agent), responder](const Result<>& durable) {
    if (!durable) return responder.fail(not_recorded(durable.error()));
    responder.done(document);
  });
}

}  // namespace

Failure memory_failure(const std::string& agent, const klp::MemoryError& error) {
  const bool later = error.retryable();
  return {error.code(), "the memory of agent '" + agent + "': " + error.message(),
          later ? "Try again in a moment; see 'kaictl logs'" : "See 'kaictl memory stats " + agent + "'",
          error.details_json(), later};
}

void handle_memory_stats(Operations& operations, const control::MemoryStats& request, const Responder& responder) {
  std::vector<std::string> ids;
  if (!request.id().empty()) {
    if (operations.agents.find(request.id()) == nullptr) return responder.fail(not_registered(request.id()));
    ids.push_back(request.id());
  } else {
    for (const auto& [id, agent] : operations.agents.all()) ids.push_back(id);
  }
  // What nobody has used yet is opened to be counted; what cannot be opened says why in its own line.
  const auto left = std::make_shared<std::size_t>(1);
  const auto one_less = [&operations, left, ids, responder] {
    if (--*left == 0) answer_with_stats(operations, ids, responder);
  };
  for (const std::string& id : ids) {
    MemoryContext& memory = operations.agents.find(id)->memory();
    if (memory.ready() || !memory.exists()) continue;
    ++*left;
    memory.prepare([one_less](const MemoryOutcome<>&) { one_less(); });
  }
  one_less();
}

void handle_memory_read(Operations& operations, const control::MemoryRead& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  klp::MemoryRequest get;
  get.mutable_get()->add_keys(request.key());
  agent->memory().perform(
      std::move(get), [id = request.id(), key = request.key(), responder](const klp::MemoryAnswer& answer) {
        if (answer.has_error()) return responder.fail(memory_failure(id, answer.error()));
        if (answer.got().entries_size() == 0) {
          return responder.fail({"NOT_FOUND",
                                 "agent '" + id + "' keeps nothing under the key '" + escape_for_terminal(key) + "'",
                                 "See 'kaictl memory list " + id + "'",
                                 {},
                                 false});
        }
        responder.done(entry_document(answer.got().entries(0)));
      });
}

void handle_memory_keys(Operations& operations, const control::MemoryKeys& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  klp::MemoryRequest list;
  list.mutable_list()->set_prefix(request.prefix());
  list.mutable_list()->set_limit(request.limit());
  list.mutable_list()->set_after(request.cursor());
  agent->memory().perform(std::move(list), [id = request.id(), responder](const klp::MemoryAnswer& answer) {
    if (answer.has_error()) return responder.fail(memory_failure(id, answer.error()));
    responder.done(keys_document(answer.listed()));
  });
}

void handle_memory_export(Operations& operations, const control::MemoryExport& request, Fd file,
                          const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  if (const auto fault = unfit(file, O_WRONLY)) return responder.fail(*fault);
  responder.progress("writing the memory of " + request.id());
  agent->memory().save(std::move(file), [&operations, id = request.id(), responder](const MemoryOutcome<>& saved) {
    if (!saved) return responder.fail(memory_failure(id, saved.error()));
    const Agent* still = operations.agents.find(id);
    if (still == nullptr) return responder.fail(not_registered(id));
    operations.environment.log.write(LogLevel::kInfo, id, "kai.memory", "an operator exported its memory",
                                     {{"operatorUid", responder.uid()}});
    responder.done(usage_document(*still));
  });
}

void handle_memory_import(Operations& operations, const control::MemoryImport& request, Fd file,
                          const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  if (const auto fault = unfit(file, O_RDONLY)) return responder.fail(*fault);
  if (!agent->idle() && agent->state() != State::kQuarantined) {
    return responder.fail({"CONFLICT",
                           "agent '" + request.id() + "' is " + std::string(to_string(agent->state())) +
                               ", and its memory would change under it",
                           "Stop it first: kaictl stop " + request.id(),
                           {},
                           false});
  }
  responder.progress("reading the memory of " + request.id());
  // How much goes is recorded with what comes; what cannot be opened is replaced all the same.
  const auto kept = std::make_shared<Fd>(std::move(file));
  agent->memory().prepare([&operations, id = request.id(), kept, responder](const MemoryOutcome<>&) {
    Agent* still = operations.agents.find(id);
    if (still == nullptr) return responder.fail(not_registered(id));
    const MemoryUsage before = still->memory().usage();
    still->memory().restore(std::move(*kept), [&operations, id, before, responder](const MemoryOutcome<>& restored) {
      if (!restored) return responder.fail(memory_failure(id, restored.error()));
      acknowledge_import(operations, id, before, responder);
    });
  });
}

}  // namespace kai
