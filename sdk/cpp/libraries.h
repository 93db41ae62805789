// The agents' libraries of this process: the one that serves, one that may be loaded beside it, and those of before.
#pragma once

#include <sys/types.h>

#include <list>
#include <set>
#include <string>

#include "kai/abi.h"

struct Library {
  std::string path;
  dev_t device = 0;  // with the inode: which file it is
  ino_t inode = 0;
  void* handle = nullptr;                  // of dlopen
  const kai_library* functions = nullptr;  // nullptr: built with an SDK from before soft upgrades
  int (*main)(int) = nullptr;
  bool is_dropped = false;  // no code of it is called any more, but perhaps by threads of its own
};

class Libraries {
 public:
  /// Loads the file with static data of its own, whatever else was loaded. nullptr: see failure(). It stays loaded
  /// until the process ends; or, when it is dropped, until the same file is loaded again.
  Library* load(const std::string& path);
  const std::string& failure() const { return failure_; }

 private:
  Library* fail(const std::string& message);
  bool unload_earlier(const Library& same_file);
  bool find_border(Library& library);

  std::list<Library> libraries_;
  std::string failure_;
};
