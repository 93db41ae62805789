#include "supervisor/control/packages_signature.h"

#include <array>
#include <optional>

#include "base/text.h"
#include "package/minisign.h"
#include "package/sums.h"

namespace kai {
namespace {

const std::string kSums(package::kSumsFile);
const std::string kSignature(package::kSignatureFile);

tl::unexpected<Failure> invalid(std::string message, std::string hint) {
  return refuse("INVALID", "the package cannot be taken: " + std::move(message), std::move(hint));
}

tl::unexpected<Failure> not_trusted(std::string message, std::string hint) {
  return refuse("DENIED", "the package is refused: " + std::move(message), std::move(hint));
}

/// A file at the package's root; nullopt: there is nothing of that name.
Outcome<std::optional<std::string>> read_root(const StagedPackage& package, const std::string& name,
                                              std::size_t limit) {
  if (!package.entries().contains(name)) return std::nullopt;
  if (!package.has_file(name)) return invalid(name + " is not a regular file", "Make it with: kaictl package sign");
  auto text = package.read(name, limit);
  if (!text) return invalid(text.error().message(), {});
  return std::move(*text);
}

/// As minisign prints it: the little-endian number in upper-case hex.
std::string key_number(const std::array<unsigned char, 8>& id) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string text;
  for (std::size_t at = id.size(); at-- > 0;) {
    text += kDigits[id[at] >> 4];
    text += kDigits[id[at] & 15];
  }
  return text;
}

Outcome<std::string> find_key(const package::MinisignSignature& signature, const std::string& sums,
                              const Policy& policy) {
  std::string why;
  for (const std::string& text : policy.trusted_keys) {
    const auto key = package::parse_public_key(text);
    if (!key || key->id != signature.key_id) continue;
    const auto verified = package::verify(signature, *key, sums);
    if (verified) return key->text();
    why = verified.error().message();
  }
  if (!why.empty()) {
    return not_trusted(kSignature + ": " + escape_for_terminal(why),
                       "The package is not what was signed; get it again from whoever signed it");
  }
  return not_trusted("it is signed by key " + key_number(signature.key_id) + ", which policy " + policy.name +
                         " does not trust [" + policy.rule("trustedKeys") + "]",
                     "If you trust whoever signed it, add the public key to trustedKeys of the agent's policy and run: "
                     "kaictl reload");
}

Outcome<> check_content(const StagedPackage& package, const std::string& text, bool is_signed) {
  const auto listed = package::parse_sums(text);
  const std::string again =
      is_signed
          ? "Get the package again, or build and sign it with kaictl package; sha256sum lists no symlinks: without "
            "kaictl leave them out"
          : "Get the package again, or make the list anew with: kaictl package build";
  if (!listed) return invalid(escape_for_terminal(listed.error().message()), again);
  package::Sums found;
  for (const auto& [path, entry] : package.entries()) {
    const bool own = path == kSums || path == kSignature;
    if (entry.type == PackageEntry::Type::kFile && !own) found.files.emplace(path, entry.sha256);
    if (entry.type == PackageEntry::Type::kSymlink) found.symlinks.emplace(path, entry.target);
  }
  // A list that nobody signed proves nothing, and sha256sum makes none with symlinks in it.
  const auto unlisted = is_signed ? package::UnlistedSymlinks::kRefused : package::UnlistedSymlinks::kAllowed;
  if (const auto same = package::check_sums(*listed, found, unlisted); !same) {
    return invalid(escape_for_terminal(same.error().message()), again);
  }
  return {};
}

}  // namespace

Outcome<std::string> find_signer(const StagedPackage& package, const Policy& policy) {
  const auto sums = read_root(package, kSums, package::kMaxSumsBytes);
  if (!sums) return tl::unexpected(sums.error());
  const auto signature = read_root(package, kSignature, package::kMaxSignatureBytes);
  if (!signature) return tl::unexpected(signature.error());
  if (!*sums) {
    if (!*signature) return std::string();
    return invalid("there is " + kSignature + " and no " + kSums + ", which it signs", "Get the package again");
  }
  std::string signer;
  if (*signature) {
    const auto parsed = package::parse_signature(**signature);
    if (!parsed)
      return invalid(kSignature + ": " + escape_for_terminal(parsed.error().message()),
                     "Sign it with: kaictl package sign");
    auto key = find_key(*parsed, **sums, policy);
    if (!key) return key;
    signer = std::move(*key);
  }
  if (auto same = check_content(package, **sums, signature->has_value()); !same) return tl::unexpected(same.error());
  return signer;
}

Outcome<> may_be_unsigned(const Policy& policy, const UnsignedSource& source) {
  const std::string rule = " [" + policy.rule("allowUnsigned") + "]";
  const std::string sign =
      "Sign it (kaictl package sign PATH --secret-key FILE) with a key that the policy has under trustedKeys";
  if (policy.allow_unsigned == Unsigned::kNever) {
    return not_trusted("it is not signed, and policy " + policy.name + " has allowUnsigned: never" + rule, sign);
  }
  if (!source.local_directory) {
    return not_trusted("it is not signed, and policy " + policy.name +
                           " lets that only be of a local directory, not of an archive" + rule,
                       sign + ", or unpack it, look at it and name the directory");
  }
  if (source.uid != 0 && source.uid != source.owner) {
    return not_trusted("it is not signed, and policy " + policy.name +
                           " lets only root and the owner of kaid's state directory (uid " +
                           std::to_string(source.owner) + ") bring such a one; you are uid " +
                           std::to_string(source.uid) + rule,
                       sign + ", or ask one of them");
  }
  return {};
}

Outcome<> may_change_signer(const std::string& id, const std::string& from, const std::string& to,
                            const Policy& policy) {
  if (from == to || from.empty() || policy.grants_power("signerChange")) return {};
  return not_trusted(
      "agent '" + id + "' is signed by " + from + ", and this version is " +
          (to.empty() ? "not signed" : "signed by " + to),
      "Have it signed by the same key; if the change is meant, add signerChange to the grants of policy " +
          policy.name + " and run: kaictl reload");
}

}  // namespace kai
