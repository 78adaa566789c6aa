"""The teacher: its parts with random weights, and the real one against ONNX Runtime and a recogniser."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rtvc.cli import main
from rtvc.errors import CheckpointError, ConfigError, DependencyError, TextError, VoiceError
from rtvc.teacher import corpus, engines, network, phonemes
from rtvc.teacher.bank import VoiceBank, parse_mix
from rtvc.teacher.engines import OnnxEngine, Request, Take, TorchEngine, open_engine
from rtvc.teacher.kokoro import Speech, Teacher
from rtvc.teacher.network import Plan
from rtvc.teacher.phonemes import Alphabet, phonemize
from rtvc.teacher.plbert import PLBert
from rtvc.teacher.ragged import Rows
from tests.teachers import random_teacher, real_teacher, small_decoder

IPA = ["ðə bˈɜd ", "hˈiː", "tə lˈɪv ɪn", "æn"]
VOICES = ["af_one", "am_two:3,bf_three:1", "bf_three", "am_two"]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Random weights, float64."""
    return random_teacher()


@pytest.fixture(scope="module")
def speech(teacher: Teacher) -> Speech:
    """Four rows of different lengths."""
    return teacher.say(IPA, list(VOICES), prosody="am_two", speed=[1.0, 0.8, 1.2, 1.0], seed=7, ipa=True)


def relative(x: Any, y: Any) -> float:
    """Relative L2 error of x against y."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (x, y))
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


# ------------------------------------------------------------------------------------------------- text and voices


def test_text_becomes_ipa_in_the_teachers_alphabet() -> None:
    pytest.importorskip("espeakng_loader", reason="the [train] extra is not installed")
    assert phonemize(["The red  birch\nranks."]) == ["ðə ɹˈɛd bˈɜːtʃ ɹˈæŋks."]
    with pytest.raises(TextError, match="empty"):
        phonemize(["fine", " \n"])


def test_missing_espeak_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    phonemes._backend.cache_clear()
    with pytest.raises(DependencyError, match=r"rtvc-engine\[train\]"):
        phonemize(["hello"])


def test_symbols_outside_the_alphabet_are_dropped_and_limits_are_told() -> None:
    alphabet = Alphabet.parse('{"vocab": {"a": 43, "b": 44}}')
    assert alphabet.encode("aXb€a") == [0, 43, 44, 43, 0]
    assert alphabet.decode([0, 43, 44, 0]) == "ab"
    assert Alphabet.parse(alphabet.dump()).tokens == alphabet.tokens
    assert len(alphabet.encode("a" * 510)) == 512
    with pytest.raises(TextError, match=r"511 phonemes came.*510"):
        alphabet.encode("a" * 511)
    with pytest.raises(TextError, match="nothing of 'XYZ'"):
        alphabet.encode("XYZ")
    for text in ("{}", "[1]", "no", '{"vocab": {"a": "x"}}'):
        with pytest.raises(CheckpointError, match="not a token table"):
            Alphabet.parse(text)


def test_mixes_are_weighted_sums_of_the_row_for_the_count_of_phonemes() -> None:
    bank = VoiceBank({name: torch.full((510, 256), value) + torch.arange(510.0)[:, None] for name, value in (("a", 0.0), ("b", 1000.0))})
    style = bank.style("a:1,b:3", 7, {"b": 2.0})
    assert style.shape == (256,) and style[:128].eq(756).all() and style[128:].eq(1006).all()
    assert bank.style("a", 0)[0] == 0 and bank.style("a", 999)[0] == 509
    assert parse_mix(" a : 0.5 , b") == {"a": pytest.approx(1 / 3), "b": pytest.approx(2 / 3)}
    for wrong in ("", "a:0", "a:-1,b:2", "a:x", "a:nan", "a:1,a:2", {}):
        with pytest.raises(VoiceError):
            parse_mix(wrong)
    with pytest.raises(VoiceError, match="no voice 'c' among the teacher's 2: did you mean"):
        bank.style("c", 1)
    with pytest.raises(VoiceError, match=r"shape \(3, 256\)"):
        VoiceBank({"a": torch.zeros(3, 256)})


# --------------------------------------------------------------------------------------------------------- network


def test_plbert_is_a_post_norm_transformer_with_one_layer_applied_often() -> None:
    torch.manual_seed(0)
    bert = PLBert(tokens=20, width=8, hidden=12, heads=3, inner=16, depth=3, positions=10).double().eval()
    own = bert.encoder.albert_layer_groups[0].get_submodule("albert_layers.0")
    layer = nn.TransformerEncoderLayer(
        12, 3, 16, 0.0, lambda x: nn.functional.gelu(x, approximate="tanh"), 1e-12, batch_first=True
    ).double()
    pairs = {
        "self_attn.out_proj": "attention.dense",
        "linear1": "ffn",
        "linear2": "ffn_output",
        "norm1": "attention.LayerNorm",
        "norm2": "full_layer_layer_norm",
    }
    for target, source in pairs.items():
        layer.get_submodule(target).load_state_dict(own.get_submodule(source).state_dict())
    heads = [own.get_submodule(f"attention.{name}") for name in ("query", "key", "value")]
    layer.self_attn.in_proj_weight.data = torch.cat([head.get_parameter("weight") for head in heads]).data
    layer.self_attn.in_proj_bias.data = torch.cat([head.get_parameter("bias") for head in heads]).data
    tokens, mask = torch.randint(20, (2, 9)), torch.arange(9) >= torch.tensor([[9], [5]])
    x = bert.encoder.embedding_hidden_mapping_in(bert.embeddings(tokens))
    for _ in range(3):
        x = layer(x, src_key_padding_mask=mask)
    y = bert(tokens, mask)
    torch.testing.assert_close(y[0], x[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(y[1, :5], x[1, :5], rtol=0, atol=1e-10)
    torch.testing.assert_close(bert(tokens[1:, :5])[0], y[1, :5], rtol=0, atol=1e-10)


def test_shapes_rates_and_labels(speech: Speech) -> None:
    assert len(speech) == 4 and len(set(speech.lengths.tolist())) > 1
    frames = int(speech.lengths.max())
    assert speech.content.shape == (4, 512, frames) and speech.f0.shape == speech.energy.shape == (4, 2 * frames)
    assert speech.waveform.shape == (4, 600 * frames) and speech.tokens.shape == (4, frames)
    for row, count, length in zip(speech.rows(), speech.phonemes, speech.lengths.tolist(), strict=True):
        assert row.waveform.shape == (1, 600 * length) and row.content.shape == (1, 512, length) and row.f0.shape == (1, 2 * length)
        spoken = torch.unique_consecutive(row.tokens[0])
        assert spoken[0] == spoken[-1] == 0 and len(spoken) == count + 2
        assert row.waveform.abs().max() > 0.01 and row.f0.mean() > 100
    for tensor, rate in ((speech.waveform, 600), (speech.content, 1), (speech.f0, 2), (speech.energy, 2), (speech.tokens, 1)):
        assert all(not tensor[i, ..., rate * length :].any() for i, length in enumerate(speech.lengths.tolist()))


def test_a_batch_is_its_rows_one_by_one(teacher: Teacher, speech: Speech) -> None:
    for i, (row, speed) in enumerate(zip(speech.rows(), (1.0, 0.8, 1.2, 1.0), strict=True)):
        alone = teacher.say(IPA[i], VOICES[i], prosody="am_two", speed=speed, seed=7 + i, ipa=True)
        assert torch.equal(row.tokens, alone.tokens)
        for x, y in ((row.content, alone.content), (row.f0, alone.f0), (row.energy, alone.energy), (row.waveform, alone.waveform)):
            assert relative(x, y) < 1e-9


def test_rows_know_their_ends_at_every_rate() -> None:
    rows = Rows()
    rows.set(torch.tensor([3, 5]))
    assert rows.counts(10).tolist() == [6, 10] and rows.counts(601).tolist() == [361, 601]
    x = torch.randn(2, 4, 5).half()
    assert rows.zeroed(x)[0, :, 3:].eq(0).all() and torch.equal(rows.zeroed(x)[1], x[1])
    torch.testing.assert_close(rows.mean(x)[0, :, 0].float(), x[0, :, :3].float().mean(-1), rtol=2e-3, atol=1e-3)
    rows.set(torch.tensor([5, 5]))
    assert rows.even and rows.zeroed(x) is x


def test_the_network_is_the_authors_decoder(teacher: Teacher, speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's ends are rewritten for ragged rows: against the module that the golden vectors prove."""
    from rtvc.models.styletts2.source import Draws
    from rtvc.models.styletts_vc.norms import fold_weight_norm

    decoder = fold_weight_norm(small_decoder().double().eval())
    decoder.load_state_dict(teacher.network.decoder.state_dict())
    monkeypatch.setattr(network, "phase", torch.angle)
    (row, *_) = speech.rows()
    with torch.no_grad():
        wave = decoder(row.content, row.f0, row.energy, row.acoustic, Draws.seeded(4))[:, 0]
    assert relative(teacher.network.decode(row.plan, row.acoustic, [4]), wave * network.LEVEL) < 1e-9


def test_the_same_seed_gives_the_same_speech_and_another_does_not(teacher: Teacher) -> None:
    first, again, other = (teacher.say(IPA[3], "af_one", seed=seed, ipa=True).waveform for seed in (1, 1, 2))
    assert torch.equal(first, again) and relative(first, other) > 1e-6


def test_revoicing_keeps_everything_but_the_sound(teacher: Teacher, speech: Speech) -> None:
    same = teacher.revoice(speech, list(VOICES), seed=7)
    assert relative(same.waveform, speech.waveform) < 1e-12
    other = teacher.revoice(speech, "bf_three", seed=7)
    assert other.plan is speech.plan and other.waveform.shape == speech.waveform.shape
    assert relative(other.waveform, speech.waveform) > 0.01
    style = teacher.bank.style("bf_three", speech.phonemes[1])[:128]
    (_, one, *_) = speech.rows()
    assert relative(teacher.revoice(one, style, seed=8).waveform[0], other.waveform[1, : one.waveform.shape[1]]) < 1e-9
    higher = replace(speech, plan=speech.plan._replace(f0=speech.f0 * 1.5))
    assert relative(teacher.revoice(higher, list(VOICES), seed=7).waveform, speech.waveform) > 0.01


@pytest.mark.parametrize(("dtype", "waveform"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)])
def test_lower_precision_changes_no_duration_and_little_else(speech: Speech, dtype: torch.dtype, waveform: float) -> None:
    """Durations, content and F0 are float32 whatever the decoder's type. Random weights are rougher than trained ones, which
    lose 0.05 of the waveform in bfloat16; what they say then is the recogniser's to judge, below."""
    low = random_teacher(dtype)
    said = low.say(IPA, list(VOICES), prosody="am_two", speed=[1.0, 0.8, 1.2, 1.0], seed=7, ipa=True)
    assert torch.equal(said.tokens, speech.tokens)
    assert said.waveform.dtype == torch.float32 and said.waveform.isfinite().all()
    assert relative(said.f0, speech.f0) < 1e-4 and relative(said.content, speech.content) < 1e-4
    decoded = low.revoice(speech, list(VOICES), seed=7).waveform
    assert relative(decoded, speech.waveform) < waveform


def test_wrong_requests_say_what_is_wrong(teacher: Teacher) -> None:
    with pytest.raises(TextError, match="no text came"):
        teacher.say([], ipa=True)
    with pytest.raises(ConfigError, match="2 voices came for 1 texts"):
        teacher.say("æn", ["af_one", "am_two"], ipa=True)
    with pytest.raises(ConfigError, match="a speed of 0"):
        teacher.say("æn", "af_one", speed=0, ipa=True)
    with pytest.raises(VoiceError, match=r"acoustic style of shape \(256,\)"):
        teacher.say("æn", torch.zeros(256), ipa=True)
    with pytest.raises(ConfigError, match=r"cannot compute in torch\.int8"):
        Teacher(teacher.network, teacher.bank, teacher.alphabet, dtype=torch.int8)


# ---------------------------------------------------------------------------------------------------------- corpora


class FakeEngine:
    """Says nothing, but keeps count; batches of two."""

    def __init__(self, teacher: Teacher) -> None:
        self.batch, self.bank, self.alphabet = 2, teacher.bank, teacher.alphabet
        self.asked: list[Request] = []

    def make(self, requests: Sequence[Request]) -> Iterator[Take]:
        for request in requests:
            self.asked.append(request)
            frames = len(request.tokens)
            ones = np.ones(2 * frames, np.float32)
            yield Take(np.full(600 * frames, 2.0, np.float32), np.ones((512, frames), np.float32), ones, ones, np.array(request.tokens))


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters for phonemes: no eSpeak needed."""
    monkeypatch.setattr(corpus, "phonemize", list)


TEXTS = ["One two three four five six", "too short", " ".join(["ab", "de", "fi"][i % 3] * (i // 9 + 1) for i in range(40))]


def test_texts_are_cut_into_pieces() -> None:
    runs = corpus.pieces(TEXTS)
    assert sorted(len(run.split()) for run in runs) == [6, 18, 18] and runs == sorted(runs) and runs[0].islower()
    with pytest.raises(TextError, match="none of the 1 texts"):
        corpus.pieces(["too short"])


def test_a_corpus_resumes_shares_work_and_depends_on_the_index_alone(teacher: Teacher, tmp_path: Path, spoken: None) -> None:
    whole, seen = FakeEngine(teacher), []
    done = corpus.generate(tmp_path / "whole", TEXTS, 5, whole, seed=3, report=seen.append)
    assert (done.made, done.found, len(seen), len(whole.asked)) == (5, 0, 5, 5) and done.speech > 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == [f"{i:05d}.npz" for i in range(5)], "and no temporary file"
    again = FakeEngine(teacher)
    (tmp_path / "whole" / "00003.npz").unlink()
    assert corpus.generate(tmp_path / "whole", TEXTS, 5, again, seed=3).found == 4 and len(again.asked) == 1
    for part in range(2):
        corpus.generate(tmp_path / "parts", TEXTS, 5, FakeEngine(teacher), seed=3, part=part, parts=2)
    for name in names:
        one, other = np.load(tmp_path / "whole" / name), np.load(tmp_path / "parts" / name)
        assert all(np.array_equal(one[key], other[key]) for key in one)
        frames = one["phon"].shape[0]
        kinds = {key: (one[key].dtype.name, one[key].shape) for key in one}
        assert kinds == {
            "audio": ("int16", (600 * frames,)),
            "content": ("float16", (512, frames)),
            "f0": ("float32", (2 * frames,)),
            "n": ("float32", (2 * frames,)),
            "phon": ("int16", (frames,)),
            "style": ("float32", (256,)),
        }
        assert one["audio"].max() == 32767, "clipped, not wrapped"
    with pytest.raises(ConfigError, match="part 2 of 2"):
        corpus.generate(tmp_path, TEXTS, 1, whole, part=2, parts=2)


def test_requests_vary_voices_prosody_and_speed(teacher: Teacher, spoken: None) -> None:
    runs = corpus.pieces(TEXTS)
    asked = [corpus.request(i, runs, 0, teacher.bank, teacher.alphabet) for i in range(60)]
    assert len({request.seed for request in asked}) == len({request.speed for request in asked}) == 60
    assert all(0.8 <= request.speed <= 1.2 for request in asked) and len({request.tokens for request in asked}) == 3
    pure = sum(
        any(np.array_equal(request.style[:128], teacher.bank[name][len(request.tokens) - 3, :128]) for name in teacher.bank)
        for request in asked
    )
    assert 8 <= pure <= 30, "three in ten are one voice"


def test_the_torch_engine_gives_what_the_teacher_says(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(teacher)
    tokens = teacher.alphabet.encode(IPA[3])
    style = teacher.bank.style("af_one", len(tokens) - 2)
    (take,) = engine.make([Request(tuple(tokens), style.numpy(), 1.0, 5)])
    said = teacher.say(IPA[3], "af_one", seed=5, ipa=True)
    assert engine.batch == 1 and relative(take.audio, said.waveform[0]) < 1e-6 and np.array_equal(take.tokens, said.tokens[0])
    assert take.content.shape == said.content.shape[1:] and take.content.dtype == np.float32
    with pytest.raises(ConfigError, match="no engine 'tape'"):
        open_engine("tape")
    with pytest.raises(ConfigError, match="the device tape cannot be used here"):
        open_engine("torch", "tape")
    monkeypatch.setattr(Teacher, "load", lambda **how: teacher)
    assert isinstance(open_engine("torch"), TorchEngine)
    monkeypatch.setattr(engines, "fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr(engines, "_has_onnx", lambda: False)
    assert isinstance(open_engine("auto"), TorchEngine)


# ----------------------------------------------------------------------------------------------------- command line


def test_the_commands(
    teacher: Teacher, tmp_path: Path, spoken: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    monkeypatch.setattr(Teacher, "load", lambda **how: teacher)
    out = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert main(["teacher", "say", "æn", "--ipa", "--voice", "af_one:0.7,am_two:0.3", "-o", out[0], "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == out[0] and report["seconds"] == pytest.approx(soundfile.info(out[0]).duration, abs=1e-3)
    assert main(["teacher", "pair", "æn", "--ipa", "--voice", "af_one", "--to", "am_two", "-o", *out]) == 0
    first, second = (soundfile.read(path)[0] for path in out)
    assert first.shape == second.shape and relative(first, second) > 0.01
    assert main(["teacher", "say", "æn", "--ipa", "--voice", "nobody", "-o", out[0]]) == 2
    capsys.readouterr()
    (tmp_path / "texts.tsv").write_text("speaker\ttranscript\nen\tan old man in a den\nde\twas ist das hier nun\n")
    arguments = [
        str(tmp_path / "corpus"),
        "--texts",
        str(tmp_path / "texts.tsv"),
        "--count",
        "1",
        "--skip",
        "de",
        "--engine",
        "torch",
        "--json",
    ]
    assert main(["teacher", "generate", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 1 and (tmp_path / "corpus" / "00000.npz").exists()


def test_texts_come_from_lines_or_tables(tmp_path: Path) -> None:
    from rtvc.cli.teacher import read_texts

    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert read_texts(tmp_path / "a.txt", None) == ["one", "two"]
    (tmp_path / "a.tsv").write_text('speaker\ttext\nen\t"quoted\nde\tzwei\nen\t\n')
    assert read_texts(tmp_path / "a.tsv", "de") == ['"quoted']
    (tmp_path / "b.tsv").write_text("x\ty\n1\t2\n")
    for name, message in (("b.tsv", "columns x, y"), ("absent.txt", "cannot be read")):
        with pytest.raises(TextError, match=message):
            read_texts(tmp_path / name, None)


# ------------------------------------------------------------------------------------------------- the real teacher

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
    return (x._replace(data=eight_bits(x.data)) if isinstance(x, PackedSequence) else eight_bits(x), *rest)


def test_content_f0_and_energy_are_those_of_the_published_graph(kokoro: Teacher) -> None:
    """The graph quantises activations on the fly, so it is off by its own noise. The same quantisation put into our modules
    moves them by 0.5 % (content), 0.8 % (F0) and 0.5 % (energy): our distance from the graph must be of that size, and for
    content, which no recurrence blurs, must shrink when we quantise alike.
    """
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from rtvc.teacher.ragged import RaggedConv

    try:
        graph = OnnxEngine(kokoro.bank, kokoro.alphabet)
    except DependencyError as error:
        pytest.skip(f"the published graph is not in the cache and cannot be fetched: {error}")
    net = kokoro.network
    parts = [net.bert, net.bert_encoder, net.predictor, net.text_encoder]
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear | RaggedConv | nn.LSTM | nn.Conv1d)]
    ours: dict[str, list[float]] = {"content": [], "f0": [], "energy": []}
    noise: dict[str, list[float]] = {name: [] for name in ours}
    alike = []
    for text, voice in zip(HARVARD[:2], ("af_heart", "am_michael:0.6,bf_emma:0.4"), strict=True):
        tokens = kokoro.alphabet.encode(phonemize([text])[0])
        style = kokoro.bank.style(voice, len(tokens) - 2)
        (take,) = graph.make([Request(tuple(tokens), style.numpy(), 1.0, 0)])
        # Tokens repeat ("ˈ", " "), but never twice in a row: runs of the labels are the durations.
        durations = torch.unique_consecutive(torch.from_numpy(take.tokens), return_counts=True)[1].tolist()
        acoustic, prosodic = style[None].split(128, 1)
        plan = net.plan([tokens], prosodic, torch.ones(1), [durations])
        free = net.plan([tokens], prosodic, torch.ones(1))
        assert abs(int(free.lengths) - len(take.tokens)) <= 0.03 * len(take.tokens), "expected durations are rounded: few may differ"
        hooks = [layer.register_forward_pre_hook(eight_bit_inputs) for layer in layers]
        quantised = net.plan([tokens], prosodic, torch.ones(1), [durations])
        for hook in hooks:
            hook.remove()
        assert torch.equal(plan.tokens[0], torch.from_numpy(take.tokens))
        for name in ours:
            ours[name].append(relative(getattr(plan, name)[0], getattr(take, name)))
            noise[name].append(relative(getattr(quantised, name), getattr(plan, name)))
        alike.append(relative(quantised.content[0], take.content))
        # The waveform: the graph's own content, F0 and energy through our decoder, without noise, as the graph has none.
        content, f0, energy = (torch.from_numpy(x)[None] for x in (take.content, take.f0, take.energy))
        wave = net.decode(Plan(content, f0, energy, plan.tokens, plan.lengths), acoustic, None)[0].numpy()
        assert np.corrcoef(wave, take.audio)[0, 1] > 0.96
        assert wave.std() / take.audio.std() == pytest.approx(1.0, abs=0.1)
    mean = {name: float(np.mean(values)) for name, values in ours.items()}
    floor = {name: float(np.mean(values)) for name, values in noise.items()}
    print("relative error", mean, "int8 noise", floor, "content, both quantised", alike)
    assert all(0.001 < floor[name] < 0.012 for name in floor)
    assert all(mean[name] < 1.3 * floor[name] for name in mean)
    assert max(alike) < 0.5 * mean["content"]


def test_auto_takes_the_graph_where_bfloat16_is_slow(kokoro: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setattr(engines, "fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr(engines, "OnnxEngine", lambda bank, alphabet, threads: ("graph", len(bank), threads))
    assert open_engine("auto", threads=2) == ("graph", 54, 2)


def test_the_recogniser_hears_every_word(kokoro: Teacher) -> None:
    pytest.importorskip("faster_whisper", reason="the [eval] extra is not installed")
    from rtvc.evaluate.recogniser import Recogniser
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
