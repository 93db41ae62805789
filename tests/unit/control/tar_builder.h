// Tars for the package store's tests, hostile ones too: libarchive writes whatever it is told.
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/unix.h"

namespace kai {

struct TarMember {
  std::string name;
  std::string content = {};
  mode_t mode = S_IFREG | 0644;
  std::string link = {};       ///< text of a symlink
  std::string hard_link = {};  ///< name of another member
  la_int64_t data_at = -1;     ///< sparse: 4096 bytes of the content from there on, the rest is a hole
};

enum class TarFormat { kPax, kGnu, kUstar };

class TarBuilder {
 public:
  explicit TarBuilder(TarFormat format = TarFormat::kPax, bool gzip = false)
      : archive_(archive_write_new(), archive_write_free) {
    if (format == TarFormat::kPax) archive_write_set_format_pax(archive_.get());
    if (format == TarFormat::kGnu) archive_write_set_format_gnutar(archive_.get());
    if (format == TarFormat::kUstar) archive_write_set_format_ustar(archive_.get());
    if (gzip) archive_write_add_filter_gzip(archive_.get());
    archive_write_set_bytes_in_last_block(archive_.get(), 1);
    const auto append = [](archive*, void* bytes, const void* block, std::size_t size) {
      static_cast<std::string*>(bytes)->append(static_cast<const char*>(block), size);
      return static_cast<la_ssize_t>(size);
    };
    if (archive_write_open(archive_.get(), &bytes_, nullptr, append, nullptr) != ARCHIVE_OK) std::abort();
  }

  TarBuilder& add(const TarMember& member) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), member.name.c_str());
    archive_entry_set_mode(entry.get(), member.mode);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(member.content.size()));
    if (!member.link.empty()) archive_entry_set_symlink(entry.get(), member.link.c_str());
    if (member.data_at >= 0) archive_entry_sparse_add_entry(entry.get(), member.data_at, 4096);
    if (!member.hard_link.empty()) archive_entry_set_hardlink(entry.get(), member.hard_link.c_str());
    if (archive_write_header(archive_.get(), entry.get()) < ARCHIVE_WARN) std::abort();
    archive_write_data(archive_.get(), member.content.data(), member.content.size());
    return *this;
  }
  TarBuilder& file(const std::string& name, const std::string& content = "x", mode_t mode = 0644) {
    return add({name, content, S_IFREG | mode});
  }
  TarBuilder& directory(const std::string& name) { return add({name, "", S_IFDIR | 0755}); }
  TarBuilder& symlink(const std::string& name, const std::string& target) {
    return add({name, "", S_IFLNK | 0777, target});
  }

  std::string bytes() {
    archive_write_close(archive_.get());
    return bytes_;
  }

 private:
  std::string bytes_;  // before archive_, which writes into it to its end
  std::unique_ptr<archive, int (*)(archive*)> archive_;
};

/// A header of ustar as raw bytes, for what libarchive does not write.
inline std::string raw_tar_header(const std::string& name, char type, const std::string& size_octal) {
  std::string header(512, '\0');
  header.replace(0, std::min<std::size_t>(name.size(), 100), name.substr(0, 100));
  header.replace(100, 7, "0000644");
  header.replace(108, 7, "0000000");
  header.replace(116, 7, "0000000");
  header.replace(124, size_octal.size(), size_octal);
  header.replace(136, 11, "00000000000");
  header[156] = type;
  header.replace(257, 5, "ustar");
  header.replace(263, 2, "00");
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  std::string octal(6, '0');
  for (std::size_t at = 6; at-- > 0; sum >>= 3) octal[at] = static_cast<char>('0' + (sum & 7));
  header.replace(148, 8, octal + '\0' + ' ');
  return header;
}

}  // namespace kai
