"""The whole streaming model under the contract, at its shipped sizes and at small ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rtvc.errors import CheckpointError
from rtvc.layers.contract import State, Streaming
from rtvc.layers.norm import Statistics
from rtvc.layers.verify import verify_contract
from rtvc.models.streaming import StreamingConverter, load_file, save_file
from rtvc.models.streaming.content import ContentEncoder
from rtvc.models.streaming.pitch import PitchNet, bin_centres
from tests.support.small_models import WithVoice, small_converter


@pytest.mark.parametrize("statistics", ["frame", "film", "predicted"])
def test_whole_model_keeps_the_contract(statistics: Statistics) -> None:
    verify_contract(
        WithVoice(small_converter(statistics=statistics)),
        1,
        frames=24 * 300,
        unit=300,
        gradients=False,
    )


@pytest.mark.parametrize("layer", [ContentEncoder(5, 8, 3, (1, 2), 1), PitchNet(5, 8, 3, (1, 2))])
def test_networks_keep_the_contract(layer: Streaming) -> None:
    verify_contract(layer, 5, gradients=isinstance(layer, ContentEncoder))


def test_declared_latency_is_the_measured_one() -> None:
    """Output before t - latency never depends on input after t, and output right after it does."""
    layer = WithVoice(small_converter()).double()
    x = torch.randn(1, 1, 40 * 300, dtype=torch.float64)
    whole, _ = layer(x, layer.initial(1))
    cut = x.clone()
    cut[..., 20 * 300 :] = 0
    y, _ = layer(cut, layer.initial(1))
    changed = (y - whole)[0, 0].abs() > 1e-9
    first = int(changed.nonzero()[0])
    assert (
        20 * 300 <= first < 21 * 300
    )  # in stream time: so the aligned output lags by `latency` and no more than a hop less
    assert layer.latency == 900


def test_budget_of_the_shipped_sizes() -> None:
    model = StreamingConverter()
    run_time = sum(
        p.numel()
        for name in ("encoder", "pitch", "prosody", "decoder")
        for p in getattr(model, name).parameters()
    )
    assert run_time <= 15_000_000
    assert model.latency / model.sample_rate <= 0.040
    macs_per_frame = sum(p.numel() for p in model.decoder.parameters() if p.ndim > 1) + 2 * (
        600 * 602 * 2 + 301 * 301
    )
    assert macs_per_frame * 80 <= 2e9


def test_pitch_shift_and_prosody_reach_the_voice_vector() -> None:
    model = small_converter()
    a, p = torch.randn(1, 128), torch.randn(1, 128)
    plain, shifted = model.condition(a, p), model.condition(a, p, pitch=12.0, prosody=0.0)
    assert torch.allclose((shifted - plain)[0, 3:5], torch.tensor([0.693147, -1.0]), atol=1e-5)
    assert torch.equal(plain[0, 5:], shifted[0, 5:])


def test_styles_do_not_depend_on_level() -> None:
    model = small_converter()
    wave = torch.randn(1, 1, 24_000) * torch.linspace(0.05, 0.3, 24_000)
    loud, soft = model.styles(wave)[0], model.styles(wave * 0.25)[0]
    assert (loud - soft).norm() < 0.02 * loud.norm()


def test_pitch_is_read_off_the_peak() -> None:
    net = PitchNet(5, 8, 3, (1,))
    centres = bin_centres()

    def logits(x: Tensor, state: State) -> tuple[Tensor, State]:
        return (
            torch.cat(
                [
                    torch.nn.functional.one_hot(torch.tensor([[40, 90]]), 128) * 20.0,
                    torch.tensor([[[5.0], [-5.0]]]),
                ],
                -1,
            ),
            state,
        )

    net.logits = logits  # type: ignore[method-assign]
    y, _ = net(torch.zeros(1, 5, 2), ())
    torch.testing.assert_close(y[0, 0], centres[[40, 90]].double(), rtol=0, atol=1e-4)
    assert y[0, 1, 0] > 0.99 and y[0, 1, 1] < 0.01


def test_weights_survive_the_file(tmp_path: Path) -> None:
    model = small_converter()
    path = save_file(model, tmp_path / "tiny.safetensors", {"step": "7"})
    again = load_file(path)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(
            again.state_dict()[name], tensor, rtol=2e-3, atol=1e-3
        )  # stored as float16


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        load_file(path)
    from safetensors.torch import save_file as save_tensors

    save_tensors({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no streaming model"):
        load_file(path)
    save_tensors(
        {"a": torch.zeros(1)},
        path,
        {"format": "rtvc-streaming", "config": small_converter().config.model_dump_json()},
    )
    with pytest.raises(CheckpointError, match="missing"):
        load_file(path)
    with pytest.raises(CheckpointError, match="not there"):
        load_file(tmp_path / "none.safetensors")
