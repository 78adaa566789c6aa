"""Whole recordings through StyleTTS-VC: the paper's inference path."""

import zlib
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.energy import energy
from rtvc.audio.mel import mel_spectrogram
from rtvc.models.styletts_vc.style_encoder import SHORTEST
from rtvc.models.vocoder import GriffinLim

NEEDED = ("mel_encoder", "pitch_extractor", "style_encoder", "decoder")
"""Components that conversion runs; the other four are for training."""


class VoiceConversion(nn.Module):
    """The components that inference needs, as a model of whole recordings.

    StyleTTS-VC has one style for timbre and prosody, and its decoder normalises F0 and energy away
    from the source's register to that of the style: `styles` gives the same vector twice, and
    `convert` reads the acoustic one.

    Source: StyleTTS-VC, section III-C.

    Attributes:
        space: voices of one checkpoint's style encoder fit no other's.
        latency: None, since instance norm and a BiLSTM see the whole recording.
    """

    name = "styletts-vc"
    latency = streaming = None

    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.mel_encoder, self.pitch_extractor = (
            components["mel_encoder"],
            components["pitch_extractor"],
        )
        self.style_encoder, self.decoder = components["style_encoder"], components["decoder"]
        self.vocoder = components.get("vocoder") or GriffinLim()
        last = next(reversed(self.style_encoder.state_dict().values()))
        self.space = f"{self.name}-{zlib.crc32(last.cpu().numpy().tobytes()):08x}"

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, 1, N), N a multiple of 300 -> mel (B, 80, N / 300)."""
        return mel_spectrogram(wave[:, 0])[..., :-1]

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """A reference (B, 1, N) at 24 kHz, N a multiple of 300 -> its style twice, (B, S)."""
        mel = self.mel(wave)
        # A short reference is looked at several times over.
        style = self.style_encoder(mel.repeat(1, 1, -(-SHORTEST // mel.shape[-1]))[:, None])
        return style, style

    def convert(
        self,
        wave: Tensor,
        acoustic: Tensor,
        prosodic: Tensor,
        *,
        pitch: float = 0.0,
        prosody: float = 1.0,
    ) -> Tensor:
        """Says the same in another voice.

        Args:
            wave: (B, 1, N) at 24 kHz, N a multiple of 300.
            acoustic: (B, S).
            prosodic: not read: there is one style.
            pitch: semitones added to the source's F0; the decoder's instance norm leaves little of
                it.
            prosody: not read: the register is always the style's.

        Returns:
            (B, 1, N).
        """
        mel = self.mel(wave)
        frames = mel.shape[-1]
        mel = F.pad(mel, (0, frames % 2), mode="replicate")
        f0 = self.pitch_extractor(mel[:, None]).f0 * 2 ** (pitch / 12)
        converted = self.decoder(self.mel_encoder(mel), f0, energy(mel)[:, 0], acoustic)
        y: Tensor = self.vocoder(converted)[..., : wave.shape[-1]]
        return y
