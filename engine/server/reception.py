"""The files that one client uploads: announced, on their way, and made into voices."""

import logging
from collections.abc import Callable

from rtvc.engine.admission.limits import Bucket
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import Error, ServerMessage, Upload
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.protocol.server_side import ServerSide
from rtvc.engine.protocol.upload import Uploaded
from rtvc.engine.server.service import Service

UPLOAD_GRACE_S = 5.0
"""Seconds after which it is looked at how fast an upload comes."""

log = logging.getLogger("rtvc.serve")


class Reception:
    """Takes the uploads of one connection, one at a time.

    Args:
        service: whose places for uploads they take.
        side: the connection's end of the protocol.
        address: of the client, which has a share of the places.
        reply: sends a message.
        note: counts a refusal.
    """

    def __init__(
        self,
        service: Service,
        side: ServerSide,
        address: str,
        reply: Callable[[ServerMessage], None],
        note: Callable[[Error], None],
    ) -> None:
        self.service, self.side, self.address = service, side, address
        self.reply, self.note = reply, note
        a_minute = service.limits.uploads_per_minute
        self._allowance = Bucket(a_minute / 60, max(1.0, a_minute), service.pool.clock)
        self._arriving, self._announced_at = False, 0.0

    async def announced(self, upload: Upload) -> None:
        """Takes a place for a file, or has what will come of it thrown away.

        Raises:
            Refusal: no place, or no such name.
        """
        try:
            if self._arriving or not self._allowance.take():
                raise Refusal(Code.RATE_LIMITED, "too many uploads came", "try again in a minute")
            service = self.service
            await service.workers.stored(lambda: service.store.vacant(upload.name))
            service.uploads.admit(self.address)
            self._arriving, self._announced_at = True, service.pool.clock()
        except Refusal:
            self.side.discard_upload()
            raise

    def overdue(self, now: float) -> Refusal | None:
        """Why a file on its way should no longer keep the place that others could use, if there is
        a reason."""
        limits, lasted = self.service.limits, now - self._announced_at
        if not self._arriving:
            return None
        if lasted > limits.upload_s:
            why = f"a file took longer than {limits.upload_s:g} s"
        elif lasted > UPLOAD_GRACE_S and self.side.upload_bytes < limits.upload_rate * lasted:
            why = f"{self.side.upload_bytes} bytes of a file came in {lasted:.0f} s"
        else:
            return None
        advice = f"send a shorter one, at {limits.upload_rate:g} bytes a second at least"
        return Refusal(Code.BAD_UPLOAD, why, advice, fatal=True)

    def arrived(self, file: Uploaded) -> None:
        """Makes a voice of a whole file: even if the connection ends, and only then gives the place
        back."""
        self._arriving = False
        self.service.workers.task(self._make(file))

    def over(self) -> None:
        """Nothing more will come of the file on its way, if there is one."""
        if self._arriving:
            self._arriving = False
            self.service.uploads.release(self.address)

    async def _make(self, file: Uploaded) -> None:
        service = self.service
        try:
            self.reply(await service.uploads.make(file.name, file.data))
            service.metrics.uploads.inc()
        except Refusal as refusal:
            self.note(refusal.error)
            self.reply(refusal.error)
        except Exception:
            service.metrics.crashes.inc()
            log.exception("address=%s an upload failed", self.address)
            self.reply(
                Error(
                    code=Code.INTERNAL,
                    message="something went wrong here",
                    advice="try another recording",
                )
            )
        finally:
            service.uploads.release(self.address)
