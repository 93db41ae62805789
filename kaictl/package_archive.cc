// The package as .tar.gz: the same bytes for the same files.
#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#include <memory>

#include "kaictl/package_contents.h"
#include "kaictl/package_tar_reader.h"

namespace kai {
namespace {

struct ArchiveDeleter {
  void operator()(archive* writer) const { archive_write_free(writer); }
};
struct EntryDeleter {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

/// libarchive reads names by this thread's locale, which is C in kaictl, and would not store one that is not ASCII.
class Utf8Names {
 public:
  Utf8Names() : locale_(newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)), before_(uselocale(locale_)) {}
  Utf8Names(const Utf8Names&) = delete;
  Utf8Names& operator=(const Utf8Names&) = delete;
  ~Utf8Names() {
    uselocale(before_);
    if (is_set()) freelocale(locale_);
  }
  [[nodiscard]] bool is_set() const { return locale_ != nullptr; }

 private:
  locale_t locale_;
  locale_t before_;
};

class ArchiveWriter {
 public:
  ArchiveWriter(const PackageContents& contents, const OwnFiles& own, std::int64_t mtime)
      : top_(contents.top), own_(own), next_own_(own_.begin()), mtime_(mtime), writer_(archive_write_new()) {}

  Outcome<> open(int out);
  Outcome<> copy(PackageTarReader& reader, const PackageMember& member);
  Outcome<> finish();

 private:
  [[nodiscard]] std::string below(const std::string& path) const;
  Outcome<> write_header(const PackageMember& member);
  Outcome<> write_data(std::string_view bytes);
  Outcome<> write_own();
  [[nodiscard]] tl::unexpected<Failure> failed() const {
    return local_failure("cannot write the archive", Error{archive_error_string(writer_.get()), 0, ""});
  }

  const std::string& top_;
  const OwnFiles& own_;
  OwnFiles::const_iterator next_own_;
  std::int64_t mtime_;
  std::unique_ptr<archive, ArchiveDeleter> writer_;
};

Outcome<> ArchiveWriter::open(int out) {
  archive* const writer = writer_.get();
  archive_write_set_format_pax_restricted(writer);
  // gzip's header would have the time of day.
  if (archive_write_add_filter_gzip(writer) != ARCHIVE_OK ||
      archive_write_set_options(writer, "gzip:!timestamp") != ARCHIVE_OK ||
      archive_write_open_fd(writer, out) != ARCHIVE_OK) {
    return failed();
  }
  return {};
}

/// As the member would be called in a tar without a top directory; the top itself: "".
std::string ArchiveWriter::below(const std::string& path) const {
  if (top_.empty()) return path;
  return path.size() > top_.size() ? path.substr(top_.size() + 1) : "";
}

Outcome<> ArchiveWriter::copy(PackageTarReader& reader, const PackageMember& member) {
  const std::string name = below(member.path);
  if (name == package::kSumsFile || name == package::kSignatureFile) return {};
  // Where pack_directory, which sorts them, would have them.
  while (next_own_ != own_.end() && name.substr(0, name.find('/')) > next_own_->first) {
    if (auto written = write_own(); !written) return written;
  }
  if (auto written = write_header(member); !written) return written;
  if (member.type != PackageMember::Type::kFile) return {};
  return reader.read([this](std::string_view bytes) { return write_data(bytes); });
}

Outcome<> ArchiveWriter::write_own() {
  const auto& [name, text] = *next_own_++;
  PackageMember member;
  member.type = PackageMember::Type::kFile;
  member.path = top_.empty() ? name : top_ + "/" + name;
  member.size = text.size();
  if (auto written = write_header(member); !written) return written;
  return write_data(text);
}

Outcome<> ArchiveWriter::write_header(const PackageMember& member) {
  const std::unique_ptr<archive_entry, EntryDeleter> entry(archive_entry_new());
  archive_entry_copy_pathname(entry.get(), member.path.c_str());
  archive_entry_set_mtime(entry.get(), mtime_, 0);
  archive_entry_set_uid(entry.get(), 0);
  archive_entry_set_gid(entry.get(), 0);
  const bool is_file = member.type == PackageMember::Type::kFile;
  archive_entry_set_perm(entry.get(), is_file && !member.executable ? 0644 : 0755);
  switch (member.type) {
    case PackageMember::Type::kDirectory:
      archive_entry_set_filetype(entry.get(), AE_IFDIR);
      break;
    case PackageMember::Type::kFile:
      archive_entry_set_filetype(entry.get(), AE_IFREG);
      archive_entry_set_size(entry.get(), static_cast<la_int64_t>(member.size));
      break;
    case PackageMember::Type::kSymlink:
      archive_entry_set_filetype(entry.get(), AE_IFLNK);
      archive_entry_copy_symlink(entry.get(), member.target.c_str());
      break;
  }
  // ARCHIVE_WARN is fatal too: a name that could not be stored as it is would be another name.
  return archive_write_header(writer_.get(), entry.get()) == ARCHIVE_OK ? Outcome<>() : failed();
}

Outcome<> ArchiveWriter::write_data(std::string_view bytes) {
  if (archive_write_data(writer_.get(), bytes.data(), bytes.size()) == static_cast<la_ssize_t>(bytes.size())) return {};
  return failed();
}

Outcome<> ArchiveWriter::finish() {
  while (next_own_ != own_.end()) {
    if (auto written = write_own(); !written) return written;
  }
  return archive_write_close(writer_.get()) == ARCHIVE_OK ? Outcome<>() : failed();
}

}  // namespace

Outcome<> write_archive(int tar, const PackageContents& contents, const OwnFiles& own, std::int64_t mtime, int out) {
  const Utf8Names names;
  if (!names.is_set()) return local_failure("cannot write the archive", Error{"newlocale", errno, "C.UTF-8"});
  auto reader = PackageTarReader::open(tar, "the package");
  if (!reader) return tl::unexpected(reader.error());
  ArchiveWriter writer(contents, own, mtime);
  if (auto opened = writer.open(out); !opened) return opened;
  for (;;) {
    const auto member = reader->next();
    if (!member) return tl::unexpected(member.error());
    if (!*member) return writer.finish();
    if (auto copied = writer.copy(*reader, **member); !copied) return copied;
  }
}

}  // namespace kai
