#include "kaictl/package.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/fresh_file.h"
#include "kaictl/json_text.h"
#include "kaictl/package_contents.h"
#include "kaictl/package_tar.h"
#include "kaictl/password.h"
#include "kaictl/progress.h"
#include "package/minisign.h"
#include "package/path.h"

namespace kai {
namespace {

constexpr std::size_t kMaxKeyFile = 4096;
constexpr const char* kPasswordVariable = "KAI_MINISIGN_PASSWORD";

/// A package that was read: a directory's tar, or the .tar.gz itself.
struct Opened {
  std::string path;  // as the operator typed it
  bool is_directory = false;
  mode_t mode = 0;  // of the .tar.gz
  Fd tar;
  PackageContents contents;
};

Outcome<Opened> open_contents(const std::string& path, Progress& progress) {
  Opened opened;
  opened.path = path;
  progress.now("reading " + path);
  auto tar = open_package(path);
  if (!tar) return tl::unexpected(tar.error());
  opened.tar = std::move(tar->tar);
  opened.is_directory = tar->is_directory;
  struct stat info {};
  if (fstat(opened.tar.get(), &info) < 0) return local_failure("cannot read " + path, Error{"fstat", errno, ""});
  opened.mode = info.st_mode & 0777;
  progress.now("taking the check sums of what is in " + path);
  auto contents = read_contents(opened.tar.get(), path);
  if (!contents) return tl::unexpected(contents.error());
  opened.contents = std::move(*contents);
  return opened;
}

std::string files_text(const PackageContents& contents) {
  const std::size_t count = contents.entries.files.size();
  return contents.id + " " + contents.version + ": " + std::to_string(count) + (count == 1 ? " file" : " files");
}

Json names_of(const PackageContents& contents) {
  return Json{{"id", contents.id}, {"version", contents.version}, {"files", contents.entries.files.size()}};
}

std::string path_in(const std::string& directory, std::string_view name) {
  return directory + (directory.ends_with('/') ? "" : "/") + std::string(name);
}

Outcome<> write_whole(const std::string& path, std::string_view text) {
  auto file = FreshFile::open("the file", path);
  if (!file) return tl::unexpected(file.error());
  if (auto written = write_all(file->fd(), text); !written)
    return local_failure("cannot write " + path, written.error());
  if (fchmod(file->fd(), 0644) < 0) return local_failure("cannot write " + path, Error{"fchmod", errno, ""});
  return file->keep();
}

/// What is listed is what is there, symlinks too, which sha256sum alone does not list. Nothing listed: nothing to hold.
Outcome<> check_listed(const Opened& opened, const std::string& hint) {
  const auto listed = package::parse_sums(*opened.contents.sums);
  if (!listed) return fail("INVALID", opened.path + ": " + listed.error().message(), hint);
  if (auto checked = package::check_sums(*listed, opened.contents.entries); !checked) {
    return fail("INVALID", opened.path + ": " + checked.error().message(), hint);
  }
  return {};
}

/// The time of everything in the archive (reproducible-builds.org): 0 unless SOURCE_DATE_EPOCH says another.
Outcome<std::int64_t> archive_time() {
  const char* const text = std::getenv("SOURCE_DATE_EPOCH");
  if (text == nullptr) return 0;
  const std::string_view digits(text);
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
  if (error != std::errc() || end != digits.data() + digits.size() || seconds < 0) {
    return fail("INVALID", "SOURCE_DATE_EPOCH is " + std::string(digits) + ", and no number of seconds since 1970",
                "Unset it, or set it to a number");
  }
  return seconds;
}

/// Writes the archive beside `path` and moves it there; gives its size.
Outcome<std::uint64_t> write_package(const Opened& opened, const OwnFiles& own, const std::string& path, mode_t mode) {
  const auto mtime = archive_time();
  if (!mtime) return tl::unexpected(mtime.error());
  auto file = FreshFile::open("the archive", path);
  if (!file) return tl::unexpected(file.error());
  if (auto written = write_archive(opened.tar.get(), opened.contents, own, *mtime, file->fd()); !written) {
    return tl::unexpected(written.error());
  }
  struct stat info {};
  // Not at all where kaid would not take it.
  if (fstat(file->fd(), &info) == 0 &&
      package::is_bomb(static_cast<std::uint64_t>(info.st_size), opened.contents.unpacked)) {
    return fail("INVALID",
                opened.path + " compresses to less than a " + std::to_string(package::kMaxRatio) +
                    "th of its size: kaid would refuse the archive as a bomb",
                "Take out what is mostly empty, or register the directory itself");
  }
  if (fchmod(file->fd(), mode) < 0 || fstat(file->fd(), &info) < 0) {
    return local_failure("cannot write " + path, Error{"fchmod", errno, ""});
  }
  if (auto kept = file->keep(); !kept) return tl::unexpected(kept.error());
  return static_cast<std::uint64_t>(info.st_size);
}

/// An archive in the directory that it is made of would be in the next one.
Outcome<> check_outside(const std::string& directory, const std::string& archive) {
  std::error_code failed;
  const auto root = std::filesystem::canonical(directory, failed);
  if (failed) return local_failure("cannot read the package", Error{"realpath", failed.value(), directory});
  const auto parent = std::filesystem::path(archive).parent_path();
  const auto target = std::filesystem::canonical(parent.empty() ? "." : parent, failed);
  if (failed == std::errc::no_such_file_or_directory || failed == std::errc::not_a_directory) {
    return FreshFile::no_directory(archive);
  }
  if (failed) return local_failure("cannot write the archive", Error{"realpath", failed.value(), parent.string()});
  if (std::mismatch(root.begin(), root.end(), target.begin(), target.end()).first != root.end()) return {};
  return fail("INVALID", "the archive " + archive + " would lie in the package that it is made of",
              "Give another place: -o ../" + std::filesystem::path(archive).filename().string());
}

bool is_missing(const Error& error) {
  return error.error_number == ENOENT || error.error_number == ENOTDIR || error.error_number == ENAMETOOLONG;
}

/// `what`: "secret key". A directory and what is too large are no key's file.
tl::unexpected<Failure> no_key(const std::string& what, const std::string& path, const Error& error,
                               const std::string& hint) {
  if (is_missing(error)) return fail("NOT_FOUND", "there is no " + what + " at " + path, hint);
  if (error.error_number == EISDIR || error.error_number == EFBIG) {
    return fail("INVALID", path + " is not the file of a " + what, hint);
  }
  return local_failure("cannot read the " + what, error, hint);
}

Outcome<package::MinisignSecretKey> load_secret_key(const std::string& path, Progress& progress) {
  progress.now("reading the secret key " + path);
  auto file = read_file(path, kMaxKeyFile);
  if (!file) return no_key("secret key", path, file.error(), "Give the file that minisign -G wrote");
  progress.now("");
  const auto locked = package::needs_password(*file);
  std::string password;
  if (locked && *locked) {
    if (const char* const given = std::getenv(kPasswordVariable); given != nullptr) {
      password = given;
    } else {
      auto asked = ask_password("Password of " + escape_for_terminal(path) + ": ",
                                std::string("Run it in a terminal, or set ") + kPasswordVariable);
      if (!asked) {
        package::wipe(*file);
        return tl::unexpected(asked.error());
      }
      password.swap(*asked);
    }
  }
  progress.now("making the key of " + path + " from its password");
  auto key = package::parse_secret_key(*file, password);
  package::wipe(*file);
  package::wipe(password);
  if (!key) return fail("INVALID", path + ": " + key.error().message());
  return std::move(*key);
}

Outcome<package::MinisignPublicKey> load_public_key(const std::string& key) {
  if (auto line = package::parse_public_key(key)) return *line;
  const auto file = read_file(key, kMaxKeyFile);
  const std::string hint = "Give minisign's public key itself (RW...), or the .pub file that holds it";
  // Every key of minisign begins so.
  if (!file && is_missing(file.error()) && key.starts_with("RW")) {
    return fail("INVALID", key + " is neither a public key of minisign nor a file", hint);
  }
  if (!file) return no_key("public key", key, file.error(), hint);
  auto parsed = package::parse_public_key(*file);
  if (!parsed) return fail("INVALID", key + ": " + parsed.error().message());
  return *parsed;
}

}  // namespace

Outcome<Answer> package_build(const Context& context, const std::string& directory, std::string archive) {
  struct stat info {};
  if (stat(directory.c_str(), &info) == 0 && !S_ISDIR(info.st_mode)) {
    return fail("INVALID", directory + " is no directory", "Give the directory that holds manifest.json");
  }
  Progress progress(context.show_progress, "");
  auto opened = open_contents(directory, progress);
  if (!opened) return tl::unexpected(opened.error());
  const PackageContents& contents = opened->contents;
  if (archive.empty()) archive = contents.id + "-" + contents.version + ".tar.gz";
  if (auto outside = check_outside(directory, archive); !outside) return tl::unexpected(outside.error());

  Answer answer;
  OwnFiles own;
  const bool holds = contents.sums && check_listed(*opened, "");
  if (holds) {
    own[std::string(package::kSumsFile)] = *contents.sums;
    if (contents.signature) own[std::string(package::kSignatureFile)] = *contents.signature;
  } else {
    const std::string signature = path_in(directory, package::kSignatureFile);
    if (contents.signature) {
      if (unlink(signature.c_str()) < 0)
        return local_failure("cannot remove the old signature", Error{"unlink", errno, signature});
      answer.warnings.push_back(signature + " was of other files or symlinks and is removed; sign the package again");
    }
    std::string& sums = own[std::string(package::kSumsFile)] = package::format_sums(contents.entries);
    if (auto written = write_whole(path_in(directory, package::kSumsFile), sums); !written) {
      return tl::unexpected(written.error());
    }
  }
  progress.now("writing " + archive);
  const auto bytes = write_package(*opened, own, archive, 0644);
  if (!bytes) return tl::unexpected(bytes.error());
  const bool is_signed = own.contains(std::string(package::kSignatureFile));
  Json document = names_of(contents);
  document["archive"] = archive;
  document["bytes"] = *bytes;
  document["signed"] = is_signed;
  document["warnings"] = answer.warnings;
  answer.json = dump(document);
  answer.text = files_text(contents) + " in " + escape_for_terminal(archive) + " (" +
                readable_size(static_cast<double>(*bytes)) + "), " + (is_signed ? "signed" : "not signed yet") + "\n";
  return answer;
}

Outcome<Answer> package_sign(const Context& context, const std::string& path, const std::string& secret_key) {
  Progress progress(context.show_progress, "");
  auto opened = open_contents(path, progress);
  if (!opened) return tl::unexpected(opened.error());
  const PackageContents& contents = opened->contents;
  if (contents.sums) {
    const std::string hint = opened->is_directory ? "Run again: kaictl package build " + path
                                                  : "Build it again from its directory: kaictl package build";
    if (auto checked = check_listed(*opened, hint); !checked) return tl::unexpected(checked.error());
  }
  const auto key = load_secret_key(secret_key, progress);
  if (!key) return tl::unexpected(key.error());

  const std::string sums = contents.sums.value_or(package::format_sums(contents.entries));
  // What minisign writes there itself.
  const std::string comment =
      "timestamp:" + std::to_string(std::time(nullptr)) + "\tfile:" + std::string(package::kSumsFile) + "\thashed";
  const std::string signature = key->sign(sums, comment);
  if (opened->is_directory) {
    if (!contents.sums) {
      if (auto written = write_whole(path_in(path, package::kSumsFile), sums); !written)
        return tl::unexpected(written.error());
    }
    if (auto written = write_whole(path_in(path, package::kSignatureFile), signature); !written) {
      return tl::unexpected(written.error());
    }
  } else {
    // A symlink to the archive stays one.
    std::error_code failed;
    const auto real = std::filesystem::canonical(path, failed);
    if (failed) return local_failure("cannot write the archive", Error{"realpath", failed.value(), path});
    progress.now("writing " + path);
    const OwnFiles own = {{std::string(package::kSumsFile), sums}, {std::string(package::kSignatureFile), signature}};
    if (auto written = write_package(*opened, own, real.string(), opened->mode); !written) {
      return tl::unexpected(written.error());
    }
  }
  const std::string public_key = key->public_key().text();
  Json document = names_of(contents);
  document["path"] = path;
  document["publicKey"] = public_key;
  document["trustedComment"] = comment;
  Answer answer;
  answer.json = dump(document);
  answer.text = files_text(contents) + " signed with " + public_key + "\n";
  return answer;
}

Outcome<Answer> package_verify(const Context& context, const std::string& path, const std::string& key_text) {
  Progress progress(context.show_progress, "reading the public key " + key_text);
  const auto key = load_public_key(key_text);
  if (!key) return tl::unexpected(key.error());
  const auto opened = open_contents(path, progress);
  if (!opened) return tl::unexpected(opened.error());
  const PackageContents& contents = opened->contents;
  if (!contents.sums || !contents.signature) {
    const std::string_view missing = contents.sums ? package::kSignatureFile : package::kSumsFile;
    return fail("BAD_SIGNATURE", path + " is not signed: it has no " + std::string(missing),
                "Sign it: kaictl package sign PATH --secret-key FILE");
  }
  const auto signature = package::parse_signature(*contents.signature);
  if (!signature) return fail("BAD_SIGNATURE", path + ": SHA256SUMS.minisig: " + signature.error().message());
  const std::string hint = "Do not use this package; get it anew from who made it";
  if (auto verified = package::verify(*signature, *key, *contents.sums); !verified) {
    return fail("BAD_SIGNATURE", path + ": SHA256SUMS.minisig: " + verified.error().message(), hint);
  }
  if (auto checked = check_listed(*opened, hint); !checked) return tl::unexpected(checked.error());
  Json document = {{"valid", true}};
  document.update(names_of(contents));
  document["publicKey"] = key->text();
  document["trustedComment"] = signature->trusted_comment;
  document["hashed"] = signature->hashed;
  Answer answer;
  answer.json = dump(document);
  std::string comment = signature->trusted_comment;
  std::replace(comment.begin(), comment.end(), '\t', ' ');
  answer.text = files_text(contents) + ", all as they were signed\nsigned with:     " + key->text() +
                "\ntrusted comment: " + escape_for_terminal(comment) + "\n";
  return answer;
}

}  // namespace kai
