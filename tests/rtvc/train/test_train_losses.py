"""The losses by hand-made cases, the spectral distances by what they must and must not hear, the
aligner's path by brute force."""

import itertools
import math

import pytest
import torch

from rtvc.audio.mel_distance import MultiResolutionMel, mel_band_limit
from rtvc.train.losses import losses
from rtvc.train.losses.mel_patches import MelDiscriminators
from rtvc.train.material.monotonic import monotonic_path


def tone(frequency: float, samples: int = 12_000) -> torch.Tensor:
    return (
        0.3
        * torch.hann_window(samples)
        * torch.sin(2 * math.pi * frequency * torch.arange(samples) / 24_000)
    )


def test_the_spectral_distance_ignores_what_the_recording_lacks() -> None:
    distance = MultiResolutionMel()
    true = (tone(440) + 0.01 * torch.randn(12_000, generator=torch.Generator().manual_seed(0)))[
        None
    ]
    made = true + tone(11_000)[None]
    wide, narrow = torch.tensor([24_000.0]), torch.tensor([16_000.0])
    assert distance(true, true) == 0
    assert distance(made, true) == distance(made, true, wide) > 0.05
    assert distance(made, true, narrow) < 0.05 * distance(made, true)
    assert distance(true + tone(6_000)[None], true, narrow) > 0.05
    both = distance(made.repeat(2, 1), true.repeat(2, 1), torch.tensor([16_000.0, 24_000.0]))
    assert distance(made, true, narrow) < both < distance(made, true)


def test_the_spectral_distance_trains_from_silence() -> None:
    distance = MultiResolutionMel()
    wave = torch.zeros(1, 4_800, requires_grad=True)
    distance(wave, tone(300, 4_800)[None]).backward()
    assert wave.grad is not None and torch.isfinite(wave.grad).all()


def buzz(rows: int, sharpness: float, seed: int) -> torch.Tensor:
    """(rows, 1, 9,600) of harmonics under two formants at random places; 0 is flat."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(rows, 4, generator=generator)[..., None]
    harmonics = torch.arange(1, 40)[:, None] * (100 + 100 * draws[:, :1])  # (rows, 39, 1) Hz
    formants = torch.stack([400 + 600 * draws[:, 1], 1_500 + 1_500 * draws[:, 2]], 1)
    near = torch.exp(-(((harmonics - formants.mT) / 300) ** 2)).sum(-1, keepdim=True)
    time = torch.arange(9_600) / 24_000
    waves = (torch.exp(sharpness * near) * torch.sin(2 * math.pi * harmonics * time)).sum(1)
    return (0.1 * waves / waves.std(-1, keepdim=True))[:, None]


def test_mel_discriminators_soon_tell_flat_formants_and_convince_a_generator() -> None:
    torch.manual_seed(0)
    opponents = MelDiscriminators([(512, 128, 70), (1024, 256, 100)], channels=8)
    optimizer = torch.optim.Adam(opponents.parameters(), 2e-3)

    def logits(wave: torch.Tensor) -> list[torch.Tensor]:
        return [verdict.logits for verdict in opponents(wave)]

    def loss(seed: int) -> torch.Tensor:
        return losses.lsgan_discriminator(
            logits(buzz(8, 3.0, seed)), logits(buzz(8, 1.5, seed + 1_000))
        )

    for step in range(120):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert loss(500) < 0.5  # of two: 1 is chance
    wave = buzz(2, 1.5, 501).requires_grad_()
    before = losses.lsgan_generator(logits(wave))
    (slope,) = torch.autograd.grad(before, wave)
    assert losses.lsgan_generator(logits(wave - 1e-3 * slope / slope.abs().max())) < before


def test_mel_discriminators_hear_nothing_above_what_all_recordings_hold() -> None:
    opponents = MelDiscriminators([(1024, 256, 140)])
    wave, time = buzz(1, 3.0, 0), torch.arange(9_600) / 24_000

    def change(frequency: float) -> float:
        louder = wave + 0.01 * torch.sin(2 * math.pi * frequency * time)
        return max(
            float((one.logits - other.logits).detach().abs().max())
            for one, other in zip(opponents(wave), opponents(louder), strict=True)
        )

    assert change(9_000) < 0.05 * change(6_000)


def test_mel_mask_counts_bands_below_the_edge() -> None:
    mask = mel_band_limit(torch.tensor([24_000.0, 16_000.0, 8_000.0]))
    counts = mask[..., 0].sum(1).tolist()
    assert counts[0] == 80 and 40 < counts[2] < counts[1] < 75


def test_masked_l1() -> None:
    made, true = torch.tensor([[1.0, 5.0]]), torch.zeros(1, 2)
    assert losses.masked_l1(made, true) == 3.0
    assert losses.masked_l1(made, true, torch.tensor([[1, 0]])) == 1.0
    assert losses.masked_l1(made, true, torch.zeros(1, 2)) == 0.0


def test_adversarial_and_r1() -> None:
    assert losses.adversarial(torch.zeros(3), True) == pytest.approx(math.log(2))
    assert (
        losses.adversarial(torch.full((3,), 9.0), True)
        < 1e-3
        < 8
        < losses.adversarial(torch.full((3,), 9.0), False)
    )
    real = torch.ones(2, 3, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 2.0], requires_grad=True)
    penalty = losses.r1((real * weight).sum(1), real)
    assert penalty.item() == pytest.approx(0.5 * 9)
    penalty.backward()
    assert torch.allclose(weight.grad, weight.detach())  # type: ignore[arg-type]


def test_least_squares_and_feature_matching() -> None:
    ones, zeros = [torch.ones(4)], [torch.zeros(4)]
    assert (
        losses.lsgan_discriminator(ones, zeros) == 0
        and losses.lsgan_discriminator(zeros, ones) == 2
    )
    assert losses.lsgan_generator(ones) == 0 and losses.lsgan_generator(zeros) == 1
    assert (
        losses.feature_matching(
            [torch.zeros(2, 3), torch.zeros(5)], [torch.ones(2, 3), torch.full((5,), -2.0)]
        )
        == 3
    )


def test_relativistic_counts_the_wrong_side_only() -> None:
    real, made = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([-0.1, 0.0, 0.3])
    # generator: differences -0.1, 0, 0.3, median 0: one is below, by 0.1
    assert losses.relativistic([real], [made], generator=True) == pytest.approx(0.01)
    # discriminator: 0.1, 0, -0.3: one below, by 0.3, cut off at TAU
    assert losses.relativistic([real], [made], generator=False) == pytest.approx(losses.TAU)


def test_token_and_frame_cross_entropy_ignore_padding() -> None:
    logits = torch.zeros(2, 3, 4)
    tokens = torch.tensor([[1, 2, 0], [3, 0, 0]])
    even = losses.token_cross_entropy(logits, tokens, torch.tensor([2, 1]))
    logits[0, 2] = torch.tensor([-50.0, 50, 0, 0])
    assert (
        losses.token_cross_entropy(logits, tokens, torch.tensor([2, 1]))
        == even
        == pytest.approx(math.log(4))
    )
    frames = torch.zeros(1, 4, 3)
    frames[0, :, 2] = torch.tensor([0.0, 9, 9, 9])
    assert losses.frame_cross_entropy(frames, torch.tensor([[1, 3, -1]])) == pytest.approx(
        math.log(4)
    )
    assert losses.frame_cross_entropy(frames, torch.full((1, 3), -1)) == 0


def test_ctc_prefers_the_text() -> None:
    good = torch.full((1, 5, 4), -5.0)
    for frame, token in enumerate([0, 2, 0, 3, 0]):
        good[0, frame, token] = 5.0
    args = (torch.tensor([5]), torch.tensor([[2, 3]]), torch.tensor([2]))
    assert losses.ctc(good, *args) < 0.01 < losses.ctc(good.flip(-1), *args)


def test_f0_energy_and_durations() -> None:
    f0 = torch.tensor([[100.0, 110.0, 120.0]])
    assert (
        losses.f0_shape(2 * f0, f0) == pytest.approx(0, abs=1e-6)
        and losses.f0_shape(f0.flip(1), f0) > 0.05
    )
    assert torch.isfinite(losses.f0_shape(torch.zeros(1, 3), f0))
    assert losses.energy_band(torch.tensor([[0.4, -0.5]]), torch.zeros(1, 2)) == 0
    assert losses.energy_band(torch.tensor([[1.5]]), torch.zeros(1, 1)) == 1
    sure = torch.full((1, 4, 6), -20.0)
    for token, frames in enumerate([1, 3, 2, 5]):
        sure[0, token, :frames] = 20.0
    l1, digits = losses.durations(sure, torch.tensor([[1, 3, 2, 5]]), torch.tensor([4]))
    assert l1 < 1e-5 and digits < 1e-5
    l1, digits = losses.durations(sure, torch.tensor([[6, 3, 1, 5]]), torch.tensor([4]))
    assert (
        l1 == pytest.approx(0.5) and digits > 1
    )  # the boundary's length does not count for the L1


def brute_force(scores: torch.Tensor, tokens: int, frames: int) -> float:
    best = -math.inf
    for cuts in itertools.combinations(range(1, frames), tokens - 1):
        edges = [0, *cuts, frames]
        best = max(
            best, sum(float(scores[k, edges[k] : edges[k + 1]].sum()) for k in range(tokens))
        )
    return best


def test_monotonic_path_is_the_best_one() -> None:
    scores = torch.randn(6, 5, 9, generator=torch.Generator().manual_seed(3))
    tokens, frames = torch.tensor([5, 4, 1, 5, 2, 3]), torch.tensor([9, 9, 9, 5, 7, 4])
    path = monotonic_path(scores, tokens, frames)
    for row in range(6):
        found = path[row, : tokens[row], : frames[row]]
        assert path[row].sum() == frames[row] == found.sum()
        assert (found.sum(0) == 1).all() and (found.sum(1) >= 1).all()
        steps = found.argmax(0).diff()
        assert ((steps == 0) | (steps == 1)).all()
        assert float((scores[row] * path[row]).sum()) == pytest.approx(
            brute_force(scores[row], int(tokens[row]), int(frames[row])), rel=1e-5
        )


def test_more_tokens_than_frames_still_gives_a_path() -> None:
    path = monotonic_path(torch.rand(1, 6, 3), torch.tensor([6]), torch.tensor([3]))
    assert path.sum() == 3 and (path[0].sum(0) == 1).all()
