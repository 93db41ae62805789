# KAI_SANITIZE: "" | address (with undefined) | thread | fuzz (libFuzzer, address and undefined; needs clang).
# The static kai-agent-host cannot carry a sanitizer's runtime: it gets undefined behaviour traps instead, and its
# parts run under the sanitizer in the unit tests.
set(KAI_SANITIZE "" CACHE STRING "sanitizer of this build")
option(KAI_BUILD_TESTS "build tests and benchmarks" ON)

add_library(kai_sanitize INTERFACE)
if(KAI_SANITIZE STREQUAL "address")
  set(kai_sanitize_flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
elseif(KAI_SANITIZE STREQUAL "thread")
  set(kai_sanitize_flags -fsanitize=thread -fno-omit-frame-pointer)
elseif(KAI_SANITIZE STREQUAL "fuzz")
  set(kai_sanitize_flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
elseif(NOT KAI_SANITIZE STREQUAL "")
  message(FATAL_ERROR "KAI_SANITIZE=${KAI_SANITIZE}: not one of address, thread, fuzz")
endif()
target_compile_options(kai_sanitize INTERFACE ${kai_sanitize_flags})
target_link_options(kai_sanitize INTERFACE ${kai_sanitize_flags})

# kai_library(NAME SOURCES...): a static library, and NAME_static beside it where the sanitizer has to stay out
# (what kai-agent-host is made of). Without a sanitizer the second is an alias of the first.
function(kai_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PRIVATE kai_warnings kai_sanitize)
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
endfunction()

function(kai_library_for_static name)
  if(KAI_SANITIZE STREQUAL "")
    add_library(${name}_static ALIAS ${name})
  else()
    get_target_property(sources ${name} SOURCES)
    add_library(${name}_static STATIC ${sources})
    target_link_libraries(${name}_static PRIVATE kai_warnings kai_trap)
    target_include_directories(${name}_static PUBLIC ${PROJECT_SOURCE_DIR})
  endif()
endfunction()

add_library(kai_trap INTERFACE)
if(NOT KAI_SANITIZE STREQUAL "")
  target_compile_options(kai_trap INTERFACE -fsanitize=undefined -fsanitize-undefined-trap-on-error)
endif()
