"""Connections that ask nothing or read nothing are ended; others stay."""

import asyncio

from uvicorn import Config, Server

from efp_hf.page import connections


async def answer(scope, receive, send):
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(100 if scope["path"] == "/large" else 1):
        await send({"type": "http.response.body", "body": bytes(200_000), "more_body": True})
    await send({"type": "http.response.body"})


def test_connection_that_asks_or_reads_nothing_is_ended(monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE_SECONDS", 0.15)

    async def attack():
        server = Server(Config(answer, port=0, lifespan="off", log_level="error", http=connections.ImpatientProtocol))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]

        async def received(sent: bytes, reads: bool) -> int | None:
            """Bytes that came until the server ended the connection, `None` where it did not."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(sent)
            await asyncio.sleep(0 if reads else 1)
            come = 0
            try:
                async with asyncio.timeout(0.4):
                    while part := await reader.read(1 << 20):
                        come += len(part)
            except TimeoutError:
                return None
            except ConnectionError:
                pass
            return come

        head = b"GET /%s HTTP/1.1\r\nHost: a\r\n"
        outcomes = await asyncio.gather(
            received(b"", reads=True),
            received(head % b"", reads=True),
            received(head % b"large" + b"\r\n", reads=False),
            received(head % b"slow" + b"\r\n", reads=True),  # is answered after its patience: nothing ends it before
        )
        server.should_exit = True
        await serving
        return outcomes

    nothing, half, large, slow = asyncio.run(attack())
    assert nothing == half == 0 and large < 20_000_000 and slow is None
