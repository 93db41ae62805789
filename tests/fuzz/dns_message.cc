// DNS messages: any bytes as an agent's question, whose answer has to be one, and as a server's answer to a question of
// ours. What is read has to be what libldns reads there, where it reads the message at all.
#include "supervisor/egress/dns_message.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <ldns/ldns.h>

#include "supervisor/egress/reverse_name.h"

namespace {

namespace dns = kai::egress::dns;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

struct FreePacket {
  void operator()(ldns_pkt* packet) const { ldns_pkt_free(packet); }
};
using Packet = std::unique_ptr<ldns_pkt, FreePacket>;

/// nullptr: libldns cannot read it.
Packet packet_of(dns::Bytes message) {
  ldns_pkt* packet = nullptr;
  return Packet(ldns_wire2pkt(&packet, message.data(), message.size()) == LDNS_STATUS_OK ? packet : nullptr);
}
dns::Bytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
std::string text_of(const ldns_rdf* rdf) {
  return {reinterpret_cast<const char*>(ldns_rdf_data(rdf)), ldns_rdf_size(rdf)};
}

void check_written(const std::string& message, const dns::Query& query, std::size_t most) {
  require(message.size() <= most);
  require(!dns::read_query(bytes_of(message)));  // an answer is never answered
  const Packet packet = packet_of(bytes_of(message));
  require(packet != nullptr && ldns_pkt_qr(packet.get()) && ldns_pkt_id(packet.get()) == query.id);
  require(ldns_pkt_qdcount(packet.get()) == (query.question ? 1 : 0));
}

void check_query(dns::Bytes message) {
  const auto query = dns::read_query(message);
  if (!query) return;
  const auto explanation = dns::Explanation{.code = dns::kProhibited, .text = std::string(300, 'x')};
  const dns::Answer refused{.rcode = dns::Rcode::kRefused, .explanation = explanation};
  check_written(dns::write_answer(*query, refused, query->udp_bytes), *query, query->udp_bytes);
  kai::Address address{.bits = 32};
  if (query->question && query->question->type == dns::kAaaa) address.bits = 128;
  dns::Answer found;
  if (query->question && (query->question->type == dns::kA || query->question->type == dns::kAaaa)) {
    found.address = address;
  }
  check_written(dns::write_answer(*query, found, query->udp_bytes), *query, query->udp_bytes);
  if (query->fault != dns::Rcode::kNoError) return;
  const std::string text = query->question->name.text();
  require(std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; }));
  (void)kai::egress::address_of_reverse(query->question->name);
  const Packet packet = packet_of(message);
  if (packet == nullptr) return;  // it checks the data of records that are not looked at here
  const ldns_rr* question = ldns_rr_list_rr(ldns_pkt_question(packet.get()), 0);
  require(text_of(ldns_rr_owner(question)) == query->question->name.wire());
  require(static_cast<std::uint16_t>(ldns_rr_get_type(question)) == query->question->type);
}

void check_reply(dns::Bytes message, std::uint16_t type) {
  dns::Request request{.question = {.name = *dns::Name::of("wWw.test"), .type = type}};
  if (message.size() >= 2) request.id = static_cast<std::uint16_t>(message[0] << 8U | message[1]);
  const auto reply = dns::read_reply(message, request);
  if (!reply) return;
  require(reply->addresses.size() <= dns::kMaxReplyAddresses && reply->ttl.count() >= 0);
  require(reply->addresses.empty() || !(reply->endless || reply->truncated));
  const Packet packet = packet_of(message);
  if (packet == nullptr || reply->truncated) return;
  const ldns_rr_list* answers = ldns_pkt_answer(packet.get());
  for (const kai::Address& address : reply->addresses) {
    const std::string bytes(address.bytes.begin(), address.bytes.begin() + address.bits / 8);
    bool known = false;
    for (std::size_t at = 0; at < ldns_rr_list_rr_count(answers); ++at) {
      const ldns_rr* record = ldns_rr_list_rr(answers, at);
      if (static_cast<std::uint16_t>(ldns_rr_get_type(record)) != type || ldns_rr_rd_count(record) != 1) continue;
      known = known || text_of(ldns_rr_rdf(record, 0)).ends_with(bytes);  // of ::ffff:a.b.c.d its end
    }
    require(known);
  }
}

}  // namespace

/// The first byte says what the rest is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const dns::Bytes message(data + 1, size - 1);
  if (data[0] % 3 == 0) check_query(message);
  if (data[0] % 3 == 1) check_reply(message, dns::kA);
  if (data[0] % 3 == 2) check_reply(message, dns::kAaaa);
  return 0;
}
