"""Features at 80 Hz, F0 and style -> waveform: the two vocoder halves of the StyleTTS 2
decoders."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.kernels.istft import istft, synthesis_matrix
from rtvc.layers.dispatch import Dispatched
from rtvc.models.styletts2.source import Draws, HarmonicSource
from rtvc.models.styletts_vc.norms import AdaIN1d, WeightNormConv1d, WeightNormConvTranspose1d

KERNELS = (3, 7, 11)
DILATIONS = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
SLOPE = 0.1


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin^2(alpha x) / alpha, the periodic activation of Ziyin et al. 2020; x (B, C, T), alpha
    (1, C, 1)."""
    return x + torch.sin(alpha * x).square() / alpha


class AdaINResBlock(nn.Module):
    """HiFi-GAN's dilated residual block with AdaIN and Snake before each convolution.

    Source: StyleTTS 2, appendix (decoder).
    """

    def __init__(
        self, channels: int, kernel: int, dilations: Sequence[int], style_dim: int
    ) -> None:
        super().__init__()
        layers = range(len(dilations))

        def conv(dilation: int) -> nn.Module:
            return WeightNormConv1d(
                channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2
            )

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in layers)
        self.adain1 = nn.ModuleList(AdaIN1d(style_dim, channels) for _ in layers)
        self.adain2 = nn.ModuleList(AdaIN1d(style_dim, channels) for _ in layers)
        self.alpha1 = nn.ParameterList(nn.Parameter(torch.ones(1, channels, 1)) for _ in layers)
        self.alpha2 = nn.ParameterList(nn.Parameter(torch.ones(1, channels, 1)) for _ in layers)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, C, T), style (B, S) -> y (B, C, T)."""
        layers = zip(
            self.convs1,
            self.convs2,
            self.adain1,
            self.adain2,
            self.alpha1,
            self.alpha2,
            strict=True,
        )
        for conv1, conv2, adain1, adain2, alpha1, alpha2 in layers:
            y = conv1(adain1(x, style, "snake", alpha=alpha1))
            x = x + conv2(adain2(y, style, "snake", alpha=alpha2))
        return x


class Generator(nn.Module):
    """Upsampling stages, each joined by the harmonic source at its own rate; subclasses supply both
    ends.

    Args:
        source_channels: channels of the harmonic source as the subclass feeds it to the stages.
        source_upsample: samples of the waveform per frame of F0.
        channels: channels of the input; each stage halves them.
    """

    def __init__(
        self,
        source_channels: int,
        source_upsample: int,
        style_dim: int,
        channels: int,
        rates: Sequence[int],
        kernels: Sequence[int],
        block_kernels: Sequence[int],
        block_dilations: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        if len(rates) != len(kernels):
            raise ValueError(
                f"{len(rates)} upsampling rates came with {len(kernels)} kernels: give one kernel a"
                " rate"
            )
        self.m_source = HarmonicSource(source_upsample)
        self.noise_convs, self.noise_res, self.ups, self.resblocks = (
            nn.ModuleList(),
            nn.ModuleList(),
            nn.ModuleList(),
            nn.ModuleList(),
        )
        for stage, (rate, kernel) in enumerate(zip(rates, kernels, strict=True)):
            width, stride = channels >> (stage + 1), math.prod(rates[stage + 1 :])
            last = stage + 1 == len(rates)
            self.noise_convs.append(
                nn.Conv1d(source_channels, width, 1)
                if last
                else nn.Conv1d(
                    source_channels, width, 2 * stride, stride, padding=(stride + 1) // 2
                )
            )
            self.noise_res.append(AdaINResBlock(width, 11 if last else 7, (1, 3, 5), style_dim))
            # The whole kernel overhang is cut, so that every stage upsamples by exactly its rate.
            self.ups.append(
                WeightNormConvTranspose1d(
                    2 * width,
                    width,
                    kernel,
                    rate,
                    padding=(kernel - rate + 1) // 2,
                    output_padding=(kernel - rate) % 2,
                )
            )
            for size, dilations in zip(block_kernels, block_dilations, strict=True):
                self.resblocks.append(AdaINResBlock(width, size, dilations, style_dim))
        self.blocks_a_stage, self.width = len(block_kernels), channels >> len(rates)

    def stage(
        self, index: int, x: Tensor, source: Tensor, style: Tensor, pad: bool = False
    ) -> Tensor:
        """One upsampling stage.

        Args:
            x: (B, C, T), already activated.
            source: (B, source_channels, T_source).
            style: (B, S).
            pad: whether to repeat one frame on the left, by reflection, before the source joins.

        Returns:
            (B, C / 2, T * rate), one frame more if padded.
        """
        joined = self.noise_res[index](self.noise_convs[index](source), style)
        x = self.ups[index](x)
        x = (F.pad(x, (1, 0), mode="reflect") if pad else x) + joined
        first = index * self.blocks_a_stage
        outputs = [block(x, style) for block in self.resblocks[first : first + self.blocks_a_stage]]
        return torch.stack(outputs).mean(0)


class ISTFTNetGenerator(Generator, Dispatched):
    """Stops upsampling early and ends in an inverse STFT of predicted magnitude and phase.

    Source: Kaneko et al. 2022, "iSTFTNet"; HiFTNet; StyleTTS 2, appendix.
    """

    window: Tensor

    def __init__(
        self,
        style_dim: int = 128,
        channels: int = 512,
        rates: Sequence[int] = (10, 6),
        kernels: Sequence[int] = (20, 12),
        block_kernels: Sequence[int] = KERNELS,
        block_dilations: Sequence[Sequence[int]] = DILATIONS,
        n_fft: int = 20,
        hop: int = 5,
    ) -> None:
        upsample = math.prod(rates) * hop
        super().__init__(
            n_fft + 2, upsample, style_dim, channels, rates, kernels, block_kernels, block_dilations
        )
        self.n_fft, self.hop = n_fft, hop
        self.conv_post = WeightNormConv1d(self.width, n_fft + 2, 7, padding=3)
        # Rounded from float64: phases of bins on the negative real axis jump by 2 pi with the last
        # bit of the window.
        self.register_buffer(
            "window", torch.hann_window(n_fft, dtype=torch.float64).float(), persistent=False
        )

    def forward(self, x: Tensor, style: Tensor, f0: Tensor, draws: Draws) -> Tensor:
        """x (B, C, T), style (B, S), f0 (B, T) Hz -> waveform (B, 1, N = T * upsample)."""
        with torch.no_grad():
            excitation = self.m_source(f0, draws)[:, 0]
            excitation = excitation.to(torch.promote_types(excitation.dtype, torch.float32))
            window = self.window.to(excitation.dtype)
            spectrum = torch.stft(
                excitation, self.n_fft, self.hop, window=window, return_complex=True
            )
            source = torch.cat([spectrum.abs(), spectrum.angle()], 1).to(x.dtype)
        stages = len(self.ups)
        for index in range(stages):
            x = self.stage(index, F.leaky_relu(x, SLOPE), source, style, pad=index == stages - 1)
        # torch's default slope here, not SLOPE: the checkpoints were trained so.
        return self.wave(self.conv_post(F.leaky_relu(x)).to(window.dtype))

    def wave(self, spectrum: Tensor) -> Tensor:
        """Log-magnitudes over what the phases are sines of (B, n_fft + 2, T) -> (B, 1, (T - 1) *
        hop).

        Where fewer windows overlap than in the middle, at both ends, the sum is divided by the
        fewer, as `torch.istft` does.
        """
        size, hop, frames = self.n_fft, self.hop, spectrum.shape[-1]
        window = self.window.double()
        matrix = synthesis_matrix(size, hop, window).to(spectrum)
        tail = spectrum.new_zeros(spectrum.shape[0], 1, size - hop)
        y, tail = istft(
            spectrum, tail, matrix, hop=hop, form="sine", implementation=self.implementation
        )
        power = window.square()[None, :, None].expand(1, size, frames)
        whole = F.fold(power, (1, (frames - 1) * hop + size), (1, size), stride=(1, hop))[0, 0, 0]
        middle = (
            F.pad(window.square(), (0, -size % hop))
            .reshape(-1, hop)
            .sum(0)
            .repeat(frames + size // hop)[: whole.shape[0]]
        )
        inner = slice(size // 2, whole.shape[0] - size // 2)
        return torch.cat([y, tail], -1)[..., inner] * (middle / whole)[inner].to(spectrum)


class HiFiGANGenerator(Generator):
    """Upsamples to the sample rate in the time domain, with Snake between stages.

    Source: Kong et al. 2020, "HiFi-GAN"; StyleTTS 2, appendix.
    """

    def __init__(
        self,
        style_dim: int = 128,
        channels: int = 512,
        rates: Sequence[int] = (10, 5, 3, 2),
        kernels: Sequence[int] = (20, 10, 6, 4),
        block_kernels: Sequence[int] = KERNELS,
        block_dilations: Sequence[Sequence[int]] = DILATIONS,
    ) -> None:
        super().__init__(
            1, math.prod(rates), style_dim, channels, rates, kernels, block_kernels, block_dilations
        )
        self.alphas = nn.ParameterList(
            nn.Parameter(torch.ones(1, channels >> stage, 1)) for stage in range(len(rates) + 1)
        )
        self.conv_post = WeightNormConv1d(self.width, 1, 7, padding=3)

    def forward(self, x: Tensor, style: Tensor, f0: Tensor, draws: Draws) -> Tensor:
        """x (B, C, T), style (B, S), f0 (B, T) Hz -> waveform (B, 1, N = T * upsample)."""
        source = self.m_source(f0, draws)
        for index in range(len(self.ups)):
            x = self.stage(index, snake(x, self.alphas[index]), source, style)
        return torch.tanh(self.conv_post(snake(x, self.alphas[len(self.ups)])))
