// Directory trees below a descriptor, where no symlink is ever followed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai {

/// "a/b/c" → {"a/b", "c"}; "c" → {"", "c"}.
std::pair<std::string, std::string> split_path(std::string_view path);

/// The directory `path` below `root`; "" is `root` itself.
Result<Fd> open_directory(int root, const std::string& path);
/// Makes `name` in `parent` with mode 0755, whatever the umask is. It must not be there.
Result<> make_directory(int parent, const std::string& name);
/// A new file, open for writing, that nobody else may read yet. It must not be there.
Result<Fd> make_file(int parent, const std::string& name);

/// Names in the directory, without . and .. , in no order.
Result<std::vector<std::string>> list_directory(int directory);

/// Bytes of all regular files in the directory `name` of `parent`. 0: it is not there.
Result<std::uint64_t> tree_size(int parent, const std::string& name);

/// Removes `name` in `parent` with all that is in it. Not there is success.
Result<> remove_tree(int parent, const std::string& name);

}  // namespace kai
