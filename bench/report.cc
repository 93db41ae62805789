#include "bench/report.h"

#include <algorithm>
#include <cstdio>

namespace kai::bench {

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

double Figure::median() const {
  std::vector<double> sorted = samples;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

double Figure::minimum() const {
  return *std::min_element(samples.begin(), samples.end());
}

void print_figure(const Figure& figure) {
  if (figure.samples.empty()) return;
  std::printf("%-36s median %9.1f us   min %9.1f us   n %zu\n", figure.name.c_str(), figure.median(), figure.minimum(),
              figure.samples.size());
  std::fflush(stdout);
}

void print_ratio(const std::string& name, const Figure& figure, const Figure& other) {
  if (figure.samples.empty() || other.samples.empty()) return;
  std::printf("%-36s median %9.2f      min %9.2f\n", ("  ratio " + name).c_str(), figure.median() / other.median(),
              figure.minimum() / other.minimum());
  std::fflush(stdout);
}

}  // namespace kai::bench
