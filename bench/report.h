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
/// How many times `other` it is, by medians and by minima.
void print_ratio(const std::string& name, const Figure& figure, const Figure& other);

}  // namespace kai::bench
