"""The teacher: its parts and the whole, with random weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rtvc.errors import CheckpointError, ConfigError, DependencyError, TextError, VoiceError
from rtvc.teacher import network, phonemes
from rtvc.teacher.bank import VoiceBank, parse_mix
from rtvc.teacher.kokoro import Speech, Teacher
from rtvc.teacher.phonemes import Alphabet, phonemize
from rtvc.teacher.plbert import PLBert
from rtvc.teacher.ragged import Rows
from tests.support.teachers import random_teacher, relative, small_decoder

IPA = ["ðə bˈɜd ", "hˈiː", "tə lˈɪv ɪn", "æn"]
VOICES = ["af_one", "am_two:3,bf_three:1", "bf_three", "am_two"]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Random weights, float64."""
    return random_teacher()


@pytest.fixture(scope="module")
def speech(teacher: Teacher) -> Speech:
    """Four rows of different lengths."""
    return teacher.say(
        IPA, list(VOICES), prosody="am_two", speed=[1.0, 0.8, 1.2, 1.0], seed=7, ipa=True
    )


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
        with pytest.raises(CheckpointError, match="expected a token table"):
            Alphabet.parse(text)


def test_mixes_are_weighted_sums_of_the_row_for_the_count_of_phonemes() -> None:
    bank = VoiceBank(
        {
            name: torch.full((510, 256), value) + torch.arange(510.0)[:, None]
            for name, value in (("a", 0.0), ("b", 1000.0))
        }
    )
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


def test_plbert_is_a_post_norm_transformer_with_one_layer_applied_often() -> None:
    torch.manual_seed(0)
    bert = (
        PLBert(tokens=20, width=8, hidden=12, heads=3, inner=16, depth=3, positions=10)
        .double()
        .eval()
    )
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
    layer.self_attn.in_proj_weight.data = torch.cat(
        [head.get_parameter("weight") for head in heads]
    ).data
    layer.self_attn.in_proj_bias.data = torch.cat(
        [head.get_parameter("bias") for head in heads]
    ).data
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
    assert speech.content.shape == (4, 512, frames) and speech.f0.shape == speech.energy.shape == (
        4,
        2 * frames,
    )
    assert speech.waveform.shape == (4, 600 * frames) and speech.tokens.shape == (4, frames)
    for row, count, length in zip(
        speech.rows(), speech.phonemes, speech.lengths.tolist(), strict=True
    ):
        assert (
            row.waveform.shape == (1, 600 * length)
            and row.content.shape == (1, 512, length)
            and row.f0.shape == (1, 2 * length)
        )
        spoken = torch.unique_consecutive(row.tokens[0])
        assert spoken[0] == spoken[-1] == 0 and len(spoken) == count + 2
        assert row.waveform.abs().max() > 0.01 and row.f0.mean() > 100
    for tensor, rate in (
        (speech.waveform, 600),
        (speech.content, 1),
        (speech.f0, 2),
        (speech.energy, 2),
        (speech.tokens, 1),
    ):
        assert all(
            not tensor[i, ..., rate * length :].any()
            for i, length in enumerate(speech.lengths.tolist())
        )


def test_a_batch_is_its_rows_one_by_one(teacher: Teacher, speech: Speech) -> None:
    for i, (row, speed) in enumerate(zip(speech.rows(), (1.0, 0.8, 1.2, 1.0), strict=True)):
        alone = teacher.say(IPA[i], VOICES[i], prosody="am_two", speed=speed, seed=7 + i, ipa=True)
        assert torch.equal(row.tokens, alone.tokens)
        for x, y in (
            (row.content, alone.content),
            (row.f0, alone.f0),
            (row.energy, alone.energy),
            (row.waveform, alone.waveform),
        ):
            assert relative(x, y) < 1e-9


def test_rows_know_their_ends_at_every_rate() -> None:
    rows = Rows()
    rows.set(torch.tensor([3, 5]))
    assert rows.counts(10).tolist() == [6, 10] and rows.counts(601).tolist() == [361, 601]
    x = torch.randn(2, 4, 5).half()
    assert rows.zeroed(x)[0, :, 3:].eq(0).all() and torch.equal(rows.zeroed(x)[1], x[1])
    torch.testing.assert_close(
        rows.mean(x)[0, :, 0].float(), x[0, :, :3].float().mean(-1), rtol=2e-3, atol=1e-3
    )
    rows.set(torch.tensor([5, 5]))
    assert rows.even and rows.zeroed(x) is x


def test_the_network_is_the_authors_decoder(
    teacher: Teacher, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator's ends are rewritten for ragged rows: against the module that the golden
    vectors prove."""
    from rtvc.models.styletts2.source import Draws
    from rtvc.models.styletts_vc.norms import fold_weight_norm

    decoder = fold_weight_norm(small_decoder().double().eval())
    decoder.load_state_dict(teacher.network.decoder.state_dict())
    monkeypatch.setattr(network, "phase", torch.angle)
    row, *_ = speech.rows()
    with torch.no_grad():
        wave = decoder(row.content, row.f0, row.energy, row.acoustic, Draws.seeded(4))[:, 0]
    assert (
        relative(teacher.network.decode(row.plan, row.acoustic, [4]), wave * network.LEVEL) < 1e-9
    )


def test_the_same_seed_gives_the_same_speech_and_another_does_not(teacher: Teacher) -> None:
    first, again, other = (
        teacher.say(IPA[3], "af_one", seed=seed, ipa=True).waveform for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and relative(first, other) > 1e-6


def test_revoicing_keeps_everything_but_the_sound(teacher: Teacher, speech: Speech) -> None:
    same = teacher.revoice(speech, list(VOICES), seed=7)
    assert relative(same.waveform, speech.waveform) < 1e-12
    other = teacher.revoice(speech, "bf_three", seed=7)
    assert other.plan is speech.plan and other.waveform.shape == speech.waveform.shape
    assert relative(other.waveform, speech.waveform) > 0.01
    style = teacher.bank.style("bf_three", speech.phonemes[1])[:128]
    _, one, *_ = speech.rows()
    assert (
        relative(
            teacher.revoice(one, style, seed=8).waveform[0],
            other.waveform[1, : one.waveform.shape[1]],
        )
        < 1e-9
    )
    higher = replace(speech, plan=speech.plan._replace(f0=speech.f0 * 1.5))
    assert relative(teacher.revoice(higher, list(VOICES), seed=7).waveform, speech.waveform) > 0.01


@pytest.mark.parametrize(("dtype", "waveform"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)])
def test_lower_precision_changes_no_duration_and_little_else(
    speech: Speech, dtype: torch.dtype, waveform: float
) -> None:
    """Durations, content and F0 are float32 whatever the decoder's type. Random weights are rougher
    than trained ones, which lose 0.05 of the waveform in bfloat16; what they say then is the
    recogniser's to judge, below.
    """
    low = random_teacher(dtype)
    said = low.say(
        IPA, list(VOICES), prosody="am_two", speed=[1.0, 0.8, 1.2, 1.0], seed=7, ipa=True
    )
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
    with pytest.raises(VoiceError, match=r"acoustic style of shape \(128,\), got \(256,\)"):
        teacher.say("æn", torch.zeros(256), ipa=True)
    with pytest.raises(ConfigError, match=r"cannot compute in torch\.int8"):
        Teacher(teacher.network, teacher.bank, teacher.alphabet, dtype=torch.int8)
