#include "supervisor/keeper/egress_process.h"

namespace kai::keeper {

Result<UnprivilegedProcess> start_egress(const Identity& identity, const Programs& programs) {
  UnprivilegedProgram program{.directory = programs.directory,
                              .name = "kai-egress",
                              .uid = identity.egress_uid,
                              .gid = identity.egress_gid,
                              .view = {},
                              .only_told = true};
  if (identity.root) {
    program.view = programs_view(programs.directory);
    add_to_view(program.view, spec::Mount::SYSTEM, "/etc/ld.so.cache");  // else each library is searched for
  }
  return start_unprivileged(program, identity.root);
}

}  // namespace kai::keeper
