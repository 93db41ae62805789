// What each request asks of the script, and what its answer becomes.
#include <deque>
#include <utility>

#include "supervisor/memory/account.h"
#include "supervisor/memory/redis_context.h"
#include "supervisor/memory/request_check.h"

namespace kai {

namespace {

constexpr std::size_t kRecordHead = 17;  // redis_script.cc: HEADER
constexpr std::uint64_t kBinary = 1, kSealed = 2;

tl::unexpected<klp::MemoryError> refused(klp::MemoryError error) {
  return tl::unexpected(std::move(error));
}

/// Big endian.
std::uint64_t number_at(std::string_view bytes, std::size_t at) {
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < 8; ++i) number = number << 8 | static_cast<unsigned char>(bytes[at + i]);
  return number;
}

/// What a value is sealed with: it opens neither in another key's place nor as another kind of value.
std::string place_of(std::string_view key, std::uint64_t flags) {
  std::string place("redis\0", 6);
  place += (flags & kBinary) != 0 ? 'b' : 'j';
  place += key;
  return place;
}

klp::MemoryError sweeping() {
  return memory_error("BUSY", "very many keys have expired at once, and are being removed; ask again");
}

}  // namespace

std::string RedisContext::sealed(std::string_view key, std::uint64_t flags, std::string_view value) const {
  return terms_.key ? seal(*terms_.key, value, place_of(key, flags)) : std::string(value);
}

MemoryOutcome<RedisRecord> RedisContext::opened(std::string_view key, std::string_view record) const {
  if (record.size() < kRecordHead)
    return refused(memory_error("UNAVAILABLE", link_.name() + " has a damaged value of agent " + terms_.agent_id));
  const auto flags = static_cast<unsigned char>(record[16]);
  RedisRecord result{.version = number_at(record, 0),
                     .expires_ms = static_cast<std::int64_t>(number_at(record, 8)),
                     .binary = (flags & kBinary) != 0,
                     .value = std::string(record.substr(kRecordHead))};
  if ((flags & kSealed) == 0) return result;
  // Encryption may have been switched off since it was written.
  const auto& key_of_agent = terms_.key ? terms_.key : terms_.old_key;
  auto value = key_of_agent ? unseal(*key_of_agent, result.value, place_of(key, flags)) : std::nullopt;
  if (!value)
    return refused(memory_error("INTERNAL", "a value in " + link_.name() + " does not open with the key of agent " +
                                                terms_.agent_id + ": it was changed, or kaid's node key was"));
  result.value = *std::move(value);
  return result;
}

void RedisContext::start_request(const klp::MemoryRequest& request, const std::shared_ptr<Flight>& flight) {
  if (const auto error = check_memory_request(request)) return finish(flight, *error);
  switch (request.op_case()) {
    case klp::MemoryRequest::kGet:
      return get(request.get(), flight);
    case klp::MemoryRequest::kSet:
      return set(request.set(), flight);
    case klp::MemoryRequest::kDelete:
      return remove(request.delete_(), flight);
    case klp::MemoryRequest::kList:
      return list(request.list(), flight);
    default:
      return finish(flight, indexed_db_not_here());
  }
}

/// pump() delivers it.
void RedisContext::finish(const std::shared_ptr<Flight>& flight, const klp::MemoryError& error) {
  *flight->result.mutable_error() = error;
  flight->ready = true;
}

RedisContext::Then RedisContext::into(std::shared_ptr<Flight> flight, Make make) {
  return [this, flight = std::move(flight), make = std::move(make)](MemoryOutcome<ScriptAnswer>&& answer) {
    const auto made = answer ? make(*answer, flight->result) : MemoryOutcome<>(refused(answer.error()));
    if (!made) *flight->result.mutable_error() = made.error();
    flight->ready = true;
    if (due_) schedule();
    deliver();
  };
}

void RedisContext::get(const klp::MemoryGet& request, const std::shared_ptr<Flight>& flight) {
  const std::string most = std::to_string(kMaxMemoryAnswerBytes);
  Words own{most};
  own.insert(own.end(), request.keys().begin(), request.keys().end());
  run("get", own,
      into(flight, [this, request](const ScriptAnswer& answer, klp::MemoryAnswer& result) -> MemoryOutcome<> {
        if (answer.status == "TOO_LARGE") return refused(answer_too_large());
        auto& got = *result.mutable_got();
        for (int i = 0; i < request.keys_size(); ++i) {
          if (!answer.is_text(static_cast<std::size_t>(i))) continue;
          auto record = opened(request.keys(i), answer.text(static_cast<std::size_t>(i)));
          if (!record) return refused(record.error());
          auto& entry = *got.add_entries();
          entry.set_key(request.keys(i));
          entry.set_value(std::move(record->value));
          entry.set_binary(record->binary);
          entry.set_version(record->version);
          entry.set_expires_ms(record->expires_ms);
        }
        return {};
      }));
}

void RedisContext::set(const klp::MemorySet& request, const std::shared_ptr<Flight>& flight) {
  std::deque<std::string> kept;  // what the words are views of
  const auto keep = [&kept](std::string text) -> std::string_view { return kept.emplace_back(std::move(text)); };
  Words own{keep(std::to_string(terms_.max_bytes)), keep(std::to_string(terms_.max_bytes / kQuotaBytesPerEntry))};
  for (const auto& write : request.writes()) {
    const std::uint64_t flags = flags_of(write.binary());
    own.push_back(write.key());
    own.push_back(keep(std::to_string(expires_at(write, terms_.default_ttl_ms, clock_.now_ms()))));
    own.push_back(keep(std::to_string(flags)));
    own.push_back(write.if_absent()        ? std::string_view("absent")
                  : write.has_if_version() ? keep(std::to_string(write.if_version()))
                                           : std::string_view());
    own.push_back(terms_.key ? keep(sealed(write.key(), flags, write.value())) : std::string_view(write.value()));
  }
  run("set", own,
      into(flight,
           [this, count = request.writes_size()](const ScriptAnswer& answer,
                                                 klp::MemoryAnswer& result) -> MemoryOutcome<> {
             if (answer.status == "CONFLICT")
               return refused(memory_conflict(answer.text(0), static_cast<std::uint64_t>(answer.number(1))));
             if (answer.status == "SWEEPING") return refused(sweeping());
             if (answer.status == "QUOTA") {
               const auto error = Account(terms_.max_bytes, answer.usage).charge(answer.number(0), answer.number(1));
               return refused(error.value_or(memory_error("INTERNAL", "the quota is not what redis was told")));
             }
             auto& written = *result.mutable_written();
             for (int i = 0; i < count; ++i) written.add_versions(static_cast<std::uint64_t>(answer.number(0) + i));
             return {};
           }));
}

void RedisContext::remove(const klp::MemoryDelete& request, const std::shared_ptr<Flight>& flight) {
  run("delete", {request.key()},
      into(flight, [](const ScriptAnswer& answer, klp::MemoryAnswer& result) -> MemoryOutcome<> {
        result.mutable_deleted()->set_deleted(answer.number(0) == 1);
        return {};
      }));
}

void RedisContext::list(const klp::MemoryList& request, const std::shared_ptr<Flight>& flight) {
  const std::string from =
      request.after() >= request.prefix() && !request.after().empty() ? "(" + request.after() : "[" + request.prefix();
  const std::string end = prefix_end(request.prefix());
  const std::string to = end.empty() ? "+" : "(" + end;
  const std::uint32_t limit = list_limit(request);
  const std::string most = std::to_string(limit);
  run("list", {from, to, most},
      into(flight, [limit](const ScriptAnswer& answer, klp::MemoryAnswer& result) -> MemoryOutcome<> {
        if (answer.status == "SWEEPING") return refused(sweeping());
        auto& listed = *result.mutable_listed();
        for (std::size_t i = 0; i < answer.rest.size() && i < limit; ++i) listed.add_keys(std::string(answer.text(i)));
        listed.set_more(answer.rest.size() > limit);
        return {};
      }));
}

}  // namespace kai
