"""The real teacher against ONNX Runtime and a recogniser."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rtvc.errors import DependencyError
from rtvc.teacher import engines
from rtvc.teacher.engines import OnnxEngine, Request, open_engine
from rtvc.teacher.kokoro import Teacher
from rtvc.teacher.network import Plan
from rtvc.teacher.phonemes import phonemize
from tests.support.teachers import real_teacher, relative

HARVARD = (
    "Glue the sheet to the dark blue background.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
)


@pytest.fixture(scope="module")
def kokoro() -> Teacher:
    """The imported teacher."""
    return real_teacher()


def eight_bits(x: Tensor) -> Tensor:
    """x as ONNX's DynamicQuantizeLinear keeps it: one scale for the whole tensor, 256 values."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255 or 1.0
    zero = min(255, max(0, round(-low / scale)))
    return (((x / scale).round() + zero).clamp(0, 255) - zero) * scale


def eight_bit_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A pre-hook: quantises what a layer reads, as the published graph does."""
    x, *rest = inputs
    return (
        x._replace(data=eight_bits(x.data)) if isinstance(x, PackedSequence) else eight_bits(x),
        *rest,
    )


def test_content_f0_and_energy_are_those_of_the_published_graph(kokoro: Teacher) -> None:
    """The graph quantises activations on the fly, so it is off by its own noise. The same
    quantisation put into our modules moves them by 0.5 % (content), 0.8 % (F0) and 0.5 % (energy):
    our distance from the graph must be of that size, and for content, which no recurrence blurs,
    must shrink when we quantise alike.
    """
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from rtvc.teacher.ragged import RaggedConv

    try:
        graph = OnnxEngine(kokoro.bank, kokoro.alphabet)
    except DependencyError as error:
        pytest.skip(f"the published graph is not in the cache and cannot be fetched: {error}")
    net = kokoro.network
    parts = [net.bert, net.bert_encoder, net.predictor, net.text_encoder]
    layers = [
        layer
        for part in parts
        for layer in part.modules()
        if isinstance(layer, nn.Linear | RaggedConv | nn.LSTM | nn.Conv1d)
    ]
    ours: dict[str, list[float]] = {"content": [], "f0": [], "energy": []}
    noise: dict[str, list[float]] = {name: [] for name in ours}
    alike = []
    for text, voice in zip(HARVARD[:2], ("af_heart", "am_michael:0.6,bf_emma:0.4"), strict=True):
        tokens = kokoro.alphabet.encode(phonemize([text])[0])
        style = kokoro.bank.style(voice, len(tokens) - 2)
        (take,) = graph.make([Request(tuple(tokens), style.numpy(), 1.0, 0)])
        # Tokens repeat ("ˈ", " "), but never twice in a row: runs of the labels are the durations.
        durations = torch.unique_consecutive(torch.from_numpy(take.tokens), return_counts=True)[
            1
        ].tolist()
        acoustic, prosodic = style[None].split(128, 1)
        plan = net.plan([tokens], prosodic, torch.ones(1), [durations])
        free = net.plan([tokens], prosodic, torch.ones(1))
        assert abs(int(free.lengths) - len(take.tokens)) <= 0.03 * len(take.tokens), (
            "expected durations are rounded: few may differ"
        )
        hooks = [layer.register_forward_pre_hook(eight_bit_inputs) for layer in layers]
        quantised = net.plan([tokens], prosodic, torch.ones(1), [durations])
        for hook in hooks:
            hook.remove()
        assert torch.equal(plan.tokens[0], torch.from_numpy(take.tokens))
        for name in ours:
            ours[name].append(relative(getattr(plan, name)[0], getattr(take, name)))
            noise[name].append(relative(getattr(quantised, name), getattr(plan, name)))
        alike.append(relative(quantised.content[0], take.content))
        # The waveform: the graph's own content, F0 and energy through our decoder, without noise,
        # as the graph has none.
        content, f0, energy = (
            torch.from_numpy(x)[None] for x in (take.content, take.f0, take.energy)
        )
        wave = net.decode(Plan(content, f0, energy, plan.tokens, plan.lengths), acoustic, None)[
            0
        ].numpy()
        assert np.corrcoef(wave, take.audio)[0, 1] > 0.96
        assert wave.std() / take.audio.std() == pytest.approx(1.0, abs=0.1)
    mean = {name: float(np.mean(values)) for name, values in ours.items()}
    floor = {name: float(np.mean(values)) for name, values in noise.items()}
    print("relative error", mean, "int8 noise", floor, "content, both quantised", alike)
    assert all(0.001 < floor[name] < 0.012 for name in floor)
    assert all(mean[name] < 1.3 * floor[name] for name in mean)
    assert max(alike) < 0.5 * mean["content"]


def test_auto_takes_the_graph_where_bfloat16_is_slow(
    kokoro: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setattr(engines, "fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr(
        engines, "OnnxEngine", lambda bank, alphabet, threads: ("graph", len(bank), threads)
    )
    assert open_engine("auto", threads=2) == ("graph", 54, 2)


def test_the_recogniser_hears_every_word(kokoro: Teacher) -> None:
    pytest.importorskip("faster_whisper", reason="the [eval] extra is not installed")
    from rtvc.evaluate.judges.recogniser import Recogniser
    from rtvc.evaluate.text import wer

    try:
        recogniser = Recogniser()
    except DependencyError as error:
        pytest.skip(f"Whisper is not in the cache and cannot be fetched: {error}")
    fast = Teacher(kokoro.network, kokoro.bank, kokoro.alphabet, dtype=torch.bfloat16)
    said = fast.say(list(HARVARD), ["af_heart", "af_bella", "af_heart:0.7,af_bella:0.3"])
    for text, row in zip(HARVARD, said.rows(), strict=True):
        heard = recogniser.transcribe(row.waveform[0].numpy())
        assert wer(text, heard)[0] == 0, heard
