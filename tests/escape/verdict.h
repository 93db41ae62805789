// What came of one attempt, and the small tools that attempts are written with. Everything here runs with and without a
// sandbox: the same code, so that the two answers can be compared.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <string>

namespace kai::escape {

struct Verdict {
  bool escaped = false;
  std::string how;     ///< errno's or signal's name; "not-there", "unchanged", "other-own" where nothing fails
  std::string detail;  ///< one line for the reader of the table
};

Verdict escaped(std::string detail);
/// Refused with errno as it is now.
Verdict refused(std::string detail = {});
Verdict refused_as(std::string how, std::string detail = {});
/// Escaped when `result` is not negative, else refused with errno.
Verdict by_result(long result, std::string detail = {});

template <typename... Arguments>
Verdict call(long number, Arguments... arguments) {
  return by_result(syscall(number, arguments...));
}

/// The setting ESCAPE_NAME, which run.py gives to both runs alike; the attempt cannot be made without it.
std::string setting(const char* name);
int setting_number(const char* name);

/// Everything in a file; empty with errno set when it cannot be read.
std::string contents(const std::string& path);

Verdict open_path(const std::string& path, int flags);
Verdict connect_unix(const std::string& path, bool abstract);

}  // namespace kai::escape
