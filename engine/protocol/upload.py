"""A file that arrives in pieces, checked before anybody looks at it."""

import hashlib
import hmac
from dataclasses import dataclass

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.frames import END, Frame
from rtvc.engine.protocol.messages import Upload
from rtvc.engine.protocol.refusals import Violation, violation

PIECE = 1 << 16
"""Bytes of an uploaded file that the client sends a frame."""


@dataclass(frozen=True)
class Uploaded:
    """A whole file arrived and its checksum is right."""

    name: str
    data: bytes


class UploadReceiver:
    """A file on its way."""

    def __init__(self, upload: Upload, largest: int) -> None:
        self.upload, self.largest = upload, largest
        self.data = bytearray()
        self.expected = 0
        self.skipped = upload.size > largest

    def take(self, frame: Frame) -> Uploaded | Violation | None:
        """One piece; the whole file when it was the last."""
        if frame.sequence != self.expected:
            return violation(
                Code.BAD_SEQUENCE,
                f"expected upload frame {self.expected}, got {frame.sequence}",
                fatal=True,
            )
        self.expected += 1
        if not self.skipped:
            self.data += frame.payload
            if len(self.data) > self.upload.size:
                return violation(
                    Code.BAD_UPLOAD,
                    f"expected the {self.upload.size} bytes that were announced, got more",
                    fatal=True,
                )
        if not frame.flags & END or self.skipped:
            return None
        if len(self.data) != self.upload.size or not hmac.compare_digest(
            hashlib.sha256(self.data).hexdigest(), self.upload.sha256
        ):
            advice = "check size and sha256, and send the file again"
            return violation(
                Code.BAD_UPLOAD,
                f"expected the {self.upload.size} bytes announced, got {len(self.data)} others",
                advice,
            )
        return Uploaded(self.upload.name, bytes(self.data))
