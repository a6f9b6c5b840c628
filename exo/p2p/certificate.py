"""The certificate that carries a node's identity into TLS.

In the manner of libp2p (https://github.com/libp2p/specs/blob/master/tls/tls.md): the certificate
and its key are made anew in each process and sign themselves; an extension holds the node's public
key, and that key's signature of the certificate's. TLS proves the certificate's key, the extension
that it speaks for the peer id. Dates prove nothing here, so that a wrong clock does not matter.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from exo.errors import HandshakeError
from exo.p2p.identity import Identity, peer_id_of, verify

_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_LABEL = b"libp2p-tls-handshake:"
# RFC 5280, section 4.1.2.5: no well-defined expiration date.
_FOREVER = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001  X.509 has no zones
_LONG_AGO = datetime(1970, 1, 1)  # noqa: DTZ001

# What `cryptography` raises at certificates that OpenSSL let pass.
MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@asn1.sequence
class SignedKey:
    """What the extension holds: the node's key as libp2p writes it, and its signature."""

    public_key: bytes
    signature: bytes


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, for the life of a process."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_certificate(identity: Identity) -> Certificate:
    """A new certificate, with a new P-256 key, that speaks for `identity`."""
    key = ec.generate_private_key(ec.SECP256R1())
    signature = identity.sign(_LABEL + _key_info(key.public_key()))
    signed = asn1.encode_der(SignedKey(public_key=identity.protobuf, signature=signature))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exo")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_LONG_AGO)
        .not_valid_after(_FOREVER)
        .add_extension(x509.UnrecognizedExtension(_EXTENSION, signed), critical=False)
        .sign(key, SHA256())
    )
    return Certificate(key, certificate)


def verify_certificate(certificate: x509.Certificate, expect: str | None = None) -> str:
    """The peer id that a certificate speaks for. That the other side has its key, TLS has proven.

    Raises:
        HandshakeError: it speaks for nobody, or not for the peer id `expect`.
    """
    try:
        extension = _extension(certificate)
        key = certificate.public_key()
        if not _is_usable(key):
            raise HandshakeError("The other side's certificate has a key of an unusual kind.")
        certificate.verify_directly_issued_by(certificate)
        signed = asn1.decode_der(SignedKey, extension)
        peer_id = peer_id_of(signed.public_key)
        proven = verify(peer_id, signed.signature, _LABEL + _key_info(key))
    except MALFORMED as error:
        raise HandshakeError("The other side's certificate is damaged.") from error
    except InvalidSignature as error:
        raise HandshakeError(
            "The other side's certificate is not signed by its own key."
        ) from error
    if not proven:
        raise HandshakeError(f"The other side claims to be {peer_id}, and cannot prove it.")
    if expect is not None and peer_id != expect:
        raise HandshakeError(
            f"The other side is {peer_id}, not {expect} as expected.",
            hint="Another node has that address now, or the node was given a new key.",
        )
    return peer_id


def _extension(certificate: x509.Certificate) -> bytes:
    value = None
    for extension in certificate.extensions:
        if extension.oid == _EXTENSION and isinstance(extension.value, x509.UnrecognizedExtension):
            value = extension.value.value
        elif extension.critical:
            raise HandshakeError("The other side's certificate asks for what exo does not know.")
    if value is None:
        raise HandshakeError("The other side's certificate names no exo node.")
    return value


def _is_usable(key: CertificatePublicKeyTypes) -> bool:
    """Keys of a fixed, small size: a stranger's RSA key may take long to verify with."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _key_info(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
