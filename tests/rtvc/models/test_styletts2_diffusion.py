"""StyleTTS 2's style diffusion: the denoiser's equations, the sampler and its noise levels."""

import math

import pytest
import torch
import torch.nn.functional as F

from rtvc.models.styletts2.denoiser import StyleDenoiser
from rtvc.models.styletts2.diffusion import StyleDiffusion, karras_schedule
from rtvc.models.styletts2.source import Draws


def reference_denoiser(
    weights: dict[str, torch.Tensor],
    x: torch.Tensor,
    time: torch.Tensor,
    text: torch.Tensor,
    style: torch.Tensor,
) -> torch.Tensor:
    """The denoiser's equations written out, for one block and two heads."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale, shift = linear(style, f"blocks.0.attention.{name}.fc")[:, None].chunk(2, -1)
        centred = x - x.mean(-1, keepdim=True)
        return (1 + scale) * centred / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() + shift

    angle = 2 * math.pi * time[:, None] * weights["to_time.0.0.weights"]
    fourier = torch.cat([time[:, None], angle.sin(), angle.cos()], -1)
    mapping = F.gelu(linear(fourier, "to_time.0.1")) + F.gelu(linear(style, "to_features.0"))
    mapping = F.gelu(linear(F.gelu(linear(mapping, "to_mapping.0")), "to_mapping.2"))
    x = torch.cat([x.expand(-1, text.shape[1], -1), text], -1) + mapping[:, None]
    query = linear(norm(x, "norm"), "blocks.0.attention.to_q")
    key, value = linear(norm(x, "norm_context"), "blocks.0.attention.to_kv").chunk(2, -1)
    heads = []
    for q, k, v in zip(query.chunk(2, -1), key.chunk(2, -1), value.chunk(2, -1), strict=True):
        heads.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)
    x = x + linear(torch.cat(heads, -1), "blocks.0.attention.attention.to_out")
    x = x + linear(F.gelu(linear(x, "blocks.0.feed_forward.0")), "blocks.0.feed_forward.2")
    return (x.mean(1) @ weights["to_out.1.weight"][..., 0].T + weights["to_out.1.bias"])[:, None]


def small_diffusion(style_dim: int | None = 6) -> StyleDiffusion:
    torch.manual_seed(0)
    return StyleDiffusion(
        StyleDenoiser(8, 12, style_dim, layers=1, heads=2, head_features=5, longest=9)
    ).eval()


def test_denoiser_equations_and_guidance() -> None:
    net = small_diffusion().unet
    x, time, text, style = (
        torch.randn(2, 1, 8),
        torch.randn(2),
        torch.randn(2, 4, 12),
        torch.randn(2, 6),
    )
    weights = dict(net.state_dict())
    listening = reference_denoiser(weights, x, time, text, style)
    torch.testing.assert_close(net(x, time, text, style), listening)
    deaf = reference_denoiser(
        weights, x, time, weights["fixed_embedding.embedding.weight"][:4].expand(2, -1, -1), style
    )
    torch.testing.assert_close(
        net(x, time, text, style, guidance=3.0), deaf + 3 * (listening - deaf)
    )
    hidden = net(x, time, text, style, hide_text=torch.tensor([True, False]))
    torch.testing.assert_close(hidden, torch.stack([deaf[0], listening[1]]))


def test_diffusion_sampler_finds_the_styles_of_a_known_denoiser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For styles that are Gaussian with known mean and deviation the best denoiser is known, and so
    are the samples."""
    diffusion, mean, deviation = small_diffusion(None), torch.linspace(-1, 1, 8), 0.2

    def best(noisy: torch.Tensor, sigma: torch.Tensor, *_: object) -> torch.Tensor:
        power = sigma[:, None, None].square()
        return (mean * power + noisy * deviation**2) / (power + deviation**2)

    monkeypatch.setattr(diffusion.diffusion, "denoise", best)
    styles = diffusion.sample(torch.zeros(4000, 3, 12), None, steps=20, draws=Draws.seeded(0))
    torch.testing.assert_close(styles.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(styles.std(0), torch.full((8,), deviation), atol=0.02, rtol=0)


def test_diffusion_is_reproducible_and_learns() -> None:
    diffusion, text, reference = small_diffusion(), torch.randn(3, 4, 12), torch.randn(3, 6)
    first = diffusion.sample(text, reference, draws=Draws.seeded(1))
    assert torch.equal(
        first, diffusion.sample(text, reference, draws=Draws.seeded(1))
    ) and first.shape == (3, 8)
    assert not torch.equal(first, diffusion.sample(text, reference, draws=Draws.seeded(2)))
    with torch.enable_grad():
        optimizer = torch.optim.SGD(diffusion.parameters(), 0.01)
        styles, losses = 0.2 * torch.randn(3, 8), []
        for _ in range(30):
            loss = diffusion.train()(styles, text, reference, Draws.seeded(0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(ValueError, match="expected a reference style with this model, got none"):
        diffusion.sample(text, None)
    with pytest.raises(ValueError, match="at most 9 tokens, got 10"):
        diffusion.sample(torch.randn(1, 10, 12), reference[:1])


def test_karras_schedule() -> None:
    levels = karras_schedule(5)
    assert (
        levels[0] == pytest.approx(3.0)
        and levels[-1] == pytest.approx(1e-4)
        and levels == sorted(levels, reverse=True)
    )
    assert levels[2] == pytest.approx(((3 ** (1 / 9) + 1e-4 ** (1 / 9)) / 2) ** 9)
    with pytest.raises(ValueError, match="at least 2"):
        karras_schedule(1)
