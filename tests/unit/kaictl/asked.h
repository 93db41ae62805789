// One command against a daemon of the test's own: what it asked, and what it made of the answer.
#pragma once

#include <string>
#include <vector>

#include "tests/unit/kaictl/fake_daemon.h"
#include "tests/unit/kaictl/program.h"

namespace kai::test {

struct Asked {
  control::Request request;
  std::vector<Fd> fds;
  Result result;
};

/// kaid answers with `answer`.
Asked ask(std::vector<std::string> arguments, const std::string& answer, const std::string& input = "");
/// kaid answers with `records`, and then with `answer`.
Asked ask_records(std::vector<std::string> arguments, const std::vector<std::string>& records,
                  const std::string& answer = "");
/// kaid refuses.
Asked ask_refused(std::vector<std::string> arguments, const std::string& code, const std::string& message,
                  const std::string& hint = "");

}  // namespace kai::test
