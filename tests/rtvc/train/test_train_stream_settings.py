"""What the streaming decoder's stage refuses, and what its switches do."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.errors import ConfigError
from rtvc.models.streaming.assets import save_file
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.train.state import load_weights
from rtvc.train.streaming import stream
from rtvc.train.streaming.stream_config import PARTS, STYLES
from tests.support.small_models import SIZES
from tests.support.stream_stages import Stand, config
from tests.support.train_runs import begin


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SpeakerEncoder", Stand)


def test_stream_needs_an_encoder_that_has_learnt(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="stream_content"):
        begin("stream", config(tmp_path, folder), tmp_path / "run").fit()


def test_output_matching_needs_something_heard(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="labels_every"):
        begin(
            "stream",
            config(tmp_path, folder, weights="matching = 0.1", top="labels_every = 1"),
            tmp_path / "run",
        )


def test_a_foreign_voice_is_asked_for_in_its_own_register(
    tmp_path: Path, folder: Path, content_run: Path
) -> None:
    weights = "foreign = 1.0\nmatching = 0.0\nembedding = 0.0\nconsistency = 0.0"
    top = f'init = [{{path = "{content_run}"}}]\nreference_frames = 96'
    made: Any = begin(
        "stream", config(tmp_path, folder, 2, weights=weights, top=top), tmp_path / "run"
    ).stage
    batch = made.forward(made.batch(1), 1)
    decoded = []
    decode, made.decoded = (
        made.decoded,
        lambda part, content, batch, style: (
            decoded.append(batch) or decode(part, content, batch, style)
        ),
    )
    assert set(made.converted(batch)) == {"foreign"}
    own = batch["prosody"]
    assert own.known.all() and own.targets[:, 0].std() > 0.01, "speakers of different registers"
    moved = decoded[0]["log_f0"] - batch["log_f0"]
    assert torch.allclose(
        moved, (own.targets[:, 0].roll(1) - own.targets[:, 0])[:, None].expand_as(moved), atol=1e-5
    )
    batch["prosody"] = own._replace(known=torch.zeros_like(own.known))
    made.converted(batch)
    assert torch.equal(decoded[1]["log_f0"], batch["log_f0"]), "nobody's register is known"


def test_only_the_head_learns_from_embeddings_at_first(tmp_path: Path, folder: Path) -> None:
    top = "labels_every = 1\nhead_steps = 3\nreference_frames = 48"
    made: Any = begin("stream", config(tmp_path, folder, top=top), tmp_path / "run").stage
    for step, learns in ((0, False), (3, True)):
        loss = made.losses("generator", made.batch(0), step)["embedding"]
        gradient = torch.autograd.grad(
            loss, made.modules["acoustic"].out.weight, retain_graph=True, allow_unused=True
        )[0]
        assert (gradient is not None) == learns
        assert torch.autograd.grad(loss, made.head.weight)[0].abs().max() > 0


def test_stream_goes_on_from_the_first_generation(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamingConverter(StreamingConfig(**SIZES))  # type: ignore[arg-type]
    first = save_file(model, tmp_path / "first.safetensors")
    monkeypatch.setattr("rtvc.train.material.stream_data.FIRST", first)
    made = begin("stream", config(tmp_path, folder, 1), tmp_path / "run", 'init=[{path="first"}]')
    made.begin(resume=False)
    for name in (*PARTS, "encoder"):
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
        begin("stream", file, tmp_path / "none").fit()
    model = StreamingConverter(StreamingConfig(**SIZES))  # type: ignore[arg-type]
    before = save_file(model, tmp_path / "before.safetensors")
    made = begin("stream", file, tmp_path / "run", f'init=[{{path="{before}"}}]')
    made.fit()
    assert set(load_weights(tmp_path / "run")) == {"decoder", "affine"}
    for name in STYLES:
        for key, weight in made.stage.modules[name].state_dict().items():
            assert torch.allclose(weight, getattr(model, name).state_dict()[key], atol=1e-3)
    trained = made.stage.modules["affine"].state_dict()["weight"]
    assert not torch.allclose(trained, model.affine.weight, atol=1e-4)


def test_pieces_and_references_are_of_one_speaker(tmp_path: Path, folder: Path) -> None:
    made: Any = begin(
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
