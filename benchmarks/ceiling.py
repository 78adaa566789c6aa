"""What the decoder's head can say at best: `python -m rtvc.benchmarks.ceiling MANIFEST`.

The filters of its harmonics and of its noise, and the free phase where there is one, are fitted by
gradient descent straight to recordings, at the F0 that the shipped model hears in them: what no
network in front of the head can beat by the same distance. Judges that no training sees then say
what that distance is worth. The recordings themselves, and the shipped model saying them, are the
ends of the scale. With `--model` nothing is fitted: other models say them in its place.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.mel_distance import MultiResolutionMel
from rtvc.audio.spectral import BandedSTFT
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.assets import StreamingModel
from rtvc.models.streaming.decoder import BINS, RANGE, STEP, Decoder
from rtvc.models.streaming.dial import DialConverter

COSINES = 60
"""Numbers a frame that shape each filter: its spectral envelope, smooth over 200 Hz."""
LOUD, HISS = -1.0, -4.0
"""Log-magnitudes with which harmonics and noise begin."""
RATE = 0.1
"""Adam's first step size; it falls to nothing along a cosine."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two waves (B, N) -> a scalar."""


def fitted(
    decoder: Decoder,
    wave: Tensor,
    log_f0: Tensor,
    voicing: Tensor,
    distance: Distance,
    iterations: int,
) -> Tensor:
    """The best that the head can do.

    Args:
        decoder: whose source, synthesis and free phase are used; its networks are not.
        wave: (B, N) at 24 kHz, N a multiple of HOP.
        log_f0: (B, T) at the centres of frames, T = N / HOP.
        voicing: (B, T).
        distance: what is made small.
        iterations: of Adam.

    Returns:
        (B, N), aligned with `wave`.
    """
    batch, frames = log_f0.shape
    with torch.no_grad():
        start = decoder.initial(batch)
        pulses, _ = decoder.source(torch.exp(log_f0), voicing, start.source)
        # The synthesis completes a window SIZE - STEP samples after it began: silence behind the
        # pulses brings the last of them out.
        late = decoder.istft.tail
        pulses = F.pad(pulses.float(), (0, late))
        spectrum, _ = decoder.stft(pulses[:, None], start.analysis)
    windows = spectrum.shape[-1]
    cosines = torch.cos(torch.pi * torch.arange(COSINES)[:, None] * torch.arange(BINS) / (BINS - 1))
    shape = torch.zeros(batch, 2 * COSINES, frames)
    shape[:, 0], shape[:, COSINES] = LOUD, HISS
    phase = torch.zeros(batch, windows, decoder.phase_bins)
    optimizer = torch.optim.Adam([shape.requires_grad_(), phase.requires_grad_()], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)

    def spoken() -> Tensor:
        drawn = F.interpolate(shape, size=frames * HOP // STEP, mode="linear").mT
        drawn = F.pad(drawn.mT, (0, windows - drawn.shape[1]), mode="replicate").mT
        filters = torch.cat([part @ cosines for part in drawn.split(COSINES, -1)], -1)
        filters = RANGE * torch.tanh(filters / RANGE)
        free = phase if decoder.phase_bins else None
        shaped, _ = decoder.filtered(spectrum.mT, filters, start.noise, free)
        made: Tensor
        made, _ = decoder.istft(shaped.mT, start.synthesis)
        return made[:, 0, late:]

    for _ in range(iterations):
        optimizer.zero_grad()
        distance(spoken(), wave).backward()
        optimizer.step()
        schedule.step()
    best: Tensor = spoken().detach()
    return best


def pieces(
    manifest: Path, count: int, seconds: float, bandwidth: int
) -> Iterator[tuple[str, Tensor]]:
    """The middles of the first recordings of as many speakers, brought to half of full scale."""
    from rtvc.audio.recording import read
    from rtvc.data.manifest import read_manifest

    samples, heard = int(seconds * SAMPLE_RATE) // HOP * HOP, set[str]()
    for entry in read_manifest(manifest):
        if len(heard) == count:
            return
        if entry.speaker in heard or entry.bandwidth_rate < bandwidth:
            continue
        wave = read(entry.path)
        if len(wave) >= samples:
            heard.add(entry.speaker)
            start = (len(wave) - samples) // 2
            piece = wave[start : start + samples]
            yield entry.speaker, piece * (0.5 / piece.abs().amax().clamp_min(1e-4))


@torch.no_grad()
def said_by(model: StreamingModel, waves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the model makes of waves (B, N) in their own voices (B, N), and log F0 and voicing as it
    hears them (B, T), each at the end of its frame's samples as `HarmonicSource` asks."""
    late = model.latency
    x = F.pad(waves[:, None], (0, -(-late // HOP) * HOP))
    voice = model.condition(*model.styles(waves[:, None]))
    said, _ = model(x, voice, model.initial(len(x)))
    features, _ = model.analysis(x, model.analysis.initial(len(x)))
    melody, _ = model.pitch(features[:, BANDS:], model.pitch.initial(len(x)))
    # Frame 1 of the first generation's analysis is centred on the first sample, frame 2 on the end
    # of the first HOP; what the second one's says at its frame 0 is of 90 samples before that end.
    start = 0 if isinstance(model, DialConverter) else 2
    log_f0, voicing = melody[:, :, start : start + waves.shape[1] // HOP].unbind(1)
    return said[:, 0, late : late + waves.shape[1]], log_f0, voicing


def scores(waves: Tensor) -> dict[str, float]:
    """DNSMOS (overall) and DistillMOS of waves (B, N), on average."""
    from rtvc.evaluate.judges import distillmos, quality

    heard, judge = waves.numpy(), distillmos.judge()
    return {
        "dnsmos": float(np.mean([quality.dnsmos(wave)["ovrl"] for wave in heard])),
        "distillmos": float(np.mean([judge(wave) for wave in heard])),
    }


def rows(waves: Tensor, iterations: int, models: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """One result after another: the ends of the scale, then the models, or, where there are none,
    the head by each distance."""
    from rtvc.models.streaming.assets import load_default, load_file

    said, log_f0, voicing = said_by(load_default().eval(), waves)
    yield {"what": "recordings", **scores(waves)}
    yield {"what": "shipped model, own voice", **scores(said)}
    for path in models:
        said, _, _ = said_by(load_file(path).eval(), waves)
        yield {"what": f"{path.name}, own voice", **scores(said)}
    if models:
        return
    spectra, mels, cutoff = BandedSTFT(), MultiResolutionMel(), torch.full((len(waves),), 12_001.0)
    distances: dict[str, Distance] = {
        "spectra": lambda made, true: spectra(made, true, cutoff),
        "mels": mels,
    }
    for name, distance in distances.items():
        for bins in (0, BINS):
            head = Decoder(1, 8, 3, (1,), phase_bins=bins)
            made = fitted(head, waves, log_f0, voicing, distance, iterations)
            yield {
                "what": f"head fitted by {name}{', free phase' if bins else ''}",
                **scores(made),
                "distance": float(distance(made, waves)),
            }


def main(
    manifest: Annotated[
        Path, typer.Argument(help="recordings: .tsv or .jsonl, as `rtvc data prepare` writes it")
    ],
    count: Annotated[int, typer.Option("--pieces", min=1, help="of as many speakers")] = 8,
    seconds: Annotated[float, typer.Option(min=1.0, help="of each")] = 3.0,
    iterations: Annotated[int, typer.Option(min=1, help="of the fit")] = 150,
    bandwidth: Annotated[int, typer.Option(help="least that a recording holds, twice its Hz")] = (
        SAMPLE_RATE
    ),
    models: Annotated[
        list[Path] | None,
        typer.Option("--model", help="weights of a model that is to say them, too; repeatable"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the results as JSON")] = False,
) -> None:
    """Fit the decoder's head to recordings, and let judges say how that sounds."""
    from rtvc.errors import ConfigError

    found = dict(pieces(manifest, count, seconds, bandwidth))
    if not found:
        raise ConfigError(
            f"expected recordings of at least {seconds} s and {bandwidth} Hz in {manifest}, got"
            " none: lower --seconds or --bandwidth"
        )
    made = []
    for row in rows(torch.stack(list(found.values())), iterations, models or ()):
        made.append(row)
        distance = f"  distance {row['distance']:.3f}" if "distance" in row else ""
        typer.echo(
            f"{row['what']:<36} DNSMOS {row['dnsmos']:.2f}  DistillMOS {row['distillmos']:.2f}"
            f"{distance}",
            err=as_json,
        )
    if as_json:
        typer.echo(json.dumps(made, indent=1))


if __name__ == "__main__":
    typer.run(main)
