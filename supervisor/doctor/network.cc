// What egress needs: in a network namespace, every address made local, listeners, and raw sockets that hear what the
// kernel refuses; and the operator's name servers.
#include "sandbox/network.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "base/unix.h"
#include "sandbox/namespaces.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

Answer answer_of(const Error& error) {
  return {error.error_number == 0 ? EPROTO : error.error_number, error.what};
}

/// Whether an IPv6 address that is nobody's has a way, here.
bool ipv6_is_routed() {
  const Fd datagrams(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 nobody{};
  nobody.sin6_family = AF_INET6;
  nobody.sin6_port = htons(9);
  nobody.sin6_addr.s6_addr[0] = 0x20;  // 2001::
  nobody.sin6_addr.s6_addr[1] = 0x01;
  return datagrams && connect(datagrams.get(), reinterpret_cast<const sockaddr*>(&nobody), sizeof nobody) == 0;
}

/// Does what a starter does for an agent. Of one that succeeds, `step` is the families that it has.
Answer make_agents_network() {
  auto entered = sandbox::enter_starter_namespaces(geteuid() == 0, false);
  if (!entered) return answer_of(entered.error());
  auto network = sandbox::prepare_network();
  if (!network) return answer_of(network.error());
  if (auto opened = sandbox::open_network(*network, {}); !opened) return answer_of(opened.error());
  return {0, ipv6_is_routed() ? "IPv4 and IPv6" : "IPv4; this kernel has no IPv6"};
}

void check_egress(Checks& checks) {
  const Answer answer = ask_child(make_agents_network);
  Check check{"egress", Status::kOk, "an agent's network with its listeners was made in a probe: " + answer.step, ""};
  if (!answer.ok()) {
    check = {check.name, Status::kDegraded, answer.text() + "; agents that may reach somebody do not start",
             "let kaid have user and network namespaces (above); in a container or a unit of your own, leave it "
             "CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE, and let the seccomp profile pass raw sockets and "
             "netlink"};
  }
  checks.push_back(std::move(check));
}

void check_name_servers(Checks& checks) {
  const auto text = read_file("/etc/resolv.conf");
  std::string servers;
  std::istringstream lines(text.value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key;
    std::string address;
    if (words >> key >> address && key == "nameserver") servers += (servers.empty() ? "" : ", ") + address;
  }
  if (!servers.empty()) {
    checks.push_back(
        {"name servers", Status::kOk, servers + " (/etc/resolv.conf), where kaid.yaml names no others", ""});
    return;
  }
  checks.push_back({"name servers", Status::kDegraded,
                    (text ? std::string("/etc/resolv.conf names none") : text.error().message()) +
                        ": agents reach no name but those in network.hosts of their policy",
                    "name them in kaid.yaml, as in upstreamDns: [9.9.9.9], or in /etc/resolv.conf"});
}

}  // namespace

void check_network(Checks& checks) {
  check_egress(checks);
  check_name_servers(checks);
}

}  // namespace kai::doctor
