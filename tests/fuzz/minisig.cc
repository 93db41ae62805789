// minisign's files as a package or an operator brings them: never a crash, and no signature that nobody made holds.
// What is encrypted is not decrypted: scrypt takes as much memory as minisign does.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "package/minisign.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kai::package;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // The key of tests/unit/package/minisign_fixture.h, which signed one message only.
  static const MinisignPublicKey key = *parse_public_key("RWQNF6fsJcM0SKL6xgdpmyMnRlUcKXIF39rwp+xPJR6fEjH1yqR5tY38");
  if (const auto signature = parse_signature(text)) {
    if (signature->trusted_comment.find('\n') != std::string::npos) __builtin_trap();
    if (verify(*signature, key, "another message")) __builtin_trap();
    if (verify(*signature, key, "from kAI\n") && signature->trusted_comment != "release 1") __builtin_trap();
  }
  if (const auto parsed = parse_public_key(text)) {
    const auto again = parse_public_key(parsed->text());
    if (!again || *again != *parsed) __builtin_trap();
  }
  const auto locked = needs_password(text);
  if (locked && !*locked) {
    if (const auto secret = parse_secret_key(text, "")) {
      const auto signature = parse_signature(secret->sign("message", "comment"));
      if (!signature || !verify(*signature, secret->public_key(), "message")) __builtin_trap();
    }
  }
  return 0;
}
