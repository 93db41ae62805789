// Which address a name below in-addr.arpa (RFC 1035 3.5) or ip6.arpa (RFC 3596 2.5) is the reverse of.
#pragma once

#include <optional>

#include "policies/addresses.h"
#include "supervisor/egress/dns_name.h"

namespace kai::egress {

/// nullopt: of none, or of a whole block.
std::optional<Address> address_of_reverse(const dns::Name& name);

}  // namespace kai::egress
