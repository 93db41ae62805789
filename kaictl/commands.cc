#include "kaictl/commands.h"

#include <unistd.h>

#include <array>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/ask.h"
#include "kaictl/package_tar.h"
#include "kaictl/progress.h"

namespace kai {
namespace {

// klp.md's default for a payload, and what standard input may hold.
constexpr std::size_t kMaxPayloadBytes = 1 << 20;

}  // namespace

Outcome<Answer> list(const Context& context) {
  control::Request request;
  request.mutable_list();
  const auto options = call_options(context, "list the agents", context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, options, {}, R"({"agents":[]})");
  if (answer) answer->text = list_text(answer->json);
  return answer;
}

Outcome<Answer> status(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_status()->set_id(id);
  const auto options = call_options(context, "status of " + id, context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, options, {}, id_document(id));
  if (!answer && answer.error().code == "NOT_FOUND" && answer.error().document.empty()) {
    const nlohmann::ordered_json document = {{"id", id}, {"status", "not_found"}};
    answer.error().document = document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }
  if (answer) answer->text = status_text(answer->json);
  return answer;
}

Outcome<Answer> register_package(const Context& context, const std::string& path) {
  Progress progress(context.show_progress, "reading " + path);
  auto package = open_package(path);
  if (!package) return tl::unexpected(package.error());
  progress.now("");
  control::Request request;
  request.mutable_register_()->set_label(path);
  request.mutable_register_()->set_directory(package->is_directory);
  const std::array<int, 1> fds = {package->tar.get()};
  const auto options = call_options(context, "register " + path, context.timeout.value_or(kRegisterLimit));
  auto answer = ask(context, request, options, fds, "{}");
  if (answer) answer->text = register_text(answer->json);
  return answer;
}

Outcome<Answer> unregister(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_unregister()->set_id(id);
  const auto options = call_options(context, "unregister " + id, context.timeout.value_or(kChangeLimit));
  auto answer = ask(context, request, options, {}, id_document(id));
  if (answer) answer->text = escape_for_terminal(id) + ": unregistered\n";
  return answer;
}

Outcome<Answer> change(const Context& context, Change what, const std::string& id, bool no_wait) {
  const Times times = times_of(context, kChangeLimit);
  control::Request request;
  control::AgentRef* const agent = what == Change::kStart  ? request.mutable_start()
                                   : what == Change::kStop ? request.mutable_stop()
                                                           : request.mutable_restart();
  agent->set_id(id);
  agent->set_timeout_ms(times.daemon_ms);
  agent->set_no_wait(no_wait);
  static constexpr std::array<const char*, 3> kVerbs = {"start", "stop", "restart"};
  static constexpr std::array<const char*, 3> kDone = {"started", "stopped", "restarted"};
  static constexpr std::array<const char*, 3> kAsked = {"starting", "stopping", "restarting"};
  const auto at = static_cast<std::size_t>(what);
  const auto options = call_options(context, std::string(kVerbs[at]) + " " + id, times.limit);
  auto answer = ask(context, request, options, {}, id_document(id));
  if (answer) answer->text = state_text(id, no_wait ? kAsked[at] : kDone[at], answer->json);
  return answer;
}

Outcome<Answer> terminate(const Context& context, const std::string& id, bool purge) {
  const Times times = times_of(context, kChangeLimit);
  control::Request request;
  request.mutable_terminate()->set_id(id);
  request.mutable_terminate()->set_purge(purge);
  request.mutable_terminate()->set_timeout_ms(times.daemon_ms);
  auto answer = ask(context, request, call_options(context, "terminate " + id, times.limit), {}, id_document(id));
  if (answer) answer->text = state_text(id, "terminated", answer->json);
  return answer;
}

namespace {

/// Where in the text the parser stopped, for a person: "line 1, column 7".
std::string place_of(std::string_view text, std::size_t byte) {
  std::size_t line = 1;
  std::size_t column = 1;
  for (std::size_t at = 0; at + 1 < byte && at < text.size(); ++at) {
    column = text[at] == '\n' ? 1 : column + 1;
    if (text[at] == '\n') ++line;
  }
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

/// Takes the parser's events and keeps only the place where it failed.
struct FaultFinder : nlohmann::json_sax<nlohmann::json> {
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    byte = position;
    return false;
  }
  std::size_t byte = 0;
};

Outcome<std::string> payload_of(const std::string& typed) {
  std::string payload = typed.empty() ? "{}" : typed;
  if (typed == "-") {
    auto input = read_all(STDIN_FILENO, kMaxPayloadBytes);
    if (!input && input.error().error_number != EFBIG) {
      return local_failure("cannot read the payload from standard input", input.error());
    }
    if (!input) payload.assign(kMaxPayloadBytes + 1, ' ');
    if (input) payload = std::move(*input);
  }
  if (payload.size() > kMaxPayloadBytes) {
    return fail("TOO_LARGE", "the payload is over the limit of 1 MiB", "Send less");
  }
  FaultFinder finder;
  if (nlohmann::json::sax_parse(payload, &finder)) return payload;
  return fail("INVALID", "the payload is not JSON, at " + place_of(payload, finder.byte),
              R"(Give one JSON value in single quotes: '{"key":"value"}', or - for standard input)");
}

}  // namespace

Outcome<Answer> send(const Context& context, const std::string& id, const std::string& capability,
                     const std::string& payload) {
  auto checked = payload_of(payload);
  if (!checked) return tl::unexpected(checked.error());
  const Times times = times_of(context, kChangeLimit);
  control::Request request;
  request.mutable_send()->set_id(id);
  request.mutable_send()->set_capability(capability);
  request.mutable_send()->set_payload(std::move(*checked));
  request.mutable_send()->set_timeout_ms(times.daemon_ms);
  auto answer = ask(context, request, call_options(context, id + " to answer", times.limit), {}, "{}");
  if (!answer) return answer;
  answer->json = message_json(answer->json);
  answer->text = value_text(answer->json, "payload", isatty(STDOUT_FILENO) == 1);
  return answer;
}

Outcome<Answer> version(const Context& context) {
  control::Request request;
  request.mutable_version();
  const auto options = call_options(context, "its version", context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, options, {}, "{}");
  if (!answer && answer.error().exit_code != kExitUnreachable) return answer;
  nlohmann::ordered_json document = {{"kaictl", KAI_VERSION}};
  std::string text = std::string("kaictl ") + KAI_VERSION + "\n";
  if (!answer) {
    text += "kaid is not reachable at " + escape_for_terminal(context.socket) + "\n";
  } else {
    const auto said = nlohmann::json::parse(answer->json, nullptr, false);
    const auto member = [&](const char* key) {
      return said.is_object() && said.contains(key) && said[key].is_string() ? said[key].get<std::string>() : "";
    };
    const std::string daemon = member("kaid").empty() ? member("version") : member("kaid");
    document["kaid"] = daemon.empty() ? "unknown" : daemon;
    text += "kaid " + escape_for_terminal(document["kaid"].get<std::string>()) + "\n";
  }
  return Answer{text, document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace), {}};
}

Failure doctor(const Context& context) {
  const auto directory = program_directory();
  if (!directory) return local_failure("cannot find kai-doctor", directory.error()).value();
  for (const char* const place : {"/kai-doctor", "/../libexec/kai/kai-doctor", "/../lib/kai/kai-doctor"}) {
    const std::string path = *directory + place;
    if (access(path.c_str(), X_OK) < 0) continue;
    const char* const format = context.format == OutputFormat::kJson ? "json" : "text";
    execl(path.c_str(), "kai-doctor", "-o", format, "--socket", context.socket.c_str(), nullptr);
    return local_failure("cannot run kai-doctor", Error{"execl", errno, path}).value();
  }
  return fail("INTERNAL",
              "kai-doctor is neither beside kaictl in " + *directory + " nor in ../libexec/kai or ../lib/kai",
              "Install kAI whole: cmake --install, or build the target kai-doctor")
      .value();
}

}  // namespace kai
