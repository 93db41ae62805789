#include "policies/refusal.h"

#include <seccomp.h>

#include <charconv>
#include <cstdlib>

#include "policies/profiles.h"
#include "policies/refusal_words.h"

namespace kai {
namespace {

using Arguments = std::array<std::uint64_t, kMostArguments>;

std::string in_base(std::uint64_t value, int base, const char* prefix) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, base).ptr;
  return prefix + std::string(digits, end);
}

std::string hex(std::uint64_t value) {
  return in_base(value, 16, "0x");
}

// The kernel reads 32 bits of these arguments, so the words are looked up with those.
std::string one_of(std::uint64_t value, std::span<const Word> words) {
  const std::uint64_t low = value & 0xffffffffU;
  for (const Word& word : words) {
    if (word.value == low) return word.name;
  }
  return hex(low);
}

std::string flags(std::uint64_t value, std::span<const Word> words) {
  std::uint64_t left = value & 0xffffffffU;
  std::string text;
  for (const Word& word : words) {
    if (word.value == 0 || (left & word.value) != word.value) continue;
    text += (text.empty() ? "" : "|") + std::string(word.name);
    left &= ~word.value;
  }
  if (left != 0 || text.empty()) text += (text.empty() ? "" : "|") + hex(left);
  return text;
}

std::string mixed(std::uint64_t value, const ArgumentForm& form) {
  constexpr std::uint64_t kLowByte = 0xff;
  const std::uint64_t low = value & kLowByte;
  const std::uint64_t high = value & 0xffffffffU & ~kLowByte;
  if (high == 0) return one_of(low, form.words);
  return flags(high, form.flags) + (low != 0 ? "|" + one_of(low, form.words) : "");
}

std::string argument_text(std::uint64_t value, const ArgumentForm& form) {
  switch (form.kind) {
    case ArgumentForm::Kind::kHex:
      return hex(value);
    case ArgumentForm::Kind::kNumber:
      return std::to_string(static_cast<std::int32_t>(value & 0xffffffffU));
    case ArgumentForm::Kind::kOctal:
      return in_base(value & 0xffffffffU, 8, "0");
    case ArgumentForm::Kind::kOneOf:
      return one_of(value, form.words);
    case ArgumentForm::Kind::kFlags:
      return flags(value, form.words);
    case ArgumentForm::Kind::kMixed:
      return mixed(value, form);
  }
  return hex(value);
}

bool holds(const SyscallRule::Argument& argument, const Arguments& arguments) {
  using Op = SyscallRule::Argument::Op;
  const std::uint64_t given = arguments[argument.index];
  switch (argument.op) {
    case Op::kEqual:
      return given == argument.value;
    case Op::kNotEqual:
      return given != argument.value;
    case Op::kLess:
      return given < argument.value;
    case Op::kLessEqual:
      return given <= argument.value;
    case Op::kGreater:
      return given > argument.value;
    case Op::kGreaterEqual:
      return given >= argument.value;
    case Op::kMaskedEqual:
      return (given & argument.mask) == argument.value;
  }
  return false;
}

/// The first rule that refuses this call with a notification; nullptr: the profile's default did.
const SyscallRule* find_rule(const SeccompProfile& profile, std::string_view call, const Arguments& arguments) {
  for (const SyscallRule& rule : profile.rules) {
    if (rule.action != SyscallRule::Action::kNotify || rule.name != call) continue;
    bool all = true;
    for (const auto& argument : rule.arguments) all = all && holds(argument, arguments);
    if (all) return &rule;
  }
  return nullptr;
}

std::string call_name(std::uint32_t arch, std::int32_t number) {
  // Token 0 would be libseccomp's word for whatever this machine is.
  char* known = number < 0 || arch == 0 ? nullptr : seccomp_syscall_resolve_num_arch(arch, number);
  if (known == nullptr) return "syscall_" + std::to_string(number);
  std::string name = known;
  std::free(known);
  return name;
}

}  // namespace

std::string describe_call(std::string_view call, const Arguments& arguments) {
  static constexpr CallForm kUnknown{};
  const CallForm* form = find_call_form(call);
  if (form == nullptr) form = &kUnknown;
  std::string text = std::string(call) + "(";
  for (std::size_t at = 0; at < form->count; ++at) {
    text += (at == 0 ? "" : ", ") + argument_text(arguments[at], form->arguments[at]);
  }
  return text + ")";
}

Refusal explain_refusal(std::string_view profile_name, std::uint32_t arch, std::int32_t number,
                        const std::array<std::uint64_t, 6>& arguments) {
  const std::string name(profile_name);
  Refusal refusal;
  refusal.call = call_name(arch, number);
  refusal.text = describe_call(refusal.call, arguments);
  const SeccompProfile* profile = find_profile(profile_name);
  const SyscallRule* rule = profile == nullptr ? nullptr : find_rule(*profile, refusal.call, arguments);
  if (rule != nullptr) {
    refusal.reason = rule->reason;
    refusal.rule = rule->place;
    refusal.error_number = rule->error_number;
  } else {
    refusal.reason = "not among the calls that profile " + name + " allows";
    refusal.rule = name + ".yaml (default)";
  }
  return refusal;
}

}  // namespace kai
