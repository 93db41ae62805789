// What the one who started kaid has, and an agent must not: terminal, descriptors, directory, environment, session,
// keys, groups. tests/escape/launcher.py gives all of it to kaid and to the control run alike.
#include <dirent.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/escape/attempts.h"

namespace kai::escape {

// syscall(2), as glibc's ioctl(3) cuts the request to what the kernel looks at.
Verdict terminal_request(unsigned long request, const void* argument) {
  return by_result(syscall(SYS_ioctl, STDIN_FILENO, request, argument));
}

// The shift state (6), the only question to TIOCLINUX that leaves a console as it is.
Verdict console_request(unsigned long request) {
  char argument[16] = {6};
  return terminal_request(request, argument);
}

Verdict own_controlling_terminal() {
  (void)setsid();  // of a child, which leads nothing yet
  return by_result(ioctl(STDIN_FILENO, TIOCSCTTY, 1));
}

Verdict leaked_descriptors() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return refused("/proc/self/fd");
  while (const dirent* entry = readdir(directory)) {
    const int fd = std::atoi(entry->d_name);
    struct stat status {};
    if (fd <= STDERR_FILENO || fd == dirfd(directory) || fstat(fd, &status) < 0) continue;
    // The pipe to the probe's parent is the attempt's own.
    if (!S_ISFIFO(status.st_mode)) return escaped("descriptor " + std::to_string(fd));
  }
  return refused_as("not-there", "none beside 0 to 2");
}

Verdict through_leaked_directory() {
  const std::string file = setting("FILE").substr(setting("DIRECTORY").size() + 1);
  for (int fd = 3; fd < 256; ++fd) {
    if (open(("/proc/self/fd/" + std::to_string(fd) + "/" + file).c_str(), O_RDONLY | O_CLOEXEC) >= 0) {
      return escaped("through descriptor " + std::to_string(fd));
    }
  }
  errno = ENOENT;
  return refused();
}

Verdict launchers_directory() {
  return by_result(open(setting("FILE").substr(setting("DIRECTORY").size() + 1).c_str(), O_RDONLY | O_CLOEXEC));
}

Verdict secret_in_environment() {
  const char* secret = std::getenv("KAI_TEST_SECRET");
  return secret != nullptr ? escaped(secret) : refused_as("not-there");
}

Verdict secret_of_pid_1() {
  if (open("/proc/1/environ", O_RDONLY | O_CLOEXEC) < 0) return refused();
  return contents("/proc/1/environ").find("KAI_TEST_SECRET=") != std::string::npos ? escaped("PID 1 holds the secret")
                                                                                   : refused_as("not-there");
}

// A leader outside of the pid namespace is shown as 0.
Verdict launchers_session() {
  return getsid(0) == 0 ? escaped("a session of outside")
                        : refused_as("not-there", "session " + std::to_string(getsid(0)));
}

Verdict launchers_process_group() {
  return getpgrp() == 0 ? escaped("a process group of outside")
                        : refused_as("not-there", "process group " + std::to_string(getpgrp()));
}

Verdict launchers_key() {
  return by_result(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "kai-escape-key", 0));
}

Verdict launchers_groups() {
  gid_t groups[256];
  const int count = getgroups(256, groups);
  for (int at = 0; at < count; ++at) {
    if (groups[at] != getgid()) return escaped("group " + std::to_string(groups[at]));
  }
  return refused_as("not-there");
}

}  // namespace kai::escape
