"""F0 from a mel spectrogram, by joint detection and classification (JDC)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

SLOPE = 0.01


class Pitch(NamedTuple):
    """What the pitch extractor says of a batch.

    Attributes:
        f0: (B, T) Hz at 80 Hz, near 0 where unvoiced.
        features: (B, 256, 10, T), for perceptual losses.
    """

    f0: Tensor
    features: Tensor


class ResBlock(nn.Module):
    """Batch norm, halving of the frequency axis, and two convolutions beside a projection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pre_conv = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.LeakyReLU(SLOPE), nn.MaxPool2d((1, 2))
        )
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.conv1by1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, F) -> y (B, C', T, F / 2)."""
        x = self.pre_conv(x)
        return torch.add(self.conv(x), self.conv1by1(x))


class PitchExtractor(nn.Module):
    """JDC network over 80 mel bands. 5,248,067 parameters, those of the voicing detector included.

    Source: Kum and Nam 2019, "Joint Detection and Classification of Singing Voice Melody";
    StyleTTS-VC, section III-A.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        half, full = 4 * width, 8 * width
        self.conv_block = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.res_block1 = ResBlock(width, 2 * width)
        self.res_block2 = ResBlock(2 * width, 3 * width)
        self.res_block3 = ResBlock(3 * width, half)
        self.pool_block = nn.Sequential(
            nn.BatchNorm2d(half), nn.LeakyReLU(SLOPE), nn.MaxPool2d((1, 4)), nn.Dropout(0.2)
        )
        self.detector_conv = nn.Sequential(
            nn.Conv2d(10 * width, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(0.2),
        )
        self.bilstm_classifier = nn.LSTM(full, half, batch_first=True, bidirectional=True)
        self.bilstm_detector = nn.LSTM(full, half, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(full, 1)
        self.detector = nn.Linear(full, 2)
        self.apply(initialise)

    def stages(self, mel: Tensor) -> list[Tensor]:
        """mel (B, 1, 80, T) -> what each convolutional stage makes of it, (B, C, T, F) with F = 80,
        40, 20, 10."""
        if mel.ndim != 4 or mel.shape[1:3] != (1, 80):
            raise ValueError(f"expected a mel of shape (B, 1, 80, T), got {tuple(mel.shape)}")
        outputs = [self.conv_block(mel.mT)]
        for block in (self.res_block1, self.res_block2, self.res_block3):
            outputs.append(block(outputs[-1]))
        return outputs

    def forward(self, mel: Tensor) -> Pitch:
        """mel (B, 1, 80, T) at 80 Hz -> F0 (B, T) in Hz and features (B, 256, 10, T)."""
        return self._pitch(self.stages(mel))

    def _pitch(self, stages: list[Tensor]) -> Pitch:
        activated = self.pool_block[:2](stages[-1])
        # The authors' forward leaves the dropout of this block out.
        x = self.bilstm_classifier(frames(self.pool_block[2](activated)))[0]
        return Pitch(self.classifier(x)[..., 0].abs(), activated.mT)

    def voicing(self, mel: Tensor) -> Tensor:
        """mel (B, 1, 80, T) -> logits (B, T, 2) of the auxiliary detector, for training the
        extractor itself."""
        return self._voicing(self.stages(mel))

    def _voicing(self, stages: list[Tensor]) -> Tensor:
        pooled = [nn.functional.max_pool2d(x, (1, x.shape[-1] // 2)) for x in stages[:3]]
        x = self.detector_conv(torch.cat([*pooled, self.pool_block(stages[-1])], 1))
        logits: Tensor = self.detector(self.bilstm_detector(frames(x))[0])
        return logits

    def joint(self, mel: Tensor) -> tuple[Pitch, Tensor]:
        """`forward` and `voicing` of mel (B, 1, 80, T), the convolutions computed once."""
        stages = self.stages(mel)
        return self._pitch(stages), self._voicing(stages)


def frames(x: Tensor) -> Tensor:
    """x (B, C, T, F) -> (B, T, C * F)."""
    return x.transpose(1, 2).flatten(2)


def initialise(module: nn.Module) -> None:
    """Initial weights as the authors draw them."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
    elif isinstance(module, nn.LSTM):
        for parameter in module.parameters():
            nn.init.orthogonal_(parameter) if parameter.ndim >= 2 else nn.init.normal_(parameter)
