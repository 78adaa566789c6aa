"""Fitting a voice to its recordings: beyond what the style encoder hears, the decoder's own scales
and shifts are adjusted.

The acoustic style proposes every scale and shift of the decoder. Gradient descent then moves them
(and no weight of the model) until the decoder, given what the model hears in the recordings, speaks
them more like the person did. What is said there is not learnt: nothing that depends on time moves.
It costs seconds, once a voice; conversion costs what it did. A one-shot form of speaker adaptation
(Chen et al. 2021, "AdaSpeech", section 3.2, tunes the conditional layer normalisation alike).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.mel_distance import MultiResolutionMel
from rtvc.errors import VoiceError
from rtvc.models.loading import fingerprint
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.assets import StreamingModel
from rtvc.models.streaming.dial import DialConverter
from rtvc.voices.voice import Voice

STEPS = 60
"""Steps of gradient descent when it is not said how many."""
RATE = 0.01
"""Adam's first step size; it falls to nothing in a straight line. Three times as much wins next to
nothing in likeness and costs naturalness (docs/measurements.md, "Fitting")."""
PIECE = 160
"""Frames of HOP samples that a step looks at: 2 s."""
WARM = 16
"""Frames at the beginning of a piece that do not count: the decoder has heard too little."""
LONGEST = 12 * SAMPLE_RATE
"""Samples of the recordings that are used."""
LEVEL = 0.5
"""Peak to which they are brought."""


def weights_of(model: StreamingModel) -> str:
    """A name for the weights that a fitted voice belongs to: those that say what scales and shifts
    do, and the map that proposes them."""
    return fingerprint((model.decoder, model.affine))[:12]


def fit(
    model: StreamingModel,
    voice: Voice,
    wave: Tensor,
    bandwidth: float = SAMPLE_RATE / 2,
    *,
    steps: int = STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Voice:
    """Fits a voice to recordings of its speaker; the result depends on nothing else, and is the
    same every time.

    Args:
        model: the streaming model, on any device; its weights stay as they are.
        voice: made by `model` of the same recordings.
        wave: (N,) at 24 kHz, at least a second; the first 12 s are used.
        bandwidth: the highest frequency that it holds, in Hz.
        steps: of gradient descent.
        progress: told how many steps are done, and of how many.

    Raises:
        VoiceError: the recording is shorter than a second, or the fit did not stay finite.
    """
    if len(wave) < SAMPLE_RATE:
        raise VoiceError(
            f"{len(wave) / SAMPLE_RATE:.2f} s of recording came, at least 1 s is needed to fit a"
            " voice: use a longer one"
        )
    place = model.affine.weight.device
    with torch.inference_mode(False), torch.enable_grad():
        recording = _listen(model, wave.clone().to(place))
        proposed = model.decoding(voice.acoustic.clone().to(place)[None]).detach()
        # The last of it are the scales and shifts; what may come before them stays.
        memory, scales = proposed.split([model.decoder.memory_size, model.decoder.style_size], 1)
        fine = torch.zeros_like(scales, requires_grad=True)
        distance = MultiResolutionMel().to(place)
        band = torch.tensor([2 * bandwidth], device=place)
        optimizer, generator = torch.optim.Adam([fine], lr=RATE), torch.Generator().manual_seed(0)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            attempt, true = _attempt(
                model, recording, torch.cat([memory, scales + fine], 1), generator
            )
            # The model's weights may ask for gradients; only `fine` gets one.
            (fine.grad,) = torch.autograd.grad(distance(attempt, true, band), fine)
            optimizer.step()
            if progress is not None:
                progress(step + 1, steps)
    if not fine.isfinite().all():
        raise VoiceError(
            f"fitting {voice.name!r} did not stay finite: use another recording, or leave"
            " fitting out"
        )
    source = voice.source | {
        "fit": {
            "weights": weights_of(model),
            "steps": steps,
            "seconds": round(len(recording.wave) / SAMPLE_RATE, 2),
        }
    }
    return Voice(voice.acoustic, voice.prosodic, voice.name, source, fine.detach()[0])


@dataclass(frozen=True)
class Heard:
    """A recording (N,), and what the decoder is told of it, frame by frame, T * HOP = N."""

    wave: Tensor
    content: Tensor  # (1, Z, T)
    log_f0: Tensor  # (1, T)
    voiced: Tensor  # (1, T)
    energy: Tensor  # (1, 2, T)
    late: int
    """Samples by which what the decoder makes of the frames lags the recording."""


def _listen(model: StreamingModel, wave: Tensor) -> Heard:
    """How the model hears a recording (N,) in a stream."""
    frames = min(len(wave), LONGEST) // HOP
    wave = wave[: frames * HOP]
    wave = wave * (LEVEL / wave.abs().amax().clamp_min(1e-4))
    if isinstance(model, DialConverter):
        first, waits, soon = 0, model.lookahead, model.ahead
        ahead, late = soon, HOP - model.analysis.centre
    else:  # its frame 1 is centred on the first sample
        first, waits, soon, ahead, late = 1, model.encoder.latency, 1, 0, HOP
    with torch.no_grad():
        features, _ = model.analysis(
            F.pad(wave[None, None], (0, (first + max(1, waits)) * HOP)), model.analysis.initial(1)
        )
        mel = features[:, :BANDS]
        content, _ = model.encoder(mel, model.encoder.initial(1))
        pitch, _ = model.pitch(features[:, BANDS:], model.pitch.initial(1))
        energy = energy_of(mel)[:, 0]

    def taken(x: Tensor, after: int = 0) -> Tensor:
        return x[..., first + after : first + after + frames].float()

    log_f0, voiced = taken(pitch, ahead).unbind(1)
    return Heard(
        wave,
        taken(content, waits),
        log_f0,
        voiced,
        torch.stack([taken(energy), taken(energy, soon)], 1),
        late,
    )


def _attempt(
    model: StreamingModel, heard: Heard, voice: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random piece as the decoder says it in a voice (1, M + S), and as it was, (1, N) each."""
    frames = heard.content.shape[-1]
    piece = min(PIECE, frames)
    start = int(torch.randint(0, frames - piece + 1, (), generator=generator))
    content, log_f0, voiced, energy = (
        x[..., start : start + piece]
        for x in (heard.content, heard.log_f0, heard.voiced, heard.energy)
    )
    attempt, _ = model.decoder(content, log_f0, voiced, energy, voice, model.decoder.initial(1))
    said = attempt[:, 0, heard.late + WARM * HOP :].float()
    begin = (start + WARM) * HOP
    return said, heard.wave[None, begin : begin + said.shape[1]]
