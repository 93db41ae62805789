# One interface target that every target of ours links: warnings are errors.
add_library(kai_warnings INTERFACE)
target_compile_options(kai_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor
  -Wold-style-cast -Wcast-qual -Wformat=2 -Wimplicit-fallthrough -Wundef
  # Designated initializers leave the rest to the member initializers on purpose.
  -Wno-missing-field-initializers
  # g++ 12 sees overlaps in std::string's operator+ that are not there (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_include_directories(kai_warnings INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(kai_warnings INTERFACE _GNU_SOURCE KAI_VERSION="${PROJECT_VERSION}")
