"""An authoritative DNS server of the test hosts (network_servers.py), honest or not, as the test says for each name."""

import asyncio
import ipaddress
import struct

A, CNAME, SOA, AAAA, OPT = 1, 5, 6, 28, 41
NXDOMAIN = 3
TRUNCATED, AUTHORITATIVE, RESPONSE = 0x0200, 0x0400, 0x8000


def wire_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def question_of(packet):
    """(id, name in lower case, type, the question section as it was sent) of a query."""
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("latin-1"))
        at += 1 + packet[at]
    kind = struct.unpack_from("!H", packet, at + 1)[0]
    return struct.unpack_from("!H", packet)[0], ".".join(labels).lower(), kind, packet[12:at + 5]


def record(name, kind, ttl, data):
    return wire_name(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


class Zone:
    """What is said of each name. A name's entry, all parts optional:

    addresses   the list of its IPv4 and IPv6 addresses, in text
    turns       such lists instead, one for each question of the same type; the last one stays
    cname       the name that it stands for; what the zone knows of that is in the same answer
    ttl         seconds, 60 otherwise
    rcode       instead of an answer
    delay       seconds before an answer to this name; -1: there is none
    lie         "id", "question", "garbage", "loop": what is wrong with the answer
    truncated   an answer by UDP says so and is empty
    """

    def __init__(self):
        self.entries = {}
        self.questions = []  # [name, type, "udp" or "tcp"], in the order of arrival

    def entry(self, name):
        found = self.entries.get(name)
        while name and found is None:
            name = name.partition(".")[2]
            found = self.entries.get(f"*.{name}")
        return found

    def addresses(self, name, kind, entry):
        texts = entry.get("addresses", [])
        if "turns" in entry:
            asked = sum(question[:2] == [name, kind] for question in self.questions)
            texts = entry["turns"][min(asked, len(entry["turns"])) - 1]
        found = map(ipaddress.ip_address, texts)
        return [address.packed for address in found if address.version == (4 if kind == A else 6)]

    def records(self, name, kind, depth=0):
        entry = self.entry(name)
        if entry is None or depth > 40:
            return []
        ttl = entry.get("ttl", 60)
        if "cname" in entry:
            return [record(name, CNAME, ttl, wire_name(entry["cname"]))] + self.records(entry["cname"], kind, depth + 1)
        if kind not in (A, AAAA):
            return []
        return [record(name, kind, ttl, data) for data in self.addresses(name, kind, entry)]

    def answer(self, packet, transport):
        """(delay, the answer or None)."""
        number, name, kind, question = question_of(packet)
        self.questions.append([name, kind, transport])
        entry = self.entry(name)
        if entry is None:
            return 0, self.message(number, RESPONSE | AUTHORITATIVE | NXDOMAIN, question, [])
        delay, lie = entry.get("delay", 0), entry.get("lie")
        if delay < 0:
            return 0, None
        if lie == "garbage":
            return delay, packet[:2] + b"\xff" * 40
        flags = RESPONSE | AUTHORITATIVE | entry.get("rcode", 0)
        records = [] if "rcode" in entry else self.records(name, kind)
        if entry.get("truncated") and transport == "udp":
            flags, records = flags | TRUNCATED, []
        if lie == "loop":  # a name that points at itself
            records = [b"\xc0" + bytes([12 + len(question)]) + struct.pack("!HHIH", kind, 1, 60, 4) + b"\1\1\1\1"]
        if lie == "question":
            question = wire_name("elsewhere.example") + question[-4:]
        return delay, self.message(number ^ (lie == "id"), flags, question, records)

    @staticmethod
    def message(number, flags, question, records):
        soa = [] if records else [record("", SOA, 60, b"\0\0" + struct.pack("!IIIII", 1, 60, 60, 60, 60))]
        head = struct.pack("!HHHHHH", number, flags, 1, len(records), len(soa), 0)
        return head + question + b"".join(records) + b"".join(soa)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone):
        self.zone = zone

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        delay, answer = self.zone.answer(data, "udp")
        if answer is not None:
            asyncio.get_running_loop().call_later(delay, self.transport.sendto, answer, peer)


async def serve_stream(zone, reader, writer):
    try:
        while True:
            length = struct.unpack("!H", await reader.readexactly(2))[0]
            delay, answer = zone.answer(await reader.readexactly(length), "tcp")
            await asyncio.sleep(delay)
            if answer is None:
                return
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()
