"""Weights in and out: the authors' files, ours, and files that are broken or mean harm."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import rtvc
from rtvc.errors import CheckpointError
from rtvc.models.build import BUILDERS
from rtvc.models.checkpoints import load_checkpoint, load_components, load_converter
from rtvc.models.loading import load_into
from rtvc.models.read_checkpoint import read_states
from rtvc.models.styletts2.decoder import HiFiGANDecoder, ISTFTNetDecoder
from rtvc.models.styletts2.denoiser import StyleDenoiser
from rtvc.models.styletts2.diffusion import StyleDiffusion
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts_vc.decoder import Decoder
from rtvc.models.styletts_vc.discriminator import Discriminator
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.models.styletts_vc.norms import SpectralNormConv2d, fold_weight_norm
from rtvc.models.styletts_vc.pitch_extractor import PitchExtractor
from rtvc.models.styletts_vc.style_encoder import StyleEncoder
from rtvc.models.styletts_vc.text_aligner import TextAligner
from rtvc.models.styletts_vc.text_encoder import TextEncoder
from rtvc.models.vocoder import Vocoder
from tests.support.checkpoints import save_components
from tests.support.standins import speech
from tests.support.states import same, states

Made = Callable[[], dict[str, nn.Module]]


def paper() -> dict[str, nn.Module]:
    """Components of StyleTTS-VC, small."""
    torch.manual_seed(0)
    return {
        "mel_encoder": MelEncoder(channels=32),
        "linear_proj": LinearProjection(32, 50),
        "text_encoder": TextEncoder(channels=32, tokens=50, depth=2),
        "style_encoder": StyleEncoder(width=4, widest=16),
        "discriminator": Discriminator(width=4, speakers=5, widest=16),
        "decoder": Decoder(content_dim=32),
        "text_aligner": TextAligner(channels=32, tokens=50, layers=2, embedding_dim=16),
    }


def second_paper() -> dict[str, nn.Module]:
    """Components of StyleTTS 2, small."""
    torch.manual_seed(0)
    return {
        "predictor": ProsodyPredictor(channels=32, style_dim=16, layers=2, longest=7),
        "decoder": HiFiGANDecoder(style_dim=16, content_dim=24, width=40, channels=32),
        "predictor_encoder": StyleEncoder(width=4, widest=16),
        "diffusion": StyleDiffusion(StyleDenoiser(8, 16, style_dim=8, layers=1, longest=9)),
    }


@pytest.mark.parametrize("made", [paper, second_paper])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_the_authors_loads_and_saves_back_unchanged(
    made: Callable[[], dict[str, nn.Module]], prefix: str, tmp_path: Path
) -> None:
    components, path = made(), tmp_path / "epoch_2nd.pth"
    torch.save(
        {
            "net": states(components, prefix),
            "optimizer": [("decoder", {"state": {}})],
            "iters": 7,
            "val_loss": 0.5,
            "epoch": 3,
        },
        path,
    )
    loaded = load_components(path)
    assert list(loaded) == list(components)
    for name, module in components.items():
        assert same(loaded[name], module) and not loaded[name].training
    for again in (tmp_path / "again.pth", tmp_path / "again.safetensors"):
        save_components(again, loaded)
        back = read_states(again)
        for name, state in states(components).items():
            assert set(back[name]) == set(state) and all(
                torch.equal(back[name][key], state[key]) for key in state
            )
    raw = torch.load(tmp_path / "again.pth", weights_only=True)
    assert [list(state) for state in raw["net"].values()] == [
        list(state) for state in states(components).values()
    ]


@pytest.mark.parametrize(
    ("wrapper", "name", "module"),
    [
        ("net", "pitch_extractor", PitchExtractor),
        (
            "model",
            "text_aligner",
            lambda: TextAligner(channels=32, tokens=50, layers=1, embedding_dim=16),
        ),
        ("generator", "vocoder", lambda: Vocoder(channels=32)),
        (None, "style_encoder", lambda: StyleEncoder(width=4, widest=16)),
    ],
)
def test_files_of_one_component(
    wrapper: str | None, name: str, module: Callable[[], nn.Module], tmp_path: Path
) -> None:
    made, path = module(), tmp_path / "bst.t7"
    state = made.state_dict()
    torch.save({wrapper: state, "epoch": 1} if wrapper else state, path)
    (found, loaded), *others = load_components(path).items()
    assert found == name and not others and same(loaded, made)


def test_folded_weights_and_components_without_a_module(tmp_path: Path) -> None:
    """As Kokoro's official file: components at the top, folded where exported, and a language
    model."""
    decoder = fold_weight_norm(ISTFTNetDecoder(width=32, channels=32))
    path = tmp_path / "kokoro.pth"
    torch.save(
        {"bert": {"module.x": torch.zeros(1)}, **states({"decoder": decoder}, "module.")}, path
    )
    checkpoint = load_checkpoint(path)
    assert checkpoint.skipped == ("bert",) and same(checkpoint.components["decoder"], decoder)


def test_norms_of_newer_torch(tmp_path: Path) -> None:
    made = {
        "mel_encoder": MelEncoder(channels=32),
        "style_encoder": StyleEncoder(width=4, widest=16),
    }
    newer = {"weight_g": "original0", "weight_v": "original1"}
    spectral = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}

    def rename(key: str, table: dict[str, str]) -> str:
        head, _, tail = key.rpartition(".")
        return f"{head}.parametrizations.weight.{table[tail]}" if tail in table else key

    net = {
        "mel_encoder": {rename(k, newer): v for k, v in made["mel_encoder"].state_dict().items()},
        "style_encoder": {
            rename(k, spectral): v for k, v in made["style_encoder"].state_dict().items()
        },
    }
    torch.save({"net": net}, tmp_path / "new.pth")
    loaded = load_components(tmp_path / "new.pth")
    assert all(same(loaded[name], module) for name, module in made.items())


def test_every_name_and_shape_that_does_not_fit_is_told(tmp_path: Path) -> None:
    net = states({"mel_encoder": MelEncoder(channels=32), "text_encoder": TextEncoder(channels=32)})
    del net["mel_encoder"]["conv_mel.2.conv1.bias"], net["text_encoder"]["lstm.bias_hh_l0"]
    net["mel_encoder"]["conv_mel.9.bias"] = torch.zeros(1)
    net["text_encoder"]["cnn.0.1.gamma"] = torch.zeros(5)
    torch.save({"net": net}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        load_components(tmp_path / "x.pth")
    told = str(caught.value)
    assert (
        "`mel_encoder`: 1 missing: conv_mel.2.conv1.bias" in told
        and "1 unexpected: conv_mel.9.bias" in told
    )
    assert (
        "`text_encoder`: 1 missing: lstm.bias_hh_l0" in told
        and "cnn.0.1.gamma (expected (32,), got (5,))" in told
    )
    with pytest.raises(
        CheckpointError,
        match=r"the encoder does not fit SpectralNormConv2d: 4 missing: bias, weight_orig",
    ):
        load_into(SpectralNormConv2d(1, 2, 3), {}, "the encoder")


def test_published_sizes_come_from_weights_alone(tmp_path: Path) -> None:
    """Without any tensor, every builder falls back to the published sizes, so that the report names
    what is missing."""
    save_file({"decoder.asr_res.0.bias": torch.zeros(64)}, tmp_path / "x.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"`decoder`: \d+ missing: decode.0.conv1.bias, decode.0.conv1.weight, ",
    ):
        load_components(tmp_path / "x.safetensors")
    assert set(BUILDERS) >= {"mpd", "msd", "vocoder"}


def converter_file(folder: Path) -> Path:
    needed = {
        name: module
        for name, module in paper().items()
        if name in ("mel_encoder", "style_encoder", "decoder")
    }
    save_components(folder / "paper.pth", {**needed, "pitch_extractor": PitchExtractor()})
    return folder / "paper.pth"


def test_a_checkpoint_converts_recordings(tmp_path: Path) -> None:
    path = converter_file(tmp_path)
    vc = rtvc.load(path)
    torch.manual_seed(0)
    wave = speech(1.0, 24_000)
    voice = vc.voice((speech(2.0, 24_000, 200.0), 24_000))
    converted = vc.convert(wave[:-137], 24000, voice)
    assert converted.shape == (24000 - 137,) and abs(converted).max() > 0
    assert voice.space is not None and voice.space.startswith("styletts-vc-")
    save_components(tmp_path / "vocoder.safetensors", {"vocoder": Vocoder(channels=32)})
    assert isinstance(load_converter(path).vocoder, Vocoder)


def test_a_checkpoint_that_cannot_convert_says_what_it_lacks(tmp_path: Path) -> None:
    save_components(tmp_path / "x.pth", {"text_encoder": TextEncoder(channels=32)})
    with pytest.raises(
        CheckpointError,
        match="holds text_encoder and no mel_encoder, pitch_extractor, style_encoder, decoder",
    ):
        load_converter(tmp_path / "x.pth")
