// The spec's HealthStatus as control gets it: fields, checked and bounded, never the agent's JSON. Pure: no I/O.
#pragma once

#include <cstdint>
#include <string>

#include "agent-host/json_view.h"
#include "proto/klp.pb.h"

namespace kai {

/// What agent-host knows by itself.
struct HealthBasis {
  std::int64_t uptime_ms = 0;         ///< since the program was exec'd
  std::int64_t last_activity_ms = 0;  ///< Unix time of the last answered message, else of the start
};

/// From the agent's onHealthCheck. Fields of the wrong type are replaced by the basis or left out, and make the status
/// at least `warning`; an unknown status is `warning`. memoryUsage and cpuUsage are left to the keeper, which measures.
klp::HealthReport rebuilt_health(const JsonView& given, const HealthBasis& basis);

/// Health checks that threw, each with an error of the same name.
struct FailedChecks {
  std::uint64_t in_a_row = 0;
  std::string error_name;
};

/// The hook threw: `critical`, with the error as the only summary.
klp::HealthReport failed_health(const FailedChecks& failed, const std::string& message, const HealthBasis& basis);

/// Of a program without the runner protocol, or a runner without onHealthCheck: `healthy` says that the process is
/// there (and, with the runner protocol, that its event loop answered), nothing more.
klp::HealthReport basic_health(const HealthBasis& basis);

}  // namespace kai
