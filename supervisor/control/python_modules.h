// The Python distributions that a package brings along, where the sandbox's Python would import them from: the entry's
// own directory and the package's directories in PYTHONPATH (policies/compile.cc, sdk/python/kai/_load.py).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policies/manifest.h"
#include "supervisor/control/packages.h"

namespace kai {

/// The name of a distribution as all its spellings have it (PEP 503): "Foo__bar.Baz" → "foo-bar-baz".
std::string normalized_python_name(std::string_view name);

class PythonModules {
 public:
  /// `package` is borrowed.
  PythonModules(const StagedPackage& package, const Manifest& manifest);

  /// The versions of `name` in the first directory that has it: one, unless an installation went wrong. Empty: it is
  /// nowhere. An error: the package cannot be read, or its metadata goes beyond what is looked at.
  [[nodiscard]] Result<std::vector<std::string>> versions(std::string_view name) const;
  /// Where it looks, for a message: "/agent, /agent/vendor".
  [[nodiscard]] std::string directories() const;

 private:
  /// NAME-VERSION.dist-info or NAME-VERSION.egg-info.
  struct Metadata {
    std::size_t directory = 0;
    std::string name;  // normalized
    std::string path;
  };
  void add_directory(std::string_view path);
  void list(std::size_t directory);
  [[nodiscard]] Result<std::string> read(const std::string& path) const;

  const StagedPackage& package_;
  std::vector<std::string> directories_;  // relative to the package's root, in Python's order
  std::vector<Metadata> metadata_;
  std::string excess_;  // not empty: what there is too much of
};

}  // namespace kai
