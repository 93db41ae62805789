// A file system of the test's own (FUSE, root) that does not answer.
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "base/fd.h"

namespace kai::keeper {

/// Whoever looks into it waits in the kernel, where SIGKILL does not reach him.
class HungDirectory {
 public:
  HungDirectory() : fuse_(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    std::string name = "/run/kai-hung-XXXXXX";
    path_ = mkdtemp(name.data());
    const std::string options =
        "fd=" + std::to_string(fuse_.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
    REQUIRE(mount("kai-hung", path_.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) == 0);
    serving_ = std::thread([this] { serve(); });
  }
  ~HungDirectory() {
    let_go();
    serving_.join();
    (void)umount2(path_.c_str(), MNT_DETACH);
    (void)rmdir(path_.c_str());
  }
  HungDirectory(const HungDirectory&) = delete;
  HungDirectory& operator=(const HungDirectory&) = delete;

  [[nodiscard]] std::string below() const { return path_ + "/x"; }
  /// Ends every wait.
  void let_go() const { (void)umount2(path_.c_str(), MNT_FORCE); }

 private:
  // Says its hello, which the kernel needs, and reads every other request without an answer.
  void serve() const {
    std::vector<char> request(1 << 17);
    for (;;) {
      const ssize_t length = read(fuse_.get(), request.data(), request.size());
      if (length < 0 && (errno == EINTR || errno == ENOENT)) continue;
      if (length < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
      fuse_in_header header{};
      std::memcpy(&header, request.data(), sizeof header);
      if (header.opcode != FUSE_INIT) continue;
      struct {
        fuse_out_header header;
        fuse_init_out init;
      } answer{};
      answer.header.len = sizeof answer;
      answer.header.unique = header.unique;
      answer.init.major = FUSE_KERNEL_VERSION;
      answer.init.minor = 31;
      answer.init.max_write = 4096;
      if (write(fuse_.get(), &answer, sizeof answer) < 0) return;
    }
  }

  Fd fuse_;
  std::string path_;
  std::thread serving_;
};

}  // namespace kai::keeper
