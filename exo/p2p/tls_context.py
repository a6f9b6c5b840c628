"""How this process does TLS: 1.3 only, certificates on both sides, nothing to be replayed."""

from pathlib import Path

from OpenSSL import SSL
from OpenSSL.crypto import X509

from exo.p2p.certificate import Certificate

ALPN = b"exo/1"
_AES_FIRST = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_CHACHA_FIRST = b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"


def make_context(certificate: Certificate) -> SSL.Context:
    """A context for both sides, client and server. There are no sessions to be resumed, and with
    that nothing said early (RFC 8446, section 8)."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_certificate(certificate.certificate)
    context.use_privatekey(certificate.key)
    # Every certificate is let through here, since no authority signs them: TLS proves that the
    # other side has its key, and `verify_certificate` whose it is.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _let_through)
    context.set_alpn_protos([ALPN])
    context.set_alpn_select_callback(
        lambda _, offered: ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    if has_aes():
        context.set_tls13_ciphersuites(_AES_FIRST)
    else:
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_tls13_ciphersuites(_CHACHA_FIRST)
    return context


def has_aes(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for AES; some small ARM ones have none."""
    try:
        text = info.read_text("ascii", errors="replace")
    except OSError:
        return True  # No Linux, so a Mac, and they all have them.
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return "aes" in next(lines, "").split()


def _let_through(_: SSL.Connection, __: X509, *_numbers: int) -> bool:
    return True
