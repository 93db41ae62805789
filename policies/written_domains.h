// Names as people write them in manifests, policies and kaid.yaml: in Unicode too. Here alone they become what is
// compared ever after: A-labels (IDNA 2008, with UTS 46's mapping, non-transitional), lower case, no dot at the end.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kai {

/// `text` (UTF-8), a name, *.name or either with :port, its name in A-labels. What is ASCII is as it was. nullopt: no
/// such name can be, nor one of an A-label that IDNA would not make.
std::optional<std::string> ascii_domain(std::string_view text);

/// domain_pattern_fault for such a text.
const char* written_domain_fault(std::string_view text);
/// What read_domain_pattern reads and writes again: what a list keeps. nullopt where written_domain_fault has something
/// to say.
std::optional<std::string> normalized_domain(std::string_view text);

/// The same for the entries of a list that may have addresses too (policies/listed_address.h): what somebody blocks.
const char* listed_domain_fault(std::string_view text);
/// An address stays as it is written.
std::optional<std::string> normalized_listed_domain(std::string_view text);
/// The same for the entries of a manifest, which have no "*" alone.
const char* manifest_domain_fault(std::string_view text);
std::optional<std::string> normalized_manifest_domain(std::string_view text);

/// One host, without pattern or port.
std::optional<std::string> written_host(std::string_view text);

}  // namespace kai
