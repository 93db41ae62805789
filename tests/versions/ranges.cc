// One line "range TAB version" in, one line out: yes, no, invalid (the range), or no version.
#include <iostream>
#include <string>

#include "policies/versions/npm_range.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const std::size_t tab = line.find('\t');
    const auto range = kai::NpmRange::parse(line.substr(0, tab));
    const auto version = kai::NpmVersion::parse(line.substr(tab + 1));
    std::cout << (!range ? "invalid" : !version ? "no version" : range->has(*version) ? "yes" : "no") << '\n';
  }
}
