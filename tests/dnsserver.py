"""A tiny DNS server on loopback: TXT records, answers that come late, names that don't exist."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import trio


class DnsServer:
    """Answers over UDP at `port`; `asked` holds the names in order. A name whose records are None is never answered."""

    def __init__(self, records: Mapping[str, Sequence[str] | None], port: int) -> None:
        self.records = records
        self.port = port
        self.asked: list[str] = []

    def answer(self, data: bytes) -> bytes | None:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        texts = self.records.get(name, ())
        if texts is None:
            return None
        if texts:
            quoted = [" ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200)) for text in texts]
            response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", "TXT", quoted))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()


@asynccontextmanager
async def serving(records: Mapping[str, Sequence[str] | None]) -> AsyncIterator[DnsServer]:
    """A server of these records (name -> texts), until the block's end."""
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    server = DnsServer(records, sock.getsockname()[1])

    async def serve() -> None:
        while True:
            data, sender = await sock.recvfrom(4096)
            answer = server.answer(data)
            if answer is not None:
                await sock.sendto(answer, sender)

    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield server
            nursery.cancel_scope.cancel()
