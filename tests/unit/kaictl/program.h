// Running the real kaictl as an operator does, and looking at what it printed.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.h"

namespace kai::test {

struct Result {
  int exit_code = -1;  ///< 128+N for a signal
  std::string out, err;
};

/// A kaictl that runs. Its standard streams are pipes, or one terminal for output and errors.
class Program {
 public:
  enum class Streams { kPipes, kTerminal };
  explicit Program(const std::vector<std::string>& arguments, Streams streams = Streams::kPipes);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void write_input(std::string_view bytes);
  void close_input() { input_.reset(); }
  void close_output() { output_.reset(); }
  void signal(int number);
  /// Reads standard output until `text` was seen; false: it ended without.
  bool read_until(const std::string& text);
  /// Closes its input, reads the rest, waits for the end.
  Result finish();

 private:
  pid_t pid_ = -1;
  Fd input_, output_, error_;
  std::string out_, err_;
};

/// kaictl with these arguments, to its end.
Result kaictl(const std::vector<std::string>& arguments, const std::string& input = "");

/// Whether `text` is exactly one line.
bool is_one_line(const std::string& text);

}  // namespace kai::test
