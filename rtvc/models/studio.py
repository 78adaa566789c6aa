"""The studio model: the paper's mel encoder before the teacher's iSTFTNet decoder. For whole
recordings, not for streams.

StyleTTS-VC, section III-B: a mel encoder stands in for text, alignment and text encoder of a
trained StyleTTS; here of the StyleTTS 2 whose weights Kokoro-82M ships. Styles come from rtvc's own
encoders, so voices are shared with the streaming model; an affine map takes their acoustic half
into the decoder's style space.
"""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.energy import energy
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.errors import CheckpointError
from rtvc.files import write
from rtvc.layers.contract import offline
from rtvc.models.loading import check_fit, load_into
from rtvc.models.streaming import StreamingConverter
from rtvc.models.streaming import load_default as load_stream
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.pitch import SEMITONE
from rtvc.models.styletts2.decoder import ISTFTNetDecoder
from rtvc.models.styletts2.source import Draws
from rtvc.models.styletts_vc.mel_encoder import MelEncoder
from rtvc.models.styletts_vc.norms import fold_weight_norm
from rtvc.tensorfile import opened

DEFAULT = Path(__file__).with_name("studio.safetensors")
FORMAT = "rtvc-studio"
PIECE = 20 * SAMPLE_RATE
"""Samples decoded at a time; instance norms see this much."""
LEVEL = 1.5
"""Gain behind the decoder, see `rtvc.teacher.network.LEVEL`."""
OVERLAP = SAMPLE_RATE
"""Samples over which neighbouring pieces fade into each other."""


def speech_level(loudness: Tensor) -> Tensor:
    """Mean log energy of the frames within 26 dB of the loudest, (): loudness (1, T) -> how loud
    its speech is."""
    return loudness[loudness > loudness.max() - 3].mean()


CAUSAL_SHARE = 0.6
"""Of the causal encoder in the content."""


class StudioConverter(nn.Module):
    """Implements `rtvc.stream_model.Model`. `decoder` is the teacher's, `stream` brings pitch
    network and style encoders."""

    level: Tensor

    name, space = "studio", "stream"
    latency: int | None = None
    streaming: None = None

    def __init__(self, stream: StreamingConverter, decoder: ISTFTNetDecoder) -> None:
        super().__init__()
        self.stream, self.decoder = stream, decoder
        self.mel_encoder = MelEncoder()
        self.style_map = nn.Linear(128, 128)
        self.register_buffer("level", torch.zeros(()))
        """Log energy to add to a recording's, so that its speech is as loud as the decoder's
        training speech."""

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """A reference (1, 1, N) at 24 kHz, N a multiple of 300 -> acoustic and prosodic style, (1,
        128) each."""
        return self.stream.styles(wave)

    def convert(
        self, wave: Tensor, acoustic: Tensor, prosodic: Tensor, *, pitch: float, prosody: float
    ) -> Tensor:
        """wave (1, 1, N) at 24 kHz, N a multiple of 300, styles (1, 128) -> (1, 1, N), aligned with
        the input."""
        samples = wave.shape[-1]
        wave = F.pad(wave, (0, -samples % (2 * HOP)))
        mel, log_f0, voiced, loudness = self.listen(wave)
        log_f0 = (
            self.mapped(log_f0, voiced, self.stream.targets(prosodic)[0], prosody)
            + pitch * SEMITONE
        )
        f0 = torch.where(voiced, torch.exp(log_f0), torch.zeros_like(log_f0))
        # The decoder was trained on speech of one level: it is shown the source at that level, and
        # its output goes back by as much.
        gain = self.level - speech_level(loudness)
        style = self.style_map(acoustic)
        content = self.content(mel)
        out, fade = torch.zeros_like(wave), torch.linspace(0, 1, OVERLAP, device=wave.device)
        # Piece by piece, so that the decoder's memory does not grow with the recording; neighbours
        # overlap and fade into each other.
        for start in range(0, wave.shape[-1], PIECE - OVERLAP):
            stop = min(start + PIECE, wave.shape[-1])
            a, b = start // HOP, stop // HOP
            piece = self.decoder(
                content[..., a // 2 : b // 2],
                f0[:, a:b],
                (loudness + gain)[:, a:b],
                style,
                Draws.seeded(0),
            )
            piece = piece * torch.exp(-gain) * LEVEL
            if start:
                joint = min(OVERLAP, stop - start)
                piece = torch.cat(
                    [
                        piece[..., :joint] * fade[:joint]
                        + out[..., start : start + joint] * (1 - fade[:joint]),
                        piece[..., joint:],
                    ],
                    -1,
                )
            out[..., start:stop] = piece
            if stop == wave.shape[-1]:
                break
        return out[..., :samples]

    def content(self, mel: Tensor) -> Tensor:
        """mel (1, 80, T), T even -> content (1, 512, T / 2) at 40 Hz.

        The mean of two encoders that learned the same content apart, one hearing both ways and one
        causal: their errors differ, and on conversions where either alone was misheard at 36 and 42
        % of the words, the mean was at 30 %.
        """
        causal = F.avg_pool1d(offline(self.stream.encoder, mel), 2)
        both: Tensor = CAUSAL_SHARE * causal + (1 - CAUSAL_SHARE) * self.mel_encoder(mel)
        return both

    def listen(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """wave (1, 1, N) -> mel (1, 80, T), log F0 (1, T), voiced (1, T) bool, energy (1, T), all
        at 80 Hz."""
        features = offline(self.stream.analysis, wave)
        mel = features[:, :BANDS]
        # The pitch network's frame t speaks for 1.5 frames after the centre of mel frame t - 1:
        # half a frame after frame t.
        pitch, _ = self.stream.pitch(features[:, BANDS:], self.stream.pitch.initial(1))
        return mel, pitch[:, 0].to(mel.dtype), pitch[:, 1] > 0.5, energy(mel)[:, 0]

    @staticmethod
    def mapped(log_f0: Tensor, voiced: Tensor, target: Tensor, prosody: float) -> Tensor:
        """log_f0 (1, T) into the register and range of `target` (3,): mean and deviation of log F0
        come first."""
        own = log_f0[voiced]
        if len(own) < 8:
            return log_f0
        ratio = (target[1] / own.std().clamp(min=0.03)).clamp(0.7, 1.4)
        return log_f0 + prosody * (target[0] + (log_f0 - own.mean()) * ratio - log_f0)


class OwnParts(nn.Module):
    """What is rtvc's own of a studio model, under the names of its file; shares every tensor with
    the model."""

    level: Tensor

    def __init__(self, model: StudioConverter) -> None:
        super().__init__()
        self.mel_encoder, self.style_map = model.mel_encoder, model.style_map
        self.register_buffer("level", model.level)


def kokoro_decoder() -> ISTFTNetDecoder:
    """The teacher's decoder alone, weight norm folded.

    Raises:
        CheckpointError: it was never imported: run `rtvc weights import-kokoro`.
    """
    from rtvc.teacher.kokoro import Teacher

    decoder = Teacher.load().network.decoder
    plain = ISTFTNetDecoder()
    fold_weight_norm(plain)
    plain.load_state_dict(decoder.state_dict())
    return plain.requires_grad_(False).eval()


def save_file(
    model: StudioConverter, path: str | os.PathLike[str], facts: dict[str, str] | None = None
) -> Path:
    """Writes what is rtvc's own of the model (mel encoder, style map, level), float16."""
    from safetensors.torch import save

    path = Path(path)
    own = {
        name: tensor.half().contiguous() for name, tensor in OwnParts(model).state_dict().items()
    }
    write(path, save(own, {"format": FORMAT, **(facts or {})}))
    return path


def load_file(
    path: str | os.PathLike[str], stream: StreamingConverter, decoder: ISTFTNetDecoder
) -> StudioConverter:
    """Reads what `save_file` wrote.

    Raises:
        CheckpointError: no such file, or one that is truncated or foreign, does not fit the model,
            or holds NaN.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"expected weights of the studio model, {path} is not there: install rtvc again, or"
            " train them"
        )
    model = StudioConverter(stream, decoder)
    own = OwnParts(model)
    with opened(path) as file:
        if file.metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"expected weights that `rtvc train transfer` exported, {path} is a safetensors"
                " file but no studio model"
            )
        check_fit(own, file.described, str(path))
        load_into(own, file.read(), str(path))
    return model.requires_grad_(False).eval()


def load_default() -> StudioConverter:
    """The studio model that rtvc ships, on the imported teacher's decoder."""
    return load_file(DEFAULT, load_stream(), kokoro_decoder())
