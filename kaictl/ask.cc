#include "kaictl/ask.h"

#include "kaictl/json_text.h"

namespace kai {

CallOptions call_options(const Context& context, std::string activity, Milliseconds limit) {
  CallOptions options;
  options.limit = limit;
  options.activity = std::move(activity);
  options.show_progress = context.show_progress;
  return options;
}

std::vector<std::string> warnings_of(const control::Done& done) {
  return {done.warnings().begin(), done.warnings().end()};
}

std::string id_document(const std::string& id) {
  return dump(Json{{"id", id}});
}

Outcome<Answer> ask(const Context& context, const control::Request& request, const CallOptions& options,
                    std::span<const int> fds, std::string fallback) {
  const auto done = call(context.socket, request, fds, options);
  if (!done) return tl::unexpected(done.error());
  auto document = checked_document(*done, std::move(fallback));
  if (!document) return tl::unexpected(document.error());
  return Answer{"", std::move(*document), warnings_of(*done)};
}

Times times_of(const Context& context, Milliseconds default_limit) {
  if (!context.timeout) return {0, default_limit + kGraceTime};
  return {static_cast<std::uint32_t>(context.timeout->count()), *context.timeout + kGraceTime};
}

tl::unexpected<Failure> usage_failure(std::string message, std::string hint) {
  Failure failure;
  failure.exit_code = kExitUsage;
  failure.code = "INVALID";
  failure.message = std::move(message);
  failure.hint = std::move(hint);
  return tl::unexpected(std::move(failure));
}

}  // namespace kai
