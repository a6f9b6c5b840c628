from contextlib import suppress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from exo.errors import HandshakeError
from exo.p2p.certificate import MALFORMED, SignedKey, make_certificate, verify_certificate
from tests.p2p.people import ANN, BOB

OID = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
# The certificate of an Ed25519 identity among the test vectors of the libp2p TLS specification.
LIBP2P = bytes.fromhex(
    "308201ae30820156a0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a1309"
    "6c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936"
    "303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301"
    "313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132"
    "721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37"
    "e381569ea37c307a3078060a2b0601040183a25a0101046a3068042408011220a77f1d92fedb59dddaea5a1c"
    "4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d2769db992d5e6195dbb08e706b6651e024fda6cf"
    "b8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde92a58c5e08cfd4206eb5fe0bf909300a"
    "06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f650c9fb48943ae6ee6d28427dc60"
    "71ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983ed36a31b77"
)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])


def build(
    key,
    extension: bytes | None,
    *,
    signer=None,
    oid: x509.ObjectIdentifier = OID,
    critical: bool = False,
    years: tuple[int, int] = (1970, 9999),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(years[0], 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(years[1], 1, 1, tzinfo=UTC))
    )
    if extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension), critical)
    signer = signer or key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256())


def extension_of(identity, key, label: bytes = b"libp2p-tls-handshake:") -> bytes:
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = identity.sign(label + info)
    return asn1.encode_der(SignedKey(public_key=identity.protobuf, signature=signature))


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def test_a_certificate_speaks_for_its_node():
    made = make_certificate(ANN)
    assert verify_certificate(made.certificate) == ANN.peer_id
    assert verify_certificate(made.certificate, ANN.peer_id) == ANN.peer_id


def test_each_process_has_another():
    assert make_certificate(ANN).certificate != make_certificate(ANN).certificate


def test_a_certificate_of_libp2p_is_understood():
    certificate = x509.load_der_x509_certificate(LIBP2P)
    peer_id = verify_certificate(certificate)
    assert peer_id == "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv"


@pytest.mark.parametrize("years", [(1950, 1951), (9998, 9999)])
def test_a_clock_that_is_years_off_does_not_matter(years: tuple[int, int]):
    certificate = build(KEY, extension_of(ANN, KEY), years=years)
    assert verify_certificate(certificate) == ANN.peer_id


def test_an_ed25519_certificate_key_will_do():
    key = ed25519.Ed25519PrivateKey.generate()
    assert verify_certificate(build(key, extension_of(ANN, key))) == ANN.peer_id


def test_another_node_than_expected_is_refused():
    with pytest.raises(HandshakeError, match=f"is {ANN.peer_id}, not {BOB.peer_id}"):
        verify_certificate(make_certificate(ANN).certificate, BOB.peer_id)


RSA_KEY = rsa.generate_private_key(65537, 2048)
P384_KEY = ec.generate_private_key(ec.SECP384R1())
REFUSED = {
    "no extension": (build(KEY, None), "names no exo node"),
    "another's key signed": (build(KEY, extension_of(ANN, OTHER_KEY)), "cannot prove"),
    "another label": (build(KEY, extension_of(ANN, KEY, b"another:")), "cannot prove"),
    "no DER": (build(KEY, b"nonsense"), "damaged"),
    "bytes behind": (build(KEY, extension_of(ANN, KEY) + b"x"), "damaged"),
    "no key": (build(KEY, asn1.encode_der(SignedKey(public_key=b"", signature=b""))), "Ed25519"),
    "an RSA identity": (
        build(KEY, asn1.encode_der(SignedKey(public_key=b"\x08\x00\x12\x01x", signature=b""))),
        "Ed25519",
    ),
    "not signed by itself": (build(KEY, extension_of(ANN, KEY), signer=OTHER_KEY), "its own key"),
    "critical": (
        build(KEY, b"", oid=x509.ObjectIdentifier("1.2.3.4"), critical=True),
        "does not know",
    ),
    "an RSA key": (build(RSA_KEY, extension_of(ANN, RSA_KEY)), "unusual"),
    "a P-384 key": (build(P384_KEY, extension_of(ANN, P384_KEY)), "unusual"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_certificate_that_proves_nothing_is_refused(name: str):
    certificate, reason = REFUSED[name]
    with pytest.raises(HandshakeError, match=reason):
        verify_certificate(certificate)


def test_any_flipped_byte_is_noticed():
    """Or it is one that means nothing; never is there another peer id, and never a crash."""
    good = make_certificate(ANN).certificate.public_bytes(Encoding.DER)
    for place in range(0, len(good), 3):
        data = bytearray(good)
        data[place] ^= 1
        try:
            certificate = x509.load_der_x509_certificate(bytes(data))
        except MALFORMED:
            continue
        with suppress(HandshakeError):
            assert verify_certificate(certificate) == ANN.peer_id
