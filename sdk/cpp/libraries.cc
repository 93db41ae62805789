#include "sdk/cpp/libraries.h"

#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

namespace {

using Paths = std::set<std::string>;

// All objects of the process but the program itself and the kernel's.
Paths loaded_objects() {
  Paths paths;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* found) {
        if (*info->dlpi_name != '\0') static_cast<Paths*>(found)->insert(info->dlpi_name);
        return 0;
      },
      &paths);
  return paths;
}

bool is_of_the_system(const std::string& path) {
  return path.rfind("/usr/", 0) == 0 || path.rfind("/lib", 0) == 0;
}

// The names of the libraries that an object needs, as its linker wrote them.
std::vector<std::string> needed_by(const link_map& object) {
  const char* strings = nullptr;
  std::vector<std::string> names;
  for (const ElfW(Dyn)* entry = object.l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag != DT_STRTAB) continue;
    strings = reinterpret_cast<const char*>(entry->d_un.d_ptr);  // NOLINT(performance-no-int-to-ptr): ELF's own type
  }
  for (const ElfW(Dyn)* entry = object.l_ld; strings != nullptr && entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_NEEDED) names.emplace_back(strings + entry->d_un.d_val);
  }
  return names;
}

// The dynamic linker knows a dependency by its name, so a library that a version brings along in its package is used
// for every other version that needs one of that name. "": there is none.
std::string shared_dependency(void* handle, const Paths& before) {
  link_map* object = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, static_cast<void*>(&object)) != 0) return {};
  for (; object != nullptr; object = object->l_next) {  // what was loaded with it follows it
    if (before.count(object->l_name) != 0) continue;
    for (const std::string& name : needed_by(*object)) {
      const auto shared = std::find_if(before.begin(), before.end(), [&](const std::string& path) {
        return !is_of_the_system(path) && path.substr(path.rfind('/') + 1) == name;
      });
      if (shared != before.end()) return *shared;
    }
  }
  return {};
}

// Threads of a library go on when its version is dropped; without any, nothing can be in its code.
bool is_single_threaded() {
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(opendir("/proc/self/task"), closedir);
  if (!tasks) return false;
  int entries = 0;
  while (readdir(tasks.get()) != nullptr) ++entries;
  return entries == 3;  // with . and ..
}

bool is_loaded(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
  if (handle != nullptr) dlclose(handle);
  return handle != nullptr;
}

}  // namespace

Library* Libraries::load(const std::string& path) {
  Library library;
  library.path = path;
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return fail(path + ": " + std::strerror(errno));
  library.device = status.st_dev;
  library.inode = status.st_ino;
  if (!unload_earlier(library)) return nullptr;

  const Paths before = loaded_objects();
  library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library.handle == nullptr) return fail(std::string("cannot load the agent: ") + dlerror());
  const std::string shared = libraries_.empty() ? "" : shared_dependency(library.handle, before);
  if (!shared.empty()) {
    fail(path + " needs a library of the name of " + shared +
         ", which another version has brought along: upgrade hard");
  } else if (find_border(library)) {
    return &libraries_.emplace_back(std::move(library));
  }
  dlclose(library.handle);
  return nullptr;
}

Library* Libraries::fail(const std::string& message) {
  failure_ = message;
  return nullptr;
}

// The dynamic linker never loads a file twice: the second time it would be the first one's static data again.
bool Libraries::unload_earlier(const Library& same_file) {
  const auto earlier = std::find_if(libraries_.begin(), libraries_.end(), [&](const Library& one) {
    return one.device == same_file.device && one.inode == same_file.inode;
  });
  if (earlier == libraries_.end()) return true;
  const std::string path = earlier->path;
  if (!earlier->is_dropped) return fail(path + " is the version that serves"), false;
  if (!is_single_threaded()) {
    return fail(path + " was loaded before in this process and may still have threads: upgrade hard"), false;
  }
  dlclose(earlier->handle);
  libraries_.erase(earlier);
  if (!is_loaded(path)) return true;
  return fail(path +
              " was loaded before in this process and cannot be unloaded (g++ has -fno-gnu-unique for that): upgrade "
              "hard"),
         false;
}

bool Libraries::find_border(Library& library) {
  const auto* abi = static_cast<const unsigned*>(dlsym(library.handle, KAI_AGENT_ABI_SYMBOL));
  library.main = reinterpret_cast<int (*)(int)>(dlsym(library.handle, KAI_AGENT_MAIN_SYMBOL));
  library.functions = static_cast<const kai_library*>(dlsym(library.handle, KAI_AGENT_LIBRARY_SYMBOL));
  if (abi == nullptr || library.main == nullptr) {
    return fail(library.path + " is not an agent: end one of its source files with KAI_AGENT(Class)"), false;
  }
  if (*abi != KAI_AGENT_ABI) {
    return fail(library.path + " was built for agent ABI " + std::to_string(*abi) + "; this runner has " +
                std::to_string(KAI_AGENT_ABI) + ": build it again with this SDK"),
           false;
  }
  return true;
}
