// The attempts that take more than one call; attempts.def says what each is and what has to come of it.
#pragma once

#include <cstdint>
#include <string>

#include "tests/escape/verdict.h"

namespace kai::escape {

// inherited.cc
Verdict terminal_request(unsigned long request, const void* argument);
Verdict console_request(unsigned long request);
Verdict own_controlling_terminal();
Verdict leaked_descriptors();
Verdict through_leaked_directory();
Verdict launchers_directory();
Verdict secret_in_environment();
Verdict secret_of_pid_1();
Verdict launchers_session();
Verdict launchers_process_group();
Verdict launchers_key();
Verdict launchers_groups();

// files.cc
Verdict dot_dot();
Verdict create(const std::string& path);
Verdict text_in(const std::string& path, const std::string& wanted);
Verdict host_path_in_mounts();
Verdict change_own_program();
Verdict write_program_after_its_end();
Verdict hard_link_into_writable();
Verdict rename_writable();
Verdict run_from_writable();
Verdict map_executable_from_writable();
Verdict run_from_memory();
Verdict set_id_program();
Verdict set_id_file();
Verdict device_node();
Verdict name_of_root();
Verdict handle_of_root();
Verdict mount_over_tmp();
Verdict unmount_tmp();
Verdict pivot();
Verdict make_writable_again();
Verdict enter_namespace();
Verdict replace_device();
Verdict immutable_file();
Verdict in_cgroup_file(const char* name, const char* text);
Verdict own_cgroup_path();
Verdict rewrite_id_map();
Verdict write_text(const std::string& path, const std::string& text);

// kernel.cc
Verdict call_x32();
Verdict call_i386();
Verdict clone_flag(unsigned long flag);
Verdict clone3_child(std::uint64_t flags);
Verdict io_uring();
Verdict list_mounts();
Verdict stat_mount();
Verdict trace(int request);
Verdict take_descriptor();
Verdict read_other_memory();
Verdict write_other_memory();
Verdict bpf_map();
Verdict performance_counter();
Verdict listener_of_own(bool by_seccomp);
Verdict strict_mode();
Verdict landlock_of_own();
Verdict make_socket(int family, int type, int protocol);
Verdict family_high_bits();
Verdict connect_host(int family, const char* address);
Verdict signal_host();
Verdict process_descriptor_of_host();
Verdict swap_on();
Verdict port_access();
Verdict keep_capability();
Verdict realtime();

// resources.cc
Verdict fork_bomb(bool daemons);
Verdict fill_bytes(const std::string& directory, unsigned megabytes);
Verdict fill_inodes();
Verdict many_descriptors();
Verdict many_timers();
Verdict many_signals();
Verdict dump_core();
Verdict raise_limit(int resource);
Verdict limit_of_other();
Verdict lock_memory();
Verdict memory_over_children();
Verdict passed_descriptors();

}  // namespace kai::escape
