#include "supervisor/egress/dns_message.h"

#include <algorithm>

namespace kai::egress::dns {
namespace {

constexpr std::uint16_t kIn = 1;
constexpr std::uint16_t kQr = 0x8000, kTc = 0x0200, kRd = 0x0100, kRa = 0x0080, kCd = 0x0010;
constexpr std::uint16_t kPointerToQuestion = 0xC00C;
constexpr std::uint16_t kExplanationOption = 15;
constexpr std::size_t kMaxExplanation = 160;
/// Of a server's answer section; a name with more addresses than that has enough.
constexpr std::size_t kMaxRecords = 256;

/// Takes what is there; once something is missing, `ok` is false for good.
struct Reader {
  Bytes message;
  std::size_t at = 0;
  bool ok = true;

  bool has(std::size_t count) { return ok = ok && count <= message.size() - at; }
  std::uint16_t u16() {
    if (!has(2)) return 0;
    at += 2;
    return static_cast<std::uint16_t>(message[at - 2] << 8U | message[at - 1]);
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16U | u16();
  }
  void skip(std::size_t count) {
    if (has(count)) at += count;
  }
  Name name() {
    if (!ok) return {};
    auto name = Name::read(message, at);
    ok = name.has_value();
    return ok ? std::move(*name) : Name();
  }
};

struct Header {
  std::uint16_t id, flags, questions, answers, authorities, additionals;
  explicit Header(Reader& in)
      : id(in.u16()),
        flags(in.u16()),
        questions(in.u16()),
        answers(in.u16()),
        authorities(in.u16()),
        additionals(in.u16()) {}
  [[nodiscard]] std::uint8_t opcode() const { return static_cast<std::uint8_t>((flags >> 11U) & 0xFU); }
};

struct Record {
  Name owner;
  std::uint16_t type, klass;
  std::uint32_t ttl;
  std::size_t data, length;
  explicit Record(Reader& in)
      : owner(in.name()), type(in.u16()), klass(in.u16()), ttl(in.u32()), data(0), length(in.u16()) {
    data = in.at;
    in.skip(length);
  }
};

void put16(std::string& out, std::size_t value) {
  out += static_cast<char>(static_cast<std::uint8_t>(value >> 8U));
  out += static_cast<char>(static_cast<std::uint8_t>(value));
}
void put32(std::string& out, std::uint32_t value) {
  put16(out, value >> 16U);
  put16(out, value & 0xFFFFU);
}
void put_header(std::string& out, std::uint16_t id, unsigned flags, std::size_t questions, std::size_t answers,
                std::size_t additionals) {
  for (const std::size_t value :
       {std::size_t{id}, std::size_t{flags}, questions, answers, std::size_t{0}, additionals}) {
    put16(out, value);
  }
}
void put_question(std::string& out, const Question& question) {
  out += question.name.wire();
  put16(out, question.type);
  put16(out, kIn);
}

/// The OPT record; the rcode's upper bits live in its TTL.
void put_opt(std::string& out, Rcode rcode, const std::optional<Explanation>& explanation) {
  out += '\0';
  put16(out, kOpt);
  put16(out, kEdnsBytes);
  put32(out, static_cast<std::uint32_t>(rcode) >> 4U << 24U);
  if (!explanation) return put16(out, 0);
  const std::string_view text = std::string_view(explanation->text).substr(0, kMaxExplanation);
  put16(out, 6 + text.size());
  put16(out, kExplanationOption);
  put16(out, 2 + text.size());
  put16(out, explanation->code);
  out += text;
}

/// Whether the question's type is one that a resolver's client asks.
Rcode type_fault(std::uint16_t type) {
  if (type == 0 || type == kOpt) return Rcode::kFormatError;
  const bool is_transfer_or_key = type >= 249 && type <= 254;  // TKEY, TSIG, IXFR, AXFR, MAILB, MAILA
  return is_transfer_or_key ? Rcode::kNotImplemented : Rcode::kNoError;
}

/// What follows the question: at most one OPT counts, and what else a client adds (RFC 8945's TSIG) is not looked at.
Rcode read_additionals(Reader& in, std::uint16_t count, Query& query) {
  for (; count > 0 && in.ok; --count) {
    const Record record(in);
    if (!in.ok || record.type != kOpt) continue;
    if (query.edns || record.owner.wire().size() != 1) return Rcode::kFormatError;
    query.edns = true;
    query.udp_bytes = std::clamp<std::size_t>(record.klass, 512, kEdnsBytes);
    if (((record.ttl >> 16U) & 0xFFU) != 0) query.fault = Rcode::kBadVersion;
  }
  return in.ok && in.at == in.message.size() ? query.fault : Rcode::kFormatError;
}

Rcode read_body(Reader& in, const Header& header, Query& query) {
  constexpr std::uint16_t kMostAdditionals = 4;
  if (header.opcode() != 0) return Rcode::kNotImplemented;
  if (header.questions != 1 || header.answers != 0 || header.authorities != 0 ||
      header.additionals > kMostAdditionals) {
    return Rcode::kFormatError;
  }
  Question question{.name = in.name(), .type = in.u16()};
  const std::uint16_t klass = in.u16();
  if (!in.ok) return Rcode::kFormatError;
  // Class CHAOS and the like: nothing is to be had there, and the answer would have to repeat the class.
  if (klass != kIn) return Rcode::kRefused;
  query.question = std::move(question);
  if (const Rcode fault = read_additionals(in, header.additionals, query); fault != Rcode::kNoError) return fault;
  return type_fault(query.question->type);
}

/// ::ffff:a.b.c.d is the IPv4 address that it stands for, as everywhere (policies/addresses.h).
Address address_in(Bytes data) {
  constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  const bool is_mapped = data.size() == 16 && std::equal(kMapped.begin(), kMapped.end(), data.begin());
  if (is_mapped) data = data.subspan(kMapped.size());
  Address address{.bits = data.size() == 4 ? 32U : 128U};
  std::copy(data.begin(), data.end(), address.bytes.begin());
  return address;
}

/// RFC 2181 8: a TTL with its upper bit set is 0.
std::uint32_t ttl_of(const Record& record) {
  return record.ttl > 0x7FFFFFFFU ? 0 : record.ttl;
}

/// Of a CNAME: where it leads. nullopt: not well-formed.
std::optional<Name> target_of(Bytes message, const Record& record) {
  Reader in{.message = message, .at = record.data};
  Name target = in.name();
  return in.ok && in.at == record.data + record.length ? std::optional(std::move(target)) : std::nullopt;
}

/// What of the answer section is of use: CNAMEs and records of `type`. nullopt: not well-formed.
std::optional<std::vector<Record>> read_answers(Reader& in, std::uint16_t count, std::uint16_t type) {
  std::vector<Record> records;
  for (; count > 0; --count) {
    Record record(in);
    if (!in.ok || (record.type == kCname && !target_of(in.message, record))) return std::nullopt;
    const bool counts = record.klass == kIn && (record.type == kCname || record.type == type);
    if (counts && records.size() < kMaxRecords) records.push_back(std::move(record));
  }
  return records;
}

/// Makes `name` the end of the CNAMEs that begin at it; their TTLs lower `ttl`. False: they lead on and on.
bool follow(Bytes message, const std::vector<Record>& records, Name& name, std::uint32_t& ttl) {
  for (int hops = 0; hops <= kMaxCnames; ++hops) {
    const auto cname = std::find_if(records.begin(), records.end(), [&](const Record& record) {
      return record.type == kCname && record.owner.same_as(name);
    });
    if (cname == records.end()) return true;
    name = *target_of(message, *cname);
    ttl = std::min(ttl, ttl_of(*cname));
  }
  return false;
}

/// Of the authority section: for how long nothing is there (RFC 2308 5).
std::chrono::seconds negative_ttl(Reader& in, std::uint16_t authorities) {
  for (; authorities > 0; --authorities) {
    const Record record(in);
    if (!in.ok) break;
    if (record.type != kSoa || record.klass != kIn || record.length < 4) continue;
    Reader minimum{.message = in.message, .at = record.data + record.length - 4};
    return std::chrono::seconds(std::min(ttl_of(record), minimum.u32()));
  }
  return {};
}

/// False: an address that is none.
bool take_addresses(Bytes message, const std::vector<Record>& records, const Name& owner, std::uint16_t type,
                    std::uint32_t ttl, Reply& reply) {
  const std::size_t length = type == kA ? 4 : 16;
  for (const Record& record : records) {
    if (record.type != type || !record.owner.same_as(owner)) continue;
    if (record.length != length) return false;
    ttl = std::min(ttl, ttl_of(record));
    if (reply.addresses.size() >= kMaxReplyAddresses) continue;
    reply.addresses.push_back(address_in(message.subspan(record.data, length)));
  }
  if (!reply.addresses.empty()) reply.ttl = std::chrono::seconds(ttl);
  return true;
}

}  // namespace

std::optional<Query> read_query(Bytes message) {
  Reader in{.message = message};
  const Header header(in);
  if (!in.ok || (header.flags & kQr) != 0) return std::nullopt;
  Query query{.id = header.id,
              .opcode = header.opcode(),
              .recursion_desired = (header.flags & kRd) != 0,
              .checking_disabled = (header.flags & kCd) != 0};
  query.fault = read_body(in, header, query);
  return query;
}

std::string write_answer(const Query& query, const Answer& answer, std::size_t most) {
  const auto rcode = static_cast<unsigned>(answer.rcode);
  const unsigned flags = kQr | kRa | static_cast<unsigned>(query.opcode) << 11U | (query.recursion_desired ? kRd : 0U) |
                         (query.checking_disabled ? kCd : 0U) | (rcode & 0xFU);
  std::string record;
  if (query.question && (answer.address || answer.pointer)) {
    put16(record, kPointerToQuestion);
    put16(record, query.question->type);
    put16(record, kIn);
    put32(record, kAnswerTtl);
    const std::string data = answer.pointer ? answer.pointer->wire()
                                            : std::string(answer.address->bytes.begin(),
                                                          answer.address->bytes.begin() + answer.address->bits / 8);
    put16(record, data.size());
    record += data;
  }
  std::string question, opt;
  if (query.question) put_question(question, *query.question);
  if (query.edns) put_opt(opt, answer.rcode, answer.explanation);
  constexpr std::size_t kHeaderBytes = 12;
  const bool truncated = kHeaderBytes + question.size() + record.size() + opt.size() > most;
  if (truncated) record.clear();
  if (truncated && query.edns) {
    opt.clear();
    put_opt(opt, answer.rcode, std::nullopt);
  }
  std::string out;
  put_header(out, query.id, flags | (truncated ? kTc : 0U), query.question ? 1 : 0, record.empty() ? 0 : 1,
             query.edns ? 1 : 0);
  return out + question + record + opt;
}

std::string write_request(const Request& request) {
  std::string out;
  put_header(out, request.id, kRd, 1, 0, request.edns ? 1 : 0);
  put_question(out, request.question);
  if (request.edns) put_opt(out, Rcode::kNoError, std::nullopt);
  return out;
}

std::optional<Reply> read_reply(Bytes message, const Request& request) {
  Reader in{.message = message};
  const Header header(in);
  if (!in.ok || (header.flags & kQr) == 0 || header.opcode() != 0) return std::nullopt;
  if (header.id != request.id || header.questions != 1) return std::nullopt;
  Name name = in.name();
  if (in.u16() != request.question.type || in.u16() != kIn || !in.ok) return std::nullopt;
  if (!name.same_as(request.question.name)) return std::nullopt;
  Reply reply{.other_case = name.wire() != request.question.name.wire(),
              .truncated = (header.flags & kTc) != 0,
              .rcode = static_cast<Rcode>(header.flags & 0xFU)};
  if (reply.truncated) return reply;
  const auto records = read_answers(in, header.answers, request.question.type);
  if (!records) return std::nullopt;
  std::uint32_t ttl = 0x7FFFFFFF;
  reply.endless = !follow(message, *records, name, ttl);
  if (reply.endless) return reply;
  if (!take_addresses(message, *records, name, request.question.type, ttl, reply)) return std::nullopt;
  if (reply.addresses.empty()) reply.ttl = negative_ttl(in, header.authorities);
  return reply;
}

}  // namespace kai::egress::dns
