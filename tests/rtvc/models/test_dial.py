"""The converter with a latency dial: the contract at every setting, and latency as declared, to the
sample."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file as save_tensors
from torch import nn

from rtvc.errors import CheckpointError, ConfigError, VoiceError
from rtvc.layers.attention import AttentionBlock
from rtvc.layers.verify import verify_contract
from rtvc.models.streaming import StreamingConfig, StreamingConverter, load_file, save_file
from rtvc.models.streaming.analysis import Analysis, asymmetric_window
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.encoder import LOOKAHEADS, ContentEncoder, EncoderConfig, RightContext
from rtvc.models.streaming.interface import conditioned
from rtvc.voices.usable import usable
from rtvc.voices.voice import Voice
from tests.support.small_models import WithVoice


def small(**changes: object) -> DialConverter:
    """A few thousand parameters, every part present; nothing that begins at zero stays there."""
    torch.manual_seed(0)
    encoder = EncoderConfig(hidden=12, dilations=(1, 2), attention=(1,), content=6)
    sizes: dict[str, object] = {
        "encoder": encoder,
        "pitch_hidden": 8,
        "pitch_dilations": (1,),
        "decoder_hidden": 16,
        "decoder_dilations": (1, 2),
        "acoustic_hidden": 8,
        "prosodic_hidden": 8,
        "timbre": (1,),
        "tokens": 4,
        "phase_bins": 20,
        "statistics": "predicted",
    }
    model = DialConverter(DialConfig.model_validate(sizes | changes)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_the_converter_keeps_the_contract_at_every_setting(lookahead: int) -> None:
    model = small()
    model.set_lookahead(lookahead)
    verify_contract(WithVoice(model, loudness=8), 1, frames=24 * 300, unit=300, gradients=False)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_layers_and_encoder_keep_the_contract(lookahead: int) -> None:
    verify_contract(RightContext(8, lookahead), 8)
    encoder = ContentEncoder(8, 12, 3, (1, 2), 6, attention=(2,))
    encoder.set_lookahead(lookahead)
    verify_contract(encoder, 8)


def test_attention_keeps_the_contract_and_forgets_what_is_out_of_its_span() -> None:
    block = AttentionBlock(12, heads=3, span=10)
    nn.init.normal_(block.projection.weight)
    nn.init.normal_(block.down.weight)
    verify_contract(block, 12)
    x = torch.randn(1, 12, 30, dtype=torch.float64)
    changed = x.clone()
    changed[..., :10] = 0
    whole, other = (block(each, block.initial(1))[0] for each in (x, changed))
    assert torch.equal(whole[..., 19:], other[..., 19:]) and not torch.equal(
        whole[..., 18], other[..., 18]
    )


def test_grown_attention_changes_nothing_at_first() -> None:
    x = torch.randn(2, 12, 20)
    assert torch.equal(AttentionBlock(12, heads=3)(x, AttentionBlock(12, heads=3).initial(2))[0], x)


@pytest.mark.parametrize(
    ("lookahead", "milliseconds"), zip(LOOKAHEADS, (10.0, 22.5, 35.0, 60.0, 110.0), strict=True)
)
def test_declared_latency_is_the_measured_one(lookahead: int, milliseconds: float) -> None:
    """The aligned output at t changes with the input up to t + latency, and with nothing later."""
    model = small().double()
    model.set_lookahead(lookahead)
    assert model.latency == 24 * milliseconds
    layer, at = WithVoice(model, loudness=8), 40 * 300
    x = torch.randn(1, 1, 80 * 300, dtype=torch.float64)
    whole, _ = layer(x, layer.initial(1))
    # From one sample before the last of a chunk on: the frame that hears it is the first that may
    # differ.
    cut = x.clone()
    cut[..., at:] = 0
    y, _ = layer(cut, layer.initial(1))
    first = int(((y - whole)[0, 0].abs() > 1e-9).nonzero()[0])
    assert at <= first < at + 300
    aligned = first - model.latency
    assert at - model.latency <= aligned < at - model.latency + 300


def test_frames_peak_where_the_analysis_says() -> None:
    """A click is loudest in the frame whose peak is on it."""
    for fall in (240, 600):
        analysis = Analysis(fall)
        x = torch.zeros(1, 1, 20 * 300)
        x[..., 10 * 300 + analysis.centre] = 1.0
        heard, _ = analysis(x, analysis.initial(1))
        assert int(heard[0].sum(0).argmax()) == 10


def test_equal_halves_are_the_hann_window() -> None:
    assert torch.allclose(
        asymmetric_window(600, 600), torch.hann_window(1200, dtype=torch.float64), atol=1e-12
    )
    window = asymmetric_window(960, 240)
    assert len(window) == 1200 and int(window.argmax()) == 960 and float(window[-1]) > 0


def test_whole_pieces_and_streams_hear_the_same() -> None:
    encoder = small().encoder.double()
    mel = torch.randn(2, encoder.bands, 30, dtype=torch.float64)
    for lookahead, content in zip(LOOKAHEADS, encoder.contents(mel, LOOKAHEADS), strict=True):
        encoder.set_lookahead(lookahead)
        y, _ = encoder(mel, encoder.initial(2))
        assert (y[..., lookahead:] - content[..., : 30 - lookahead]).abs().max() < 1e-12


def test_another_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a look-ahead of 0, 1, 2, 4, 8 frames, got 3"):
        small().set_lookahead(3)


def test_tokens_of_the_reference_move_the_voice() -> None:
    model = small()
    wave = torch.randn(1, 1, 40 * 300, generator=torch.Generator().manual_seed(2)) * 0.1
    acoustic, prosodic = model.styles(wave)
    assert acoustic.shape == (1, 128 + 4 * 128) == (1, model.acoustic_size) and prosodic.shape == (
        1,
        128,
    )
    other = torch.cat([acoustic[:, :128], -acoustic[:, 128:]], 1)
    outputs = [
        model(wave, model.condition(a, prosodic), model.initial(1))[0] for a in (acoustic, other)
    ]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    plain = small(timbre=())
    assert plain.styles(wave)[0].shape == (1, 128) == (1, plain.acoustic_size)


def test_a_file_of_eight_bits_is_the_model_within_what_eight_bits_lose(tmp_path: Path) -> None:
    model = small(encoder=EncoderConfig(hidden=64, dilations=(1, 2), content=32))
    path = save_file(model, tmp_path / "dial.safetensors", {"step": "7"})
    made = load_file(path, lookahead=50.0)
    assert isinstance(made, DialConverter) and made.encoder.lookahead == 4
    assert made.latency == 240 + 4 * 300
    ours, theirs = model.state_dict(), made.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        rows = weight.flatten(1) if weight.ndim > 1 else weight[None]
        step = rows.abs().amax(1) / 127 if weight.ndim > 1 and weight.numel() >= 4096 else None
        error = (theirs[name] - weight).reshape(rows.shape).abs().amax(1)
        bound = rows.abs().amax(1) * 2**-11 if step is None else step * 0.57
        # Half a step, and seven hundredths of one that a scale of eleven bits moves 127 steps by.
        assert (error <= bound + 1e-7).all(), name
    whole = sum(8 * t.numel() for t in ours.values() if t.numel() >= 4096)
    with safe_open(path, "pt") as file:
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert 8 * sum(t.numel() for t in stored if t.dtype == torch.int8) == whole


def test_a_file_that_misstates_its_scales_is_refused(tmp_path: Path) -> None:
    model = small(encoder=EncoderConfig(hidden=64, dilations=(1, 2), content=32))
    path = save_file(model, tmp_path / "dial.safetensors")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = next(name for name in tensors if name.endswith("::scale"))
    for scale in (tensors[name].float(), tensors[name][:-1], tensors[name].flatten()):
        save_tensors({**tensors, name: scale.contiguous()}, path, metadata)
        with pytest.raises(CheckpointError, match=r"float16 scale for each row of int8 weights"):
            load_file(path)
    lone = {**tensors, "x::scale": torch.ones(2, 1).half()}
    save_tensors(lone, path, metadata)
    with pytest.raises(CheckpointError, match=r"float16 scale for each row"):
        load_file(path)
    save_tensors({**tensors, name: tensors[name] * float("nan")}, path, metadata)
    with pytest.raises(CheckpointError, match=r"NaN|finite"):
        load_file(path)


def test_the_dial_of_a_file_is_set_in_milliseconds(tmp_path: Path) -> None:
    path = save_file(small(), tmp_path / "dial.safetensors")
    with pytest.raises(ConfigError, match=r"look-ahead of 0 or 12.5 or 25 or 50 or 100 ms, got 30"):
        load_file(path, lookahead=30)
    other = save_file(StreamingConverter(StreamingConfig()), tmp_path / "stream.safetensors")
    with pytest.raises(ConfigError, match="one latency"):
        load_file(other, lookahead=12.5)


@pytest.mark.parametrize("lookahead", (0, 8))
def test_a_voice_without_a_recording_and_one_with_tokens_condition_alike_sized(
    lookahead: int,
) -> None:
    model = small()
    model.set_lookahead(lookahead)
    prosodic = torch.randn(128)
    plain = conditioned(model, Voice(torch.randn(128), prosodic))
    full = conditioned(model, Voice(torch.randn(model.acoustic_size), prosodic))
    assert plain.shape == full.shape
    with pytest.raises(VoiceError, match=f"128 or {model.acoustic_size} numbers, got 256"):
        conditioned(model, Voice(torch.randn(256), prosodic))
    with pytest.raises(VoiceError, match="one length"):
        Voice.mix({Voice(torch.randn(128), prosodic): 1.0, Voice(torch.randn(256), prosodic): 1.0})


def test_a_style_space_is_that_of_the_weights_that_make_styles() -> None:
    """The decoder may learn on and voices stay valid; other style encoders make other voices."""
    model, other = small(), small()
    assert model.space == other.space and re.fullmatch(r"dial-[0-9a-f]{8}", model.space)
    with torch.no_grad():
        other.decoder.inputs.weight.add_(1)
        assert model.space == other.space
        other.acoustic.out.weight.add_(1)
    assert model.space != other.space
    voice = Voice(torch.zeros(128), torch.zeros(128), "anna", {"space": model.space})
    assert usable(voice, model.space, None) is voice
    with pytest.raises(VoiceError, match=r"rtvc voice create RECORDING… -o anna\.voice"):
        usable(voice, other.space, None)
