"""ClientHello messages, honest or not, byte for byte (RFC 8446 4.1.2): what no TLS library would send for a test."""

import os
import struct

SERVER_NAME, SUPPORTED_GROUPS, SIGNATURES, SUPPORTED_VERSIONS, KEY_SHARE = 0, 10, 13, 43, 51
ENCRYPTED_CLIENT_HELLO = 0xfe0d


def vector(size, data):
    return len(data).to_bytes(size, "big") + data


def server_name(*names, kind=0):
    """The extension with these names; honest clients send one."""
    return SERVER_NAME, vector(2, b"".join(bytes([kind]) + vector(2, name.encode("latin-1")) for name in names))


def encrypted_client_hello():
    """An outer one (RFC 9849), as a browser sends it whether or not the server knows of it."""
    key, payload = vector(2, os.urandom(32)), vector(2, os.urandom(144))
    return ENCRYPTED_CLIENT_HELLO, b"\0" + struct.pack("!HHB", 1, 1, 7) + key + payload


def hello(*extensions):
    """The handshake message of a client of TLS 1.2 and 1.3 with these extensions and those that a server needs."""
    common = [(SUPPORTED_GROUPS, vector(2, struct.pack("!HH", 0x1d, 0x17))),
              (SIGNATURES, vector(2, struct.pack("!HHH", 0x0403, 0x0804, 0x0401))),
              (SUPPORTED_VERSIONS, vector(1, struct.pack("!HH", 0x0304, 0x0303))),
              (KEY_SHARE, vector(2, struct.pack("!H", 0x1d) + vector(2, b"\x09" + bytes(31))))]
    listed = b"".join(struct.pack("!H", kind) + vector(2, data) for kind, data in [*extensions, *common])
    ciphers = struct.pack("!HHH", 0x1301, 0x1302, 0xc02b)
    session = vector(1, os.urandom(32))
    body = b"\x03\x03" + os.urandom(32) + session + vector(2, ciphers) + vector(1, b"\0") + vector(2, listed)
    return b"\x01" + vector(3, body)


def records(message, *cuts):
    """TLS records with the message, cut at these places."""
    places = [0, *cuts, len(message)]
    return b"".join(b"\x16\x03\x01" + vector(2, message[start:end]) for start, end in zip(places, places[1:]))
