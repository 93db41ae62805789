#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

using Answer = std::function<void(Connection&, const control::Request&)>;

Asked ask_with(std::vector<std::string> arguments, const std::string& input, const Answer& answer) {
  Asked asked;
  FakeDaemon daemon([&](Connection& connection) {
    if (connection.receive(asked.request, asked.fds)) answer(connection, asked.request);
  });
  arguments.insert(arguments.begin(), {"--socket", daemon.socket()});
  asked.result = kaictl(arguments, input);
  daemon.join();
  return asked;
}

}  // namespace

Asked ask(std::vector<std::string> arguments, const std::string& answer, const std::string& input) {
  return ask_with(std::move(arguments), input,
                  [&](Connection& connection, const control::Request& request) { connection.done(request, answer); });
}

Asked ask_records(std::vector<std::string> arguments, const std::vector<std::string>& records,
                  const std::string& answer) {
  return ask_with(std::move(arguments), "", [&](Connection& connection, const control::Request& request) {
    for (const std::string& record : records) connection.record(request, record);
    connection.done(request, answer);
  });
}

Asked ask_refused(std::vector<std::string> arguments, const std::string& code, const std::string& message,
                  const std::string& hint) {
  return ask_with(std::move(arguments), "", [&](Connection& connection, const control::Request& request) {
    connection.failed(request, code, message, hint);
  });
}

}  // namespace kai::test
