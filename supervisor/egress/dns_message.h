// DNS messages (RFC 1035 4, EDNS of RFC 6891, the explanations of RFC 8914): those that an agent and a server send,
// both hostile, and those that egress sends to them. Pure.
//
// Read here and not by libldns, which was tried: for one message of 64 KB that chains compression pointers it works
// 110 ms, in which no agent's byte would move; it takes a piece of memory for each field of each record; and it brings
// libcrypto and libssl into the one process that everybody can talk to. Of a message egress needs a question,
// addresses, CNAMEs and a SOA's last number. The tests hold this reader against libldns (tests/fuzz/dns_message.cc).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "policies/addresses.h"
#include "supervisor/egress/dns_name.h"

namespace kai::egress::dns {

inline constexpr std::uint16_t kA = 1, kCname = 5, kSoa = 6, kPtr = 12, kAaaa = 28, kOpt = 41;

enum class Rcode : std::uint16_t {
  kNoError = 0,
  kFormatError = 1,
  kServerFailure = 2,
  kNoName = 3,  ///< NXDOMAIN
  kNotImplemented = 4,
  kRefused = 5,
  kBadVersion = 16,  ///< of EDNS
};

/// What one UDP datagram holds everywhere without fragments (DNS flag day 2020).
inline constexpr std::uint16_t kEdnsBytes = 1232;
inline constexpr std::size_t kMaxMessageBytes = 65535;

struct Question {
  Name name;
  std::uint16_t type = 0;
};

/// What a client sent.
struct Query {
  std::uint16_t id = 0;
  std::uint8_t opcode = 0;
  bool recursion_desired = false, checking_disabled = false;
  std::optional<Question> question;
  bool edns = false;
  std::size_t udp_bytes = 512;    ///< the most that an answer over UDP may have
  Rcode fault = Rcode::kNoError;  ///< else the answer is this, whatever the question is
};
/// nullopt: nothing that may be answered (no header, or an answer itself).
std::optional<Query> read_query(Bytes message);

struct Explanation {
  std::uint16_t code = 0;  ///< RFC 8914 4
  std::string text;
};
inline constexpr std::uint16_t kOtherError = 0, kProhibited = 18, kNoReachableAuthority = 22;

struct Answer {
  Rcode rcode = Rcode::kNoError;
  std::optional<Address> address;          ///< of an A or AAAA question
  std::optional<Name> pointer;             ///< of a PTR question
  std::optional<Explanation> explanation;  ///< left out where the client knows no EDNS
};
/// What is answered is kept by clients for this many seconds.
inline constexpr std::uint32_t kAnswerTtl = 30;
/// At most `most` bytes: else truncated, for the client to come again by TCP.
std::string write_answer(const Query& query, const Answer& answer, std::size_t most);

/// What egress asks a server.
struct Request {
  std::uint16_t id = 0;
  Question question;
  bool edns = true;
};
std::string write_request(const Request& request);

/// A server's answer.
struct Reply {
  bool other_case = false;  ///< the question came back in another case: forged, or from a server that does not keep it
  bool truncated = false;
  Rcode rcode = Rcode::kNoError;
  bool endless = false;            ///< its CNAMEs lead on and on
  std::vector<Address> addresses;  ///< at the end of its CNAMEs; at most kMaxReplyAddresses
  std::chrono::seconds ttl{0};     ///< of the addresses, or, without any, of their absence (RFC 2308); 0: not said
};
inline constexpr std::size_t kMaxReplyAddresses = 16;
inline constexpr int kMaxCnames = 16;
/// nullopt: no answer to this request, or not well-formed.
std::optional<Reply> read_reply(Bytes message, const Request& request);

}  // namespace kai::egress::dns
