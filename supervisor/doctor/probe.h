// Asking the kernel in a child, so that the answer changes nothing here.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "base/result.h"

namespace kai::doctor {

/// errno of the step that failed, with its name; 0: done.
struct Answer {
  int error_number = 0;
  std::string step;
  [[nodiscard]] bool ok() const { return error_number == 0; }
  /// "mount proc: Operation not permitted".
  [[nodiscard]] std::string text() const { return Error{step, error_number, ""}.message(); }
};

/// errno as it stands now.
Answer failed(const char* step);

/// Runs `ask` in a forked child, which ends with it. A child that dies or does not end within 60 s counts as failed.
/// `beside` runs here meanwhile; if it fails, the child is ended and that is the answer.
Answer ask_child(const std::function<Answer()>& ask, const std::function<Answer(pid_t child)>& beside = {});

/// Runs a program and gives the first line of its output; an error where it could not be run or failed.
Result<std::string> first_line_of(const std::string& program, const std::string& argument);

/// A number in a file of /proc; -1: not there.
long long number_in(const std::string& path);

}  // namespace kai::doctor
