// The forms of the calls that matter: what each argument is, so that a refusal reads as the programmer wrote it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace kai {

/// A constant and its name.
struct Word {
  std::uint64_t value;
  const char* name;
};

struct ArgumentForm {
  enum class Kind {
    kHex,
    kNumber,  ///< an int: a descriptor, a pid
    kOctal,   ///< permission bits
    kOneOf,   ///< one of `words`
    kFlags,   ///< `words` or-ed, of 32 bits
    kMixed,   ///< the lowest byte one of `words`, the rest flags of `flags`
  };
  Kind kind = Kind::kHex;
  std::span<const Word> words;
  std::span<const Word> flags;
};

inline constexpr std::size_t kMostArguments = 6;

struct CallForm {
  std::string_view call;
  std::size_t count = kMostArguments;  ///< of arguments
  ArgumentForm arguments[kMostArguments];
};

/// nullptr: no form is known, every register is told.
const CallForm* find_call_form(std::string_view call);

}  // namespace kai
