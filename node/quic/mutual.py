"""TLS with certificates on both sides, on qh3's: its server doesn't ask for the client's.

    qh3:   ServerHello, EncryptedExtensions, [CertificateRequest], Certificate, CertificateVerify, Finished
    ours:  [Certificate, CertificateVerify], Finished

What is in brackets is added here. Each side gives the other's chain to `verify` as soon as it has come, before its own
certificate or a byte of application data goes out. qh3's contexts are made by qh3 and become one of these afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qh3 import tls
from qh3._hazmat import Buffer, SignatureError, verify_with_public_key

from protocols import ProtocolError

MAX_FLIGHT = 32 * 1024  # what may wait of the other side's until a message is whole: a certificate is the largest
SIGNATURES = (
    tls.SignatureAlgorithm.ECDSA_SECP256R1_SHA256,
    tls.SignatureAlgorithm.ED25519,
    tls.SignatureAlgorithm.ECDSA_SECP384R1_SHA384,
    tls.SignatureAlgorithm.ECDSA_SECP521R1_SHA512,
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA256,
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA384,
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA512,
)

# takes the chain that the other side shows; raises ProtocolError for one that isn't its
Verify = Callable[[list[bytes]], None]


class Client(tls.Context):
    """TLS that looks at the other side's certificate as soon as it has it."""

    verify: Verify

    def _process_certificate(self, certificate: tls.Certificate) -> None:
        if not certificate.certificates:
            raise tls.AlertBadCertificate("expected a certificate, got none")
        try:
            self.verify([bytes(entry[0]) for entry in certificate.certificates])
        except ProtocolError as error:
            raise tls.AlertBadCertificate(str(error)) from None
        super()._process_certificate(certificate)

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer], epoch: int = -1) -> None:
        # qh3 takes messages of any size, and copies what it has of one with each part that comes
        if len(self._receive_buffer) + len(input_data) > MAX_FLIGHT:
            raise tls.AlertDecodeError(f"expected messages of at most {MAX_FLIGHT} bytes")
        super().handle_message(input_data, output_buf, epoch)


class Server(Client):
    """TLS that asks for the client's certificate: qh3's server doesn't.

    qh3:   ServerHello, EncryptedExtensions, [CertificateRequest], Certificate, CertificateVerify, Finished
    ours:  [Certificate, CertificateVerify], Finished
    """

    _asked_in: Buffer | None
    _step: int

    def prepare(self) -> None:
        self._asked_in = None
        self._step = 0
        # makes qh3 wait with its idea of the client's Finished until it comes: that covers the client's certificate
        self._alps_negotiated = True

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer, onertt_buf: Buffer
    ) -> None:
        self._asked_in = handshake_buf
        super()._server_handle_hello(input_buf, initial_buf, handshake_buf, onertt_buf)
        if self._asked_in is not None:
            raise tls.AlertInternalError("the client wasn't asked for its certificate")

    @property
    def certificate(self) -> Any:  # type: ignore[override]  # qh3 has a plain attribute there, which was set before
        # qh3 looks at it when it writes its own Certificate, which is where the request goes before
        if self._asked_in is not None:
            self._asked_in.push_bytes(_REQUEST)
            self._asked_in = None
        return self.__dict__["certificate"]

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer], epoch: int = -1) -> None:
        if self.state != tls.State.SERVER_EXPECT_FINISHED:
            super().handle_message(input_data, output_buf, epoch)
            return
        if epoch != tls.Epoch.HANDSHAKE or len(self._receive_buffer) + len(input_data) > MAX_FLIGHT:
            raise tls.AlertUnexpectedMessage(f"expected the client's certificate, in {MAX_FLIGHT} bytes")
        self._receive_buffer += input_data
        while self._step < len(_FLIGHT):
            size = 4 + int.from_bytes(self._receive_buffer[1:4], "big")
            if len(self._receive_buffer) < size:
                return
            message, self._receive_buffer = self._receive_buffer[:size], self._receive_buffer[size:]
            self._handle_flight(message, output_buf)
        if self._receive_buffer:
            raise tls.AlertUnexpectedMessage("expected nothing behind the client's Finished")

    def _handle_flight(self, message: bytes, output_buf: dict[tls.Epoch, Buffer]) -> None:
        buffer = Buffer(data=message)
        schedule = self.key_schedule
        assert schedule is not None
        if message[0] != _FLIGHT[self._step]:
            raise tls.AlertUnexpectedMessage(f"expected {_FLIGHT[self._step].name}, got message type {message[0]}")
        if self._step == 0:
            self._process_certificate(tls.pull_certificate(buffer))
            schedule.update_hash(message)
        elif self._step == 1:
            self._check_signature(tls.pull_certificate_verify(buffer))
            schedule.update_hash(message)
        else:
            self._server_handle_finished(buffer, output_buf[tls.Epoch.ONE_RTT])
        if not buffer.eof():
            raise tls.AlertDecodeError("expected nothing behind a message")
        self._step += 1

    def _check_signature(self, verify: tls.CertificateVerify) -> None:
        if verify.algorithm not in SIGNATURES:
            raise tls.AlertDecryptError(
                f"expected a signature that we have asked for, got algorithm {verify.algorithm}"
            )
        assert self.key_schedule is not None
        assert self._peer_certificate is not None
        try:
            verify_with_public_key(
                self._peer_certificate.public_key(),
                verify.algorithm,
                self.key_schedule.certificate_verify_data(b"TLS 1.3, client CertificateVerify"),
                verify.signature,
            )
        except SignatureError as error:
            raise tls.AlertDecryptError(str(error)) from None


def _certificate_request() -> bytes:
    algorithms = b"".join(int(algorithm).to_bytes(2, "big") for algorithm in SIGNATURES)
    extension = len(algorithms).to_bytes(2, "big") + algorithms
    extensions = (
        int(tls.ExtensionType.SIGNATURE_ALGORITHMS).to_bytes(2, "big") + len(extension).to_bytes(2, "big") + extension
    )
    body = b"\0" + len(extensions).to_bytes(2, "big") + extensions
    return bytes([tls.HandshakeType.CERTIFICATE_REQUEST]) + len(body).to_bytes(3, "big") + body


_REQUEST = _certificate_request()
_FLIGHT = (tls.HandshakeType.CERTIFICATE, tls.HandshakeType.CERTIFICATE_VERIFY, tls.HandshakeType.FINISHED)
