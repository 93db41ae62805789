// One line "specifiers TAB version" in, one line out: yes, no, invalid (the specifiers), or no version; then the
// version's normal form, if it has one.
#include <iostream>
#include <string>

#include "policies/versions/pep440.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const std::size_t tab = line.find('\t');
    const auto specifiers = kai::Pep440Specifiers::parse(line.substr(0, tab));
    const auto version = kai::Pep440Version::parse(line.substr(tab + 1));
    std::cout << (!specifiers                 ? "invalid"
                  : !version                  ? "no version"
                  : specifiers->has(*version) ? "yes"
                                              : "no")
              << '\t' << (version ? version->text() : "") << '\n';
  }
}
