"""Fitting a voice to its recordings: beyond what the style encoder hears, the decoder's own scales
and shifts are adjusted.

The acoustic style proposes every scale and shift of the decoder. Gradient descent then moves them
(and no weight of the model) until the decoder, given what the model hears in the recordings, speaks
them more like the person did. What is said there is not learnt: nothing that depends on time moves.
It costs seconds, once a voice; conversion costs what it did. A one-shot form of speaker adaptation
(Chen et al. 2021, "AdaSpeech", section 3.2, tunes the conditional layer normalisation alike).
"""

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.spectral import BandedSTFT
from rtvc.errors import VoiceError
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.model import StreamingConverter
from rtvc.voices.voice import Voice

STEPS = 60
"""Steps of gradient descent when it is not said how many."""
RATE = 0.03
"""Adam's first step size; it falls to nothing in a straight line."""
PIECE = 160
"""Frames of HOP samples that a step looks at: 2 s."""
WARM = 16
"""Frames at the beginning of a piece that do not count: the decoder has heard too little."""
LONGEST = 12 * SAMPLE_RATE
"""Samples of the recordings that are used."""
LEVEL = 0.5
"""Peak to which they are brought."""
EDGE = 200.0
"""Hz below the highest frequency of a recording from which its spectrum is not believed."""


def weights_of(model: StreamingConverter) -> str:
    """A name for the weights that a fitted voice belongs to: those that say what scales and shifts
    do, and the map that proposes them."""
    digest = hashlib.sha256()
    for part in (model.decoder, model.affine):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()[:12]


def fit(
    model: StreamingConverter,
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
        proposed = model.affine(voice.acoustic.clone().to(place)[None]).detach()
        fine = torch.zeros_like(proposed, requires_grad=True)
        distance, cutoff = BandedSTFT().to(place), torch.tensor([_cutoff(bandwidth)], device=place)
        optimizer, generator = torch.optim.Adam([fine], lr=RATE), torch.Generator().manual_seed(0)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            attempt, true = _attempt(model, recording, proposed + fine, generator)
            # The model's weights may ask for gradients; only `fine` gets one.
            (fine.grad,) = torch.autograd.grad(distance(attempt, true, cutoff), fine)
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
            "seconds": round(len(recording["wave"]) / SAMPLE_RATE, 2),
        }
    }
    return Voice(voice.acoustic, voice.prosodic, voice.name, source, fine.detach()[0])


def _cutoff(bandwidth: float) -> float:
    whole = SAMPLE_RATE / 2
    return whole + 1 if bandwidth >= whole - EDGE else bandwidth - EDGE


def _listen(model: StreamingConverter, wave: Tensor) -> dict[str, Tensor]:
    """What the decoder is told of the recording, (…, T), and the recording itself (N,), T * HOP =
    N."""
    frames, late = min(len(wave), LONGEST) // HOP, 1 + model.encoder.latency
    wave = wave[: frames * HOP]
    wave = wave * (LEVEL / wave.abs().amax().clamp_min(1e-4))
    with torch.no_grad():
        features, _ = model.analysis(
            F.pad(wave[None, None], (0, (1 + late) * HOP)), model.analysis.initial(1)
        )
        mel = features[:, :BANDS]
        content, _ = model.encoder(mel, model.encoder.initial(1))
        pitch, _ = model.pitch(features[:, BANDS:], model.pitch.initial(1))
        energy = energy_of(mel)[:, 0]
    return {
        "wave": wave,
        "content": content[..., late : late + frames].float(),
        "log_f0": pitch[:, 0, 1 : 1 + frames].float(),
        "voiced": pitch[:, 1, 1 : 1 + frames].float(),
        "energy": torch.stack([energy[:, 1 : 1 + frames], energy[:, 2 : 2 + frames]], 1).float(),
    }


def _attempt(
    model: StreamingConverter,
    recording: dict[str, Tensor],
    shifts: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A random piece as the decoder says it, and as it was, (1, N) each."""
    frames = recording["content"].shape[-1]
    piece = min(PIECE, frames)
    start = int(torch.randint(0, frames - piece + 1, (), generator=generator))
    content, log_f0, voiced, energy = (
        recording[name][..., start : start + piece]
        for name in ("content", "log_f0", "voiced", "energy")
    )
    attempt, _ = model.decoder(content, log_f0, voiced, energy, shifts, model.decoder.initial(1))
    # The decoder's output is a frame late.
    true = recording["wave"][None, (start + WARM) * HOP : (start + piece - 1) * HOP]
    return attempt[:, 0, (1 + WARM) * HOP :].float(), true
