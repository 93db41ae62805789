// What nobody can guess: the kernel's random numbers, without a file.
#pragma once

#include <sys/random.h>

#include <cstdlib>

namespace kai::egress {

template <typename Number>
Number random_number() {
  Number number{};
  // Cannot fail for so few bytes once the system has booted (getrandom(2)).
  if (getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) std::abort();
  return number;
}

}  // namespace kai::egress
