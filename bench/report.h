// One line a figure: name, median, minimum, and how many times it was measured.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace kai::bench {

using Clock = std::chrono::steady_clock;

/// Microseconds since `begin`.
double microseconds_since(Clock::time_point begin);

struct Figure {
  std::string name;
  std::vector<double> samples;  ///< microseconds

  [[nodiscard]] double median() const;
  [[nodiscard]] double minimum() const;
};

void print_figure(const Figure& figure);
/// "name: median is 0.45 of OTHER's (0.43 of its minimum)"
void print_ratio(const Figure& figure, const Figure& other);

}  // namespace kai::bench
