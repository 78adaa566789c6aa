"""From an uploaded file to a voice in the store: decoded in a confined process, one at a time, and
measured."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import rtvc
from rtvc.audio.samples import Samples
from rtvc.engine.admission.limits import ServerLimits
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import VoiceReady
from rtvc.engine.protocol.refusals import Refusal
from rtvc.engine.voices import decode
from rtvc.engine.voices.store import VoiceStore
from rtvc.errors import AudioError, VoiceError
from rtvc.voices.voice import Voice

Maker = Callable[[Samples, int, str], Voice]
"""Samples (N,), their rate in Hz and a name -> a voice."""

KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")
"""Environment variables that the decoder sees: no secret among them."""


async def decoded(data: bytes, limits: ServerLimits) -> tuple[Samples, int]:
    """The samples (N,) of an untrusted file, and their rate in Hz.

    Raises:
        Refusal: it cannot be decoded within the limits.
    """
    ours = {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(rtvc.__file__).parents[1]),
    }
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | ours
    command = [
        sys.executable,
        str(Path(decode.__file__)),
        str(limits.upload_seconds),
        str(int(limits.decode_s) + 1),
    ]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )
    try:
        async with asyncio.timeout(limits.decode_s):
            out, problem = await process.communicate(data)
    except TimeoutError:
        raise Refusal(
            Code.BAD_UPLOAD,
            f"the file took longer than {limits.decode_s:g} s to decode",
            "send a shorter one, as WAV",
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        reason = (
            problem.decode("utf-8", "replace")[:200]
            if process.returncode == 3
            else "it cannot be decoded with the memory and time it is given"
        )
        raise Refusal(
            Code.BAD_UPLOAD,
            f"the file cannot be used: {reason}",
            "send half a minute of one person speaking, as WAV or FLAC",
        )
    head, _, body = out.partition(b"\n")
    return np.frombuffer(body, "<f4").astype(np.float32), int(head)


class Uploads:
    """Makes voices of uploaded files.

    Args:
        store: where they go.
        maker: what makes a voice of samples.
        limits: of the server.
        executor: where `maker` runs, one at a time.
    """

    def __init__(
        self, store: VoiceStore, maker: Maker, limits: ServerLimits, executor: Executor
    ) -> None:
        self.store, self.maker, self.limits, self.executor = store, maker, limits, executor
        self._turn = asyncio.Semaphore(1)
        self._from: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Uploads that were announced and are not done."""
        return self._from.total()

    def admit(self, address: str) -> None:
        """Counts an upload in; every admission is followed by a `release`.

        Raises:
            Refusal: too many are under way, from everywhere or from this address.
        """
        for count, most, whose in (
            (self.under_way, self.limits.uploads_at_once, ""),
            (self._from[address], self.limits.uploads_per_address, " of your address"),
        ):
            if count >= most:
                message = f"{count} uploads{whose} are under way already"
                raise Refusal(Code.RATE_LIMITED, message, "try again in a few seconds")
        self._from[address] += 1

    def release(self, address: str) -> None:
        """The upload is done, or will never be."""
        self._from[address] -= 1
        if not self._from[address]:
            del self._from[address]

    async def make(self, name: str, data: bytes) -> VoiceReady:
        """Stores the voice of a recording.

        Raises:
            Refusal: the file or the name cannot be used.
        """
        async with self._turn:
            samples, rate = await decoded(data, self.limits)
            try:
                voice = await asyncio.get_running_loop().run_in_executor(
                    self.executor, self._make, name, samples, rate
                )
            except (AudioError, VoiceError) as error:
                raise Refusal(Code.BAD_UPLOAD, str(error)[:300]) from error
        report: dict[str, Any] = voice.references[0] if voice.references else {}
        return VoiceReady(
            name=name,
            seconds=round(len(samples) / rate, 3),
            speech=float(report.get("speech", 0.0)),
            grade=str(report.get("grade", "")),
            advice=tuple(str(line) for line in report.get("advice", ())),
        )

    def _make(self, name: str, samples: Samples, rate: int) -> Voice:
        voice = self.maker(samples, rate, name)
        self.store.add(name, voice)
        return voice
