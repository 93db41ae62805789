#include "supervisor/control/packages_signature.h"

#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/signed_package.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

Policy trusting(std::vector<std::string> keys) {
  Policy policy = builtin_policy(true);
  policy.name = "mine";
  policy.trusted_keys = std::move(keys);
  return policy;
}

/// The signer of what is unpacked from `tar`, or "CODE: message".
std::string signer_of(const std::string& tar, const Policy& policy) {
  const TempDirectory directory;
  const auto store = PackageStore::open(directory / "packages");
  REQUIRE(store);
  const auto memory = sealed_memfd("tar", tar);
  REQUIRE(memory);
  const auto staged = store->stage(memory->get());
  REQUIRE_MESSAGE(staged, (staged ? "" : staged.error().message()));
  const auto signer = find_signer(*staged, policy);
  return signer ? *signer : signer.error().code + ": " + signer.error().message;
}

std::string signer_of(const PackageFiles& files, const Policy& policy) {
  return signer_of(tar_of(files), policy);
}

bool has(const std::string& text, const std::string& part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

const PackageFiles kFiles = {{"manifest.json", "{}"}, {"main.sh", "#!/bin/sh\n"}, {"lib/a b.txt", "text"}};

TEST_CASE("the signer of a package is the trusted key that its SHA256SUMS is signed by") {
  CHECK(signer_of(kFiles, trusting({})).empty());
  CHECK(signer_of(listed(kFiles, nullptr), trusting({kSigner.public_key})).empty());
  CHECK(signer_of(listed(kFiles, &kSigner), trusting({kSigner.public_key})) == kSigner.public_key);
  CHECK(signer_of(listed(kFiles, &kOtherSigner), trusting({kSigner.public_key, kOtherSigner.public_key})) ==
        kOtherSigner.public_key);
}

TEST_CASE("what minisign and sha256sum made, they made right") {
  // find . -type f | sha256sum, minisign -S: with "./", and the older form of the signature.
  PackageFiles files = kFiles;
  const std::string sums = sums_of(kFiles);
  std::string dotted;
  for (std::size_t begin = 0; begin < sums.size();) {
    const std::size_t end = sums.find('\n', begin) + 1;
    std::string line = sums.substr(begin, end - begin);
    line.insert(66, "./");
    dotted += line;
    begin = end;
  }
  files["SHA256SUMS"] = dotted;
  files["SHA256SUMS.minisig"] = signature_of(dotted, kSigner);
  CHECK(signer_of(files, trusting({kSigner.public_key})) == kSigner.public_key);
}

TEST_CASE("a signature by any other key is refused, trusted keys or none") {
  const std::string foreign = signer_of(listed(kFiles, &kOtherSigner), trusting({kSigner.public_key}));
  has(foreign, "DENIED: ");
  has(foreign, "signed by key EE1D48CD233EA148, which policy mine does not trust [");
  has(signer_of(listed(kFiles, &kSigner), trusting({})), "DENIED: ");
  // Another key that calls itself by the trusted one's number.
  PackageFiles forged = listed(kFiles, nullptr);
  auto posing = package::parse_public_key(kOtherSigner.public_key);
  const auto real = package::parse_public_key(kSigner.public_key);
  REQUIRE(posing);
  REQUIRE(real);
  posing->id = real->id;
  forged["SHA256SUMS.minisig"] = signature_of(forged["SHA256SUMS"], kSigner);
  const std::string refused = signer_of(forged, trusting({posing->text()}));
  has(refused, "DENIED: ");
  has(refused, "does not hold");
}

TEST_CASE("a package that was changed after it was signed is refused") {
  const Policy policy = trusting({kSigner.public_key});
  const PackageFiles good = listed(kFiles, &kSigner);
  PackageFiles files = good;
  SUBCASE("a file is another") {
    files["main.sh"] = "#!/bin/sh\nevil\n";
    has(signer_of(files, policy), "INVALID: the package cannot be taken: the file main.sh does not have the check sum");
  }
  SUBCASE("a file is gone") {
    files.erase("lib/a b.txt");
    has(signer_of(files, policy), "INVALID: the package cannot be taken: the file lib/a b.txt is listed");
  }
  SUBCASE("a file more") {
    files["sitecustomize.py"] = "evil";
    has(signer_of(files, policy), "the file sitecustomize.py is in the package but is not listed");
  }
  SUBCASE("a list below the root is a file like any other") {
    files["lib/SHA256SUMS"] = "x";
    has(signer_of(files, policy), "the file lib/SHA256SUMS is in the package but is not listed");
  }
  SUBCASE("the list was made anew") {
    files["main.sh"] = "#!/bin/sh\nevil\n";
    PackageFiles plain = files;
    plain.erase("SHA256SUMS");
    plain.erase("SHA256SUMS.minisig");
    files["SHA256SUMS"] = sums_of(plain);
    has(signer_of(files, policy), "DENIED: ");
  }
  SUBCASE("the list is gone") {
    files.erase("SHA256SUMS");
    has(signer_of(files, policy), "INVALID: ");
  }
  SUBCASE("the signature was stripped: not signed, and that has rules of its own") {
    files.erase("SHA256SUMS.minisig");
    CHECK(signer_of(files, policy).empty());
  }
  SUBCASE("the signature is no signature") {
    for (const char* text : {"", "x", "untrusted comment: x\nRW\n"}) {
      files["SHA256SUMS.minisig"] = text;
      has(signer_of(files, policy), "INVALID: the package cannot be taken: SHA256SUMS.minisig: ");
    }
    files["SHA256SUMS.minisig"] = std::string(package::kMaxSignatureBytes + 1, 'x');
    has(signer_of(files, policy), "SHA256SUMS.minisig: is larger than 16 KB");
  }
  SUBCASE("not signed, the list is held to the files all the same") {
    files.erase("SHA256SUMS.minisig");
    files["main.sh"] = "other";
    has(signer_of(files, policy), "INVALID: ");
  }
}

/// With a list that has a line of the symlink json.sh.
PackageFiles with_symlink_line(const std::string& target, const TestSigner* signer) {
  PackageFiles files = kFiles;
  files["SHA256SUMS"] = sums_of(kFiles) + "# symlink json.sh -> " + target + "\n";
  if (signer != nullptr) files["SHA256SUMS.minisig"] = signature_of(files["SHA256SUMS"], *signer);
  return files;
}

std::string with_symlink(const PackageFiles& files, const std::string& path, const std::string& target) {
  TarBuilder tar;
  for (const auto& [name, content] : files) tar.file(name, content);
  return tar.symlink(path, target).bytes();
}

TEST_CASE("symlinks of a signed package are those that it was signed with") {
  const Policy policy = trusting({kSigner.public_key});
  const PackageFiles plain = listed(kFiles, &kSigner);
  const PackageFiles lined = with_symlink_line("main.sh", &kSigner);
  CHECK(signer_of(with_symlink(lined, "json.sh", "main.sh"), policy) == kSigner.public_key);
  const std::string why = "INVALID: the package cannot be taken: the symlink ";
  has(signer_of(with_symlink(plain, "json.sh", "main.sh"), policy),
      why + "json.sh is in the package but is not listed in SHA256SUMS");
  has(signer_of(with_symlink(lined, "lib/x", "../main.sh"), policy),
      why + "json.sh is listed in SHA256SUMS but is not");
  has(signer_of(with_symlink(lined, "json.sh", "./main.sh"), policy),
      why + "json.sh does not lead where SHA256SUMS says");
  has(signer_of(lined, policy), why + "json.sh is listed in SHA256SUMS but is not");
  PackageFiles file_instead = lined;
  file_instead["json.sh"] = "x";
  has(signer_of(file_instead, policy), "the file json.sh is in the package but is not listed");
  // The line is behind the signature as everything in the list is.
  PackageFiles added = plain;
  added["SHA256SUMS"] = lined.at("SHA256SUMS");
  has(signer_of(with_symlink(added, "json.sh", "main.sh"), policy), "DENIED: ");
  has(signer_of(with_symlink(with_symlink_line("main.sh -> x", &kSigner), "json.sh", "main.sh"), policy),
      "INVALID: the package cannot be taken: line 4 of SHA256SUMS begins as a symlink's");
}

TEST_CASE("symlinks of a package that is not signed may be missing in its list, as sha256sum makes it") {
  const Policy policy = trusting({kSigner.public_key});
  CHECK(signer_of(with_symlink(listed(kFiles, nullptr), "json.sh", "main.sh"), policy).empty());
  const PackageFiles lined = with_symlink_line("main.sh", nullptr);
  CHECK(signer_of(with_symlink(lined, "json.sh", "main.sh"), policy).empty());
  has(signer_of(with_symlink(lined, "json.sh", "lib"), policy), "INVALID: ");
  has(signer_of(lined, policy), "INVALID: ");
}

TEST_CASE("SHA256SUMS and its signature are files, not what a symlink leads to") {
  const Policy policy = trusting({kSigner.public_key});
  const PackageFiles good = listed(kFiles, &kSigner);
  TarBuilder linked_sums;
  linked_sums.file("manifest.json", "{}").file("x", good.at("SHA256SUMS")).symlink("SHA256SUMS", "x");
  has(signer_of(linked_sums.bytes(), policy), "INVALID: the package cannot be taken: SHA256SUMS is not a regular file");
  TarBuilder linked_signature;
  linked_signature.file("manifest.json", "{}").directory("SHA256SUMS.minisig");
  has(signer_of(linked_signature.bytes(), policy), "SHA256SUMS.minisig is not a regular file");
}

TEST_CASE("not signed: by the policy, of a local directory, by root and the owner of the state directory alone") {
  Policy policy = trusting({});
  const auto refusal = [&](const UnsignedSource& source) {
    const auto may = may_be_unsigned(policy, source);
    if (may) return std::string();
    CHECK(may.error().code == "DENIED");
    CHECK(may.error().hint.find("kaictl package sign") != std::string::npos);
    return may.error().message;
  };
  CHECK(refusal({true, 0, 1000}).empty());
  CHECK(refusal({true, 1000, 1000}).empty());
  has(refusal({true, 1001, 1000}), "you are uid 1001");
  has(refusal({false, 0, 1000}), "a local directory, not of an archive");
  has(refusal({false, 1000, 1000}), "not of an archive");
  policy.allow_unsigned = Unsigned::kNever;
  has(refusal({true, 0, 0}), "allowUnsigned: never [");
}

TEST_CASE("the signer of an agent changes with the operator's leave alone") {
  Policy policy = trusting({});
  const auto may = [&](const std::string& from, const std::string& to) {
    const auto outcome = may_change_signer("a", from, to, policy);
    if (!outcome) CHECK(outcome.error().code == "DENIED");
    return outcome.has_value();
  };
  CHECK(may("", ""));
  CHECK(may("", "A"));
  CHECK(may("A", "A"));
  CHECK_FALSE(may("A", "B"));
  CHECK_FALSE(may("A", ""));
  policy.grants = {"signerChange"};
  CHECK(may("A", "B"));
  CHECK(may("A", ""));
}

}  // namespace
}  // namespace kai
