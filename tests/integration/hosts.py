"""Test hosts: an Internet of the tests' own, in network namespaces that end with it and leave nothing on this machine.

    machine   kaid and its kai-egress run here (Hosts.daemon). Its addresses are MACHINE4 and MACHINE6
    world     everything that the machine can reach: whatever address it dials, network_servers.py answers, with HTTP,
              HTTPS, echo and DNS, and remembers it

As an ordinary user both lie in a user namespace of his own, in which kaid keeps its user id and has no capability, as ever.
"""

import datetime
import ipaddress
import json
import pathlib
import subprocess
import threading

import harness
from network_servers import DNS, MACHINE4, MACHINE6  # noqa: F401, for the tests

HERE = pathlib.Path(__file__).resolve().parent
PUBLIC4, PUBLIC6 = "93.184.216.34", "2606:2800:220:1::34"
OTHER4 = "93.184.216.99"
PRIVATE4, METADATA4 = "10.1.2.3", "169.254.169.254"


def certificates(directory, names, addresses=()):
    """ca.pem, and server.pem for these names, each good for an hour."""
    # Imported here, as only these tests need it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    begin = datetime.datetime.utcnow() - datetime.timedelta(hours=1)

    def certificate(subject, issuer, public, signer, extensions):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
        builder = builder.not_valid_after(begin + datetime.timedelta(hours=2))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                          key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                          decipher_only=False)
    of_ca = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = certificate(named("kai test CA"), named("kai test CA"), ca_key.public_key(), ca_key,
                     [(x509.BasicConstraints(ca=True, path_length=0), True), (usage, True), (of_ca, False)])
    alternatives = [x509.DNSName(name) for name in names] + [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    server = certificate(named(names[0]), ca.subject, key.public_key(), ca_key,
                         [(x509.SubjectAlternativeName(alternatives), False),
                          (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)])
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(ca.public_bytes(pem))
    (directory / "server.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + server.public_bytes(pem))


class Hosts:
    """Started at once; close() ends all of it. `names`: of network_dns.Zone, the certificate is for them and `more`."""

    def __init__(self, directory, names, more=()):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        certificates(directory, [*names, *more], [PUBLIC4, PUBLIC6])
        self.ca = directory / "ca.pem"
        own = [] if harness.IS_ROOT else ["--user", "--map-current-user", "--keep-caps"]
        self.process = subprocess.Popen(["unshare", *own, "--net", "/usr/bin/python3", str(HERE / "network_servers.py"),
                                         str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        try:
            self.machine = self._answer()["machine"]
        except BaseException:
            self.close()
            raise
        self.serve(names)

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the test hosts ended with {self.process.wait(harness.PATIENCE)}")
        return json.loads(line)

    def ask(self, **request):
        with self.lock:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return self._answer()

    @property
    def enter(self):
        """What a command begins with that shall run on the machine."""
        target = f"/proc/{self.machine}/ns"
        user = [] if harness.IS_ROOT else [f"--user={target}/user", "--preserve-credentials"]
        return ["nsenter", *user, f"--net={target}/net", "--"]

    def daemon(self):
        """A kaid on the machine, not started yet, that asks the world's DNS server."""
        made = harness.Daemon(prefix=self.enter)
        made.settings = f'upstreamDns: ["{DNS}:53"]\n'
        made.neighbours |= {self.process.pid, self.machine}
        return made

    def serve(self, names):
        self.ask(do="names", names=names)

    def clear(self):
        self.ask(do="clear")

    def connections(self, **wanted):
        """Those that arrived since clear(), by what is wanted of their records."""
        return [entry for entry in self.ask(do="records")["connections"]
                if all(entry[key] == value for key, value in wanted.items())]

    def datagrams(self):
        return self.ask(do="records")["datagrams"]

    def questions(self, name=None):
        return [entry for entry in self.ask(do="records")["questions"] if name in (None, entry[0])]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(harness.PATIENCE)
        finally:
            self.process.stdout.close()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
