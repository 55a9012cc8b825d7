"""How long the server waits for a client: a connection that asks nothing or reads nothing is ended."""

from ..extras import needing

with needing("app", __name__):
    from uvicorn.config import HTTP_PROTOCOLS
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

PATIENCE_SECONDS = 30


class ImpatientProtocol(AutoHTTPProtocol):
    """Ends connections that send no whole head of a request, or do not read an answer, for `PATIENCE_SECONDS`."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.reading = None
        self.asking = self.loop.call_later(PATIENCE_SECONDS, self.end_unless_asked, None)

    def connection_lost(self, error):
        super().connection_lost(error)
        for timer in (self.asking, self.reading):
            if timer is not None:
                timer.cancel()

    def end_unless_asked(self, last_request):
        """`last_request` is what was answered when this was called before; while one is answered nothing is ended."""
        is_answered = self.cycle is None or self.cycle.response_complete
        if is_answered and self.cycle is last_request:
            self.transport.close()
        else:
            request = self.cycle if is_answered else None
            self.asking = self.loop.call_later(PATIENCE_SECONDS, self.end_unless_asked, request)

    def pause_writing(self):
        super().pause_writing()
        self.reading = self.loop.call_later(PATIENCE_SECONDS, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self.reading.cancel()


def be_impatient() -> None:
    """Uvicorn, which Gradio starts without options of its own, takes connections as [`ImpatientProtocol`]."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{ImpatientProtocol.__name__}"
