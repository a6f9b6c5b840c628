"""How neighbours in the ring know each other: each runner has a key and a certificate of its own.

They are made anew for every process. Its node tells the cluster the certificate over its own
authenticated link; a neighbour then accepts that certificate and no other, in TLS 1.3.
"""

import ssl
import tempfile
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from exo.errors import RingError

# Clocks of devices may be off by years; what ends a certificate is the end of its process.
_FROM, _UNTIL = datetime(2000, 1, 1), datetime(2999, 1, 1)  # noqa: DTZ001  X.509 has UTC only


class Credentials:
    """A runner's key and self-signed certificate (`certificate`, PEM); `encrypted` says whether
    links are made with them at all."""

    def __init__(self, *, encrypted: bool = True) -> None:
        self.encrypted = encrypted
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exo runner")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_FROM)
            .not_valid_after(_UNTIL)
            # It is its own authority, which is how the neighbour is told to trust it.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self._key = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def context(self, peer: str, *, server: bool) -> ssl.SSLContext | None:
        """A TLS context for a link with the owner of the certificate `peer` (PEM); None if it is
        not to be encrypted.

        Raises:
            RingError: that is no certificate.
        """
        if not self.encrypted:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if server:
            # The other end only ever writes after the handshake; it would not read a ticket.
            context.num_tickets = 0
        try:
            context.load_verify_locations(cadata=peer)
        except (ssl.SSLError, ValueError) as error:
            raise RingError("The certificate of a neighbour in the ring cannot be read.") from error
        # The library takes keys from files only.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "runner.pem")
            file.touch(mode=0o600)
            file.write_text(self._key + self.certificate, "ascii")
            context.load_cert_chain(file)
        return context


def is_of(link: ssl.SSLSocket, certificate: str) -> bool:
    """Whether the other end of a link showed exactly this certificate (PEM)."""
    return link.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(certificate)
