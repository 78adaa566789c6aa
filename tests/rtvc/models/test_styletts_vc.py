"""StyleTTS-VC: parity with the authors' code, exact sizes, and that every component can be
trained."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from rtvc.models.styletts_vc.blocks import halve
from rtvc.models.styletts_vc.decoder import Decoder
from rtvc.models.styletts_vc.discriminator import Discriminator
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.models.styletts_vc.norms import (
    SpectralNormConv2d,
    WeightNormConv1d,
    WeightNormConvTranspose1d,
    fold_weight_norm,
)
from rtvc.models.styletts_vc.pitch_extractor import PitchExtractor
from rtvc.models.styletts_vc.style_encoder import StyleEncoder, prosodic_from
from rtvc.models.styletts_vc.text_aligner import TextAligner, dct_matrix
from rtvc.models.styletts_vc.text_encoder import TextEncoder, padding_mask
from tests.support.parity import (
    PARAMETERS,
    components,
    golden,
    needs_vectors,
    published_shapes,
    relative_error,
    vectors,
)

TOLERANCE = 1e-4

COMPONENTS: dict[str, Callable[[], nn.Module]] = {
    "mel_encoder": MelEncoder,
    "linear_proj": LinearProjection,
    "text_encoder": TextEncoder,
    "style_encoder": StyleEncoder,
    "discriminator": Discriminator,
    "decoder": Decoder,
    "pitch_extractor": PitchExtractor,
    "text_aligner": TextAligner,
}


@needs_vectors
@pytest.mark.parametrize("name", COMPONENTS)
def test_parity(name: str) -> None:
    model = COMPONENTS[name]()
    assert sum(p.numel() for p in model.parameters()) == components()[name]["parameters"]
    assert {
        key: list(value.shape) for key, value in model.state_dict().items()
    } == published_shapes(name)
    assert list(model.state_dict()) == list(published_shapes(name)), (
        "the order of parameters is the authors' too"
    )
    inputs, wanted = vectors(name)
    with torch.no_grad():
        got = golden(model, name)(*inputs)
    outputs = [got] if isinstance(got, Tensor) else [x for x in got if isinstance(x, Tensor)]
    assert len(outputs) == len(wanted)
    for index, want in enumerate(wanted):
        # The authors squeeze the F0 of a single row.
        one = outputs[index][0] if name == "pitch_extractor" and index == 0 else outputs[index]
        assert one.shape == want.shape and relative_error(one, want) <= TOLERANCE


def test_published_sizes() -> None:
    sizes = {
        name: sum(p.numel() for p in build().parameters()) for name, build in COMPONENTS.items()
    }
    assert list(sizes.values()) == PARAMETERS
    assert sum(sizes.values()) == 83_740_087


def old_fashioned(
    build: Callable[[], nn.Module], norm: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return norm(build())


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (
            lambda: WeightNormConv1d(4, 6, 3, padding=1),
            lambda: nn.Conv1d(4, 6, 3, padding=1),
            (2, 4, 9),
        ),
        (
            lambda: WeightNormConvTranspose1d(4, 6, 4, stride=2),
            lambda: nn.ConvTranspose1d(4, 6, 4, stride=2),
            (2, 4, 9),
        ),
    ],
)
def test_weight_norm_is_torchs(
    ours: Callable[[], nn.Module], theirs: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    mine, reference, x = ours(), old_fashioned(theirs, weight_norm), torch.randn(shape)
    reference.load_state_dict(mine.state_dict())
    assert list(mine.state_dict()) == list(reference.state_dict())
    torch.testing.assert_close(mine(x), reference(x))
    mine(x).square().sum().backward()
    reference(x).square().sum().backward()
    for (name, p), q in zip(mine.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    folded = fold_weight_norm(copy.deepcopy(mine))
    assert sorted(folded.state_dict()) == ["bias", "weight"]
    torch.testing.assert_close(folded(x), mine(x))


def test_spectral_norm_is_torchs_in_training_and_evaluation() -> None:
    mine = SpectralNormConv2d(3, 5, 3)
    reference = old_fashioned(lambda: nn.Conv2d(3, 5, 3), spectral_norm)
    reference.load_state_dict(mine.state_dict())
    assert list(mine.state_dict()) == list(reference.state_dict())
    for _ in range(3):
        x = torch.randn(2, 3, 7, 8)
        got, want = mine(x), reference(x)
        torch.testing.assert_close(got, want)
        got.square().sum().backward()
        want.square().sum().backward()
    torch.testing.assert_close(mine.weight_orig.grad, reference.weight_orig.grad)
    torch.testing.assert_close(mine.weight_u, reference.weight_u)
    torch.testing.assert_close(mine.eval()(x), reference.eval()(x))


def test_two_forwards_before_one_backward() -> None:
    model = SpectralNormConv2d(1, 2, 3)
    (model(torch.randn(1, 1, 5, 5)) - model(torch.randn(1, 1, 5, 5))).sum().backward()
    assert model.weight_orig.grad is not None


def trained(name: str) -> tuple[nn.Module, Tensor]:
    """A small component in training mode, and a loss that it gives."""
    mel, tokens = torch.randn(2, 1, 80, 80), torch.randint(4, 178, (2, 5))
    if name == "text_encoder":
        model: nn.Module = TextEncoder(channels=32)
        return (
            model,
            model(tokens, torch.tensor([5, 3]), padding_mask(torch.tensor([5, 3]))).square().mean(),
        )
    if name == "style_encoder":
        model = StyleEncoder(width=4, widest=16)
        return model, model(mel).square().mean()
    if name == "discriminator":
        model = Discriminator(width=4, widest=16)
        logit, features = model(mel, torch.tensor([0, 107]))
        assert len(features) == 10
        return model, logit.square().mean()
    if name == "decoder":
        model = Decoder(content_dim=32)
        return (
            model,
            model(
                torch.randn(2, 32, 8),
                torch.rand(2, 16) * 200,
                torch.randn(2, 16),
                torch.randn(2, 128),
            )
            .square()
            .mean(),
        )
    if name == "pitch_extractor":
        model = PitchExtractor()
        return model, model(mel[..., :16]).f0.mean() + model.voicing(mel[..., :16]).square().mean()
    if name == "text_aligner":
        model = TextAligner(channels=32, layers=1, embedding_dim=16)
        aligned = model(mel[:, 0], None, tokens)
        return (
            model,
            aligned.ctc.square().mean()
            + aligned.logits.square().mean()
            + aligned.attention.square().mean(),
        )
    model = MelEncoder(channels=32)
    return model, LinearProjection(32)(model(mel[:, 0])).square().mean()


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name != "linear_proj"])
def test_training_reaches_every_weight(name: str) -> None:
    torch.manual_seed(0)
    model, loss = trained(name)
    loss.backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None]
    assert not idle, f"no gradient reached {idle}"


def test_dropout_is_for_training_alone() -> None:
    mel, model = torch.randn(1, 80, 32), MelEncoder(channels=32)
    assert not torch.equal(model(mel), model(mel))
    assert torch.equal(model.eval()(mel), model(mel))


def test_odd_numbers_of_frames() -> None:
    assert MelEncoder(channels=32).eval()(torch.randn(1, 80, 33)).shape == (1, 32, 17)
    assert halve(torch.tensor([[[1.0, 3.0, 5.0]]])).tolist() == [[[2.0, 5.0]]]
    assert StyleEncoder(width=4, widest=16)(torch.randn(1, 1, 80, 65)).shape == (1, 128)


def test_too_short_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="T >= 65 frames, got"):
        StyleEncoder(width=4, widest=16)(torch.randn(1, 1, 80, 64))
    with pytest.raises(ValueError, match=r"\(B, 1, 80, T\)"):
        PitchExtractor()(torch.randn(1, 80, 64))
    with pytest.raises(ValueError, match="twice the frames, 16"):
        Decoder(content_dim=32)(
            torch.randn(1, 32, 8), torch.randn(1, 8), torch.randn(1, 16), torch.randn(1, 128)
        )


def test_a_prosodic_encoder_starts_as_a_copy() -> None:
    acoustic = StyleEncoder(width=4, widest=16).eval()
    prosodic, mel = prosodic_from(acoustic), torch.randn(1, 1, 80, 80)
    assert torch.equal(prosodic(mel), acoustic(mel))
    nn.init.zeros_(prosodic.unshared.weight)
    assert not torch.equal(prosodic(mel), acoustic(mel))


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder, tokens = TextEncoder(channels=32).eval(), torch.randint(1, 178, (2, 6))
    lengths = torch.tensor([6, 4])
    content = encoder(tokens, lengths, padding_mask(lengths))
    alone = encoder(tokens[1:, :4], lengths[1:], padding_mask(lengths[1:]))
    torch.testing.assert_close(content[1:, :, :4], alone)
    assert content[1, :, 4:].abs().max() == 0
    assert padding_mask(torch.tensor([2, 1]), 3).tolist() == [
        [False, False, True],
        [False, True, True],
    ]


def test_attention_sums_to_one_and_leaves_masked_frames_out() -> None:
    torch.manual_seed(0)
    model = TextAligner(channels=32, layers=1, embedding_dim=16).eval()
    mel, mask = torch.randn(1, 80, 20), torch.arange(10)[None] >= 7
    aligned = model(mel, mask, torch.tensor([[5, 6, 7]]))
    assert aligned.attention.shape == (1, 4, 10) and aligned.attention[..., 7:].abs().max() == 0
    torch.testing.assert_close(aligned.attention.sum(-1), torch.ones(1, 4))


def test_cepstra_are_orthonormal() -> None:
    torch.testing.assert_close(
        dct_matrix(80, 80).T @ dct_matrix(80, 80), torch.eye(80), atol=1e-5, rtol=0
    )
