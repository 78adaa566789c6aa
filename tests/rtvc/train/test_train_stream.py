"""The stages of the streaming model on a few seconds of labelled speech: losses fall, switches
switch, runs go on identically."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rtvc.audio.spectral import BandedSTFT
from rtvc.errors import ConfigError, DependencyError
from rtvc.models.streaming.assets import save_file
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.train.config import load_config
from rtvc.train.loop import Trainer
from rtvc.train.losses import speaker
from rtvc.train.losses.prosody_targets import low_passed, manner
from rtvc.train.losses.speaker_leak import SpeakerClassifier
from rtvc.train.registry import STAGES, default_config, stage_type
from rtvc.train.state import Checkpoints, load_weights
from rtvc.train.streaming import stream
from tests.support.labelled_speech import make_labelled

SIZES = {
    "content_hidden": 16,
    "content_dilations": (1, 2),
    "pitch_hidden": 16,
    "pitch_dilations": (1, 2),
    "decoder_hidden": 16,
    "decoder_dilations": (1, 2),
    "acoustic_hidden": 8,
    "prosodic_hidden": 8,
}

TINY = """
steps = {steps}
device = "cpu"
workers = 0
ema = 0.5
{top}
[checkpoint]
every = 1000
[log]
every = 2
sample_every = 0
validate_every = 0
tensorboard = false
[optimizer]
lr = {lr}
schedule = "constant"
[data]
labelled = ["{folder}"]
batch = 3
frames = 64
held_out = 2
[weights]
{weights}
[model]
"""


class Stand(torch.nn.Module):
    """In place of Resemblyzer, which may not be installed: the averages of some bands of the
    spectrum."""

    @classmethod
    def pretrained(cls) -> "Stand":
        return cls()

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft(wave[:, :6000].float())).square().sum(-1)
        bands = torch.nn.functional.adaptive_avg_pool1d(spectrum, 256).clamp_min(1e-6).log() + 14
        return torch.nn.functional.normalize(bands, dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SpeakerEncoder", Stand)


def config(
    path: Path, folder: Path, steps: int = 24, lr: float = 3e-3, weights: str = "", top: str = ""
) -> Path:
    sizes = "".join(f"{name} = {json.dumps(value)}\n" for name, value in SIZES.items())
    path.mkdir(exist_ok=True)
    file = path / "config.toml"
    file.write_text(
        TINY.format(steps=steps, lr=lr, folder=folder, weights=weights, top=top) + sizes
    )
    return file


def trainer(name: str, file: Path, run: Path, *overrides: str) -> Trainer:
    kind: Any = stage_type(name)
    settings = load_config(kind.config_type, file, overrides)
    torch.manual_seed(settings.seed)
    return Trainer(kind(settings), settings, run, console=Console(quiet=True))


def curve(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def whole_state(run: Path) -> dict[str, torch.Tensor]:
    found = Checkpoints(run).latest()
    assert found is not None
    return {f"{m}.{n}": t for m, part in found[1]["modules"].items() for n, t in part.items()}


def falls(values: list[float], share: float) -> bool:
    third = max(1, len(values) // 3)
    return sum(values[-third:]) < share * sum(values[:third])


@pytest.fixture(scope="module")
def content_run(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    path = tmp_path_factory.mktemp("content")
    made = trainer(
        "stream_content", config(path, folder, 40, 1e-2, weights="leak = 0.02"), path / "run"
    )
    made.fit()
    return path / "run"


def test_content_learns_and_tells_bad_files(content_run: Path) -> None:
    assert falls(curve(content_run, "content"), 0.8) and falls(curve(content_run, "phonemes"), 0.8)
    assert curve(content_run, "metric/phonemes_right")[-1] > 0.5
    assert "leak" in json.loads((content_run / "metrics.jsonl").read_text().splitlines()[0])
    assert "cut_off.npz" in (content_run / "remarks.txt").read_text()
    encoder = StreamingConverter(StreamingConfig(**SIZES)).encoder  # type: ignore[arg-type]
    encoder.load_state_dict(load_weights(content_run)["encoder"])


def test_content_goes_on_identically(tmp_path: Path, folder: Path) -> None:
    file = config(tmp_path, folder, 6)
    trainer("stream_content", file, tmp_path / "whole").fit()
    trainer("stream_content", file, tmp_path / "parts").fit(max_steps=3)
    trainer("stream_content", file, tmp_path / "parts").fit()
    whole, parts = whole_state(tmp_path / "whole"), whole_state(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(
        torch.equal(whole[name], parts[name]) for name in whole
    )


def test_content_is_aligned_with_its_labels(tmp_path: Path, folder: Path) -> None:
    """Frame t of what is found has heard exactly up to its declared look-ahead."""
    made: Any = trainer("stream_content", config(tmp_path, folder), tmp_path / "run").stage
    made.encoder.eval()
    with torch.no_grad():
        assert set(made.validate(0)) == {"content", "phonemes", "phonemes_right", "content_exact"}
        assert made.sample(0).mels["found"].shape == (128, 64)
    wave = torch.randn(1, 64 * 300, generator=torch.Generator().manual_seed(0)) * 0.1
    changed = wave.clone()
    changed[:, 40 * 300 :] = 0
    differs = (made.found(wave)[0] - made.found(changed)[0]).abs().amax((0, 1)) > 1e-6
    first = int(differs.nonzero()[0])
    assert first == 40 - 2, (
        "it hears half a window, two frames and one frame of look-ahead: up to sample (t + 3) * 300"
    )


def test_pitch_learns(tmp_path: Path, folder: Path) -> None:
    file = config(tmp_path, folder, 90, lr=1e-2)
    made = trainer("stream_pitch", file, tmp_path / "run", "data.warp=0.4", "warm=8")
    made.fit()
    run = tmp_path / "run"
    assert falls(curve(run, "f0"), 0.8) and falls(curve(run, "voicing"), 0.9)
    right = curve(run, "metric/voicing_right")
    assert sum(right[-9:]) / 9 > 0.8
    net = StreamingConverter(StreamingConfig(**SIZES)).pitch  # type: ignore[arg-type]
    net.load_state_dict(load_weights(run)["pitch"])
    with torch.no_grad():
        assert set(made.stage.validate(0)) == {
            "f0",
            "voicing",
            "within_a_semitone",
            "voicing_right",
        }
        assert made.stage.sample(0).mels["bins"].shape[0] == 128


def test_stream_learns_from_what_the_encoder_hears(
    tmp_path: Path, folder: Path, content_run: Path
) -> None:
    init = f'init = [{{path = "{content_run}"}}]\nconsistency_from = 0\nreference_frames = 96'
    made = trainer(
        "stream",
        config(tmp_path, folder, 30, 5e-3, "matching = 0.3\nforeign = 0.1", init),
        tmp_path / "run",
    )
    made.fit()
    run = tmp_path / "run"
    assert (
        falls(curve(run, "stft"), 0.8)
        and falls(curve(run, "prosody"), 0.9)
        and falls(curve(run, "embedding"), 0.8)
    )
    assert len(curve(run, "matching")) == len(curve(run, "foreign")) == 7, (
        "where the encoder is heard, in even steps"
    )
    assert len(curve(run, "consistency")) == 15
    exported = load_weights(run)
    assert set(exported) == set(stream.PARTS)
    model = StreamingConverter(StreamingConfig(**SIZES))  # type: ignore[arg-type]
    for name, weights in exported.items():
        getattr(model, name).load_state_dict(weights)
    untouched = load_weights(content_run)["encoder"]
    encoder = made.stage.modules["encoder"].state_dict()
    assert all(torch.equal(untouched[name], encoder[name]) for name in untouched), (
        "the encoder stays as it was"
    )
    steady, start = made.stage.modules["steady"].state_dict(), whole_state(run)
    assert any(
        not torch.equal(steady[f"decoder.{n}"], start[f"decoder.{n}"])
        for n in model.decoder.state_dict()
    )
    with torch.no_grad():
        values = made.stage.validate(0)
        sample = made.stage.sample(0)
    assert (
        set(values) == {"stft", "stft_labels", "similarity", "similarity_labels"}
        and values["stft"] < 5
    )
    assert set(sample.audio) == set(sample.mels) == {"true", "made", "converted"}
    assert not torch.equal(sample.audio["made"], sample.audio["converted"])


def test_stream_against_a_discriminator_goes_on_identically(tmp_path: Path, folder: Path) -> None:
    top = (
        "labels_every = 2\ntrain_encoder = true\nadversarial_from = 2\nreference_frames ="
        " 48\nprecision = 'bfloat16'"
    )
    weights = "adversarial = 0.1\nconsistency = 0.0\nembedding = 0.0"
    top += (
        "\ndiscriminator = {rows = 2, channels = 4, power = 0.3, resolutions = [[512, 128, 512]]}"
    )
    file = config(tmp_path, folder, 4, weights=weights, top=top)
    file.write_text(file.read_text().replace("frames = 64\nheld", "frames = 24\nheld"))
    trainer("stream", file, tmp_path / "whole").fit()
    trainer("stream", file, tmp_path / "parts").fit(max_steps=3)
    trainer("stream", file, tmp_path / "parts").fit()
    whole, parts = whole_state(tmp_path / "whole"), whole_state(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole) and not any(
        name.startswith("speaker.") for name in whole
    )
    first, last = (
        json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    )
    assert "discriminator" not in first and {"discriminator", "adversarial", "features"} <= set(
        last
    )
    fresh = trainer("stream", file, tmp_path / "fresh").stage.modules["encoder"].state_dict()
    assert any(not torch.equal(fresh[name], whole[f"encoder.{name}"]) for name in fresh), (
        "the encoder learns as well"
    )
    assert set(load_weights(tmp_path / "whole")) == {*stream.PARTS, "encoder"}


def test_the_encoder_learns_from_another_speakers_version(
    tmp_path: Path, folder: Path, content_run: Path
) -> None:
    top = (
        "train_encoder = true\nlabels_every = 2\nreference_frames = 48\n"
        "heard_as = {shift = 1.0, shift_semitones = [3, 5], noise = 0, room = 0, equalise = 0, "
        "low_pass = 0, codec = 0, mu_law = 0, clip = 0}"
    )
    weights, init = "embedding = 0.0\nconsistency = 0.0", f'init = [{{path = "{content_run}"}}]\n'
    made: Any = trainer(
        "stream", config(tmp_path, folder, 4, weights=weights, top=init + top), tmp_path / "run"
    ).stage
    batch = made.batch(1)
    assert batch["heard"].shape == batch["wave"].shape and all(
        torch.equal(batch[n], made.batch(1)[n]) for n in ("heard", "wave")
    )
    heard, wave = (torch.fft.rfft(batch[name]).abs() ** 2 for name in ("heard", "wave"))
    bins = torch.arange(wave.shape[1])
    centres = [(power * bins).sum() / power.sum() for power in (heard, wave)]
    assert centres[0] > 1.1 * centres[1], "what is heard is a higher voice"
    losses = made.losses("generator", batch, 1)
    assert torch.equal(batch["true"], made.target(batch["wave"])), (
        "what is restored is the voice as it was"
    )
    weight = made.modules["encoder"].out.weight
    for name in ("stft", "content"):
        assert torch.autograd.grad(losses[name], weight, retain_graph=True)[0].abs().max() > 0, name
    assert "content" not in made.losses("generator", made.batch(2), 2), (
        "labels are nothing that the encoder heard"
    )


def test_stream_needs_an_encoder_that_has_learnt(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="stream_content"):
        trainer("stream", config(tmp_path, folder), tmp_path / "run").fit()


def test_output_matching_needs_something_heard(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="labels_every"):
        trainer(
            "stream",
            config(tmp_path, folder, weights="matching = 0.1", top="labels_every = 1"),
            tmp_path / "run",
        )


def test_a_foreign_voice_is_asked_for_in_its_own_register(
    tmp_path: Path, folder: Path, content_run: Path
) -> None:
    weights = "foreign = 1.0\nmatching = 0.0\nembedding = 0.0\nconsistency = 0.0"
    top = f'init = [{{path = "{content_run}"}}]\nreference_frames = 96'
    made: Any = trainer(
        "stream", config(tmp_path, folder, 2, weights=weights, top=top), tmp_path / "run"
    ).stage
    batch = made.forward(made.batch(1), 1)
    heard = []
    decode, made.decoded = (
        made.decoded,
        lambda part, content, batch, style: (
            heard.append(batch) or decode(part, content, batch, style)
        ),
    )
    assert set(made.converted(batch)) == {"foreign"}
    own = manner(batch["reference_f0"], batch["reference_voiced"], batch["reference_energy"])
    assert own.known.all() and own.targets[:, 0].std() > 0.01, "speakers of different registers"
    moved = heard[0]["log_f0"] - batch["log_f0"]
    assert torch.allclose(
        moved, (own.targets[:, 0].roll(1) - own.targets[:, 0])[:, None].expand_as(moved), atol=1e-5
    )
    batch["reference_voiced"] = torch.zeros_like(batch["reference_voiced"])
    made.converted(batch)
    assert torch.equal(heard[1]["log_f0"], batch["log_f0"]), "nobody's register is known"


def test_only_the_head_learns_from_embeddings_at_first(tmp_path: Path, folder: Path) -> None:
    top = "labels_every = 1\nhead_steps = 3\nreference_frames = 48"
    made: Any = trainer("stream", config(tmp_path, folder, top=top), tmp_path / "run").stage
    for step, learns in ((0, False), (3, True)):
        loss = made.losses("generator", made.batch(0), step)["embedding"]
        gradient = torch.autograd.grad(
            loss, made.modules["acoustic"].out.weight, retain_graph=True, allow_unused=True
        )[0]
        assert (gradient is not None) == learns
        assert torch.autograd.grad(loss, made.head.weight)[0].abs().max() > 0


def test_stream_goes_on_from_shipped_weights(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamingConverter(StreamingConfig(**SIZES))  # type: ignore[arg-type]
    shipped = save_file(model, tmp_path / "stream.safetensors")
    monkeypatch.setattr("rtvc.train.material.stream_data.DEFAULT", shipped)
    made = trainer(
        "stream", config(tmp_path, folder, 1), tmp_path / "run", 'init=[{path="shipped"}]'
    )
    made.begin(resume=False)
    for name in (*stream.PARTS, "encoder"):
        for key, weight in getattr(model, name).state_dict().items():
            assert torch.allclose(made.stage.modules[name].state_dict()[key], weight, atol=1e-3), (
                f"{name}.{key}"
            )


def test_style_encoders_can_stay_as_they_are(tmp_path: Path, folder: Path) -> None:
    weights, top = (
        "embedding = 0.0\nconsistency = 0.0",
        "train_styles = false\nlabels_every = 1\nreference_frames = 48",
    )
    file = config(tmp_path, folder, 2, weights=weights, top=top)
    with pytest.raises(ConfigError, match="weights of acoustic, prosodic, targets in"):
        trainer("stream", file, tmp_path / "none").fit()
    model = StreamingConverter(StreamingConfig(**SIZES))  # type: ignore[arg-type]
    before = save_file(model, tmp_path / "before.safetensors")
    made = trainer("stream", file, tmp_path / "run", f'init=[{{path="{before}"}}]')
    made.fit()
    assert set(load_weights(tmp_path / "run")) == {"decoder", "affine"}
    for name in stream.STYLES:
        for key, weight in made.stage.modules[name].state_dict().items():
            assert torch.allclose(weight, getattr(model, name).state_dict()[key], atol=1e-3)
    trained = made.stage.modules["affine"].state_dict()["weight"]
    assert not torch.allclose(trained, model.affine.weight, atol=1e-4)


def test_pieces_and_references_are_of_one_speaker(tmp_path: Path, folder: Path) -> None:
    made: Any = trainer(
        "stream", config(tmp_path, folder, top="reference_frames = 100"), tmp_path / "run"
    ).stage
    first, again, other = made.batch(5), made.batch(5), made.batch(6)
    assert all(torch.equal(first[name], again[name]) for name in first) and not torch.equal(
        first["wave"], other["wave"]
    )
    for index in range(6):
        batch = made.batch(index)
        voiced, known = batch["voiced"] > 0, batch["reference_voiced"] > 0
        for row in range(3):
            if voiced[row].any() and known[row].any():
                distance = (
                    batch["log_f0"][row][voiced[row]].mean()
                    - batch["reference_f0"][row][known[row]].mean()
                )
                assert distance.abs() < 0.1, "anna and bert are an octave apart"
    assert first["wave"].abs().max() <= 1


def test_the_recipes_parse() -> None:
    for name in ("stream_content", "stream_pitch", "stream", "stream_joint"):
        assert name in STAGES
        kind: Any = stage_type(name)
        settings = load_config(kind.config_type, default_config(name))
        assert settings.model == StreamingConfig(), "the recipe makes what is shipped"


def test_band_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(2, 9600, generator=generator) * 0.1
    low = low_passed(wave, torch.tensor([4000.0, 13_000.0]))
    assert torch.allclose(low[1], wave[1], atol=1e-5)
    spectrum = torch.fft.rfft(low[0]).abs()
    assert spectrum[1600:].max() < 1e-3 < spectrum[:1600].max()
    loss = BandedSTFT()
    cutoff = torch.tensor([3500.0, 3500.0])
    assert loss(wave, wave, cutoff) < 1e-6
    near, far = (
        loss(low_passed(wave, cutoff + 1000), wave, cutoff),
        loss(low_passed(wave, cutoff + 1000), wave, cutoff * 3),
    )
    assert near < 0.1 < 1 < far, "what lies above the cutoff does not count"


def test_manner_of_a_reference() -> None:
    log_f0 = torch.tensor([[5.0, 5.2] * 30, [4.0] * 60])
    voiced = torch.ones(2, 60)
    voiced[1, 15:] = 0
    found = manner(log_f0, voiced, torch.zeros(2, 60))
    assert torch.allclose(found.targets[0], torch.tensor([5.1, 0.1, 0.001]), atol=1e-3)
    assert found.known.tolist() == [1, 0]


def test_the_classifier_learns_and_the_content_unlearns() -> None:
    torch.manual_seed(0)
    classifier = SpeakerClassifier(4, 2)
    content = torch.randn(6, 4, 20, requires_grad=True)
    who = torch.tensor([0, 1, 0, 1, 0, -1])
    loss = classifier.loss(content, who)
    loss.backward()
    with torch.no_grad():
        assert content.grad is not None and content.grad[5].abs().max() == 0, (
            "an unknown speaker does not count"
        )
        assert classifier.loss(content - 0.5 * content.grad, who) > loss, (
            "content moves to where the classifier fails"
        )
        for weight in classifier.parameters():
            weight -= 0.05 * weight.grad
        assert classifier.loss(content, who) < loss


def test_speaker_encoder_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="Resemblyzer"):
        speaker.SpeakerEncoder.pretrained()


def test_speaker_encoder_is_the_packages() -> None:
    pytest.importorskip("librosa")
    pytest.importorskip("resemblyzer")
    import librosa
    from resemblyzer import VoiceEncoder

    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=40)
    assert torch.allclose(
        speaker.slaney_filters(40, 400, 16_000), torch.from_numpy(filters).float(), atol=1e-7
    )
    ours, theirs = speaker.SpeakerEncoder.pretrained(), VoiceEncoder("cpu", verbose=False)
    time = torch.arange(38_400) / 24_000
    wave = (
        torch.stack([torch.sin(2 * torch.pi * 140 * k * time) / k for k in range(1, 20)]).sum(0)
        * 0.1
    )
    wave = wave * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * time))
    at_16k = torch.nn.functional.interpolate(wave[None, None], 25_600, mode="linear")[0, 0].numpy()
    mel = librosa.feature.melspectrogram(
        y=at_16k, sr=16_000, n_fft=400, hop_length=160, n_mels=40
    ).T
    with torch.no_grad():
        reference = theirs(torch.from_numpy(mel).float()[None])[0]
        found = ours(wave[None])[0]
    assert torch.dot(reference, found) > 0.97
    sound = wave[None].clone().requires_grad_()
    (ours(sound) * torch.arange(256)).sum().backward()
    assert (
        sound.grad is not None
        and sound.grad.abs().max() > 0
        and not any(p.requires_grad for p in ours.parameters())
    )
