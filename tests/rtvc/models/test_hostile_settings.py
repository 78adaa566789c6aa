"""Runs, engines and configurations that a stranger wrote, and what of them a terminal is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import converter, facts

from rtvc.engine.graph.manifest import FORMAT, MANIFEST, read_manifest
from rtvc.engine.identity import check
from rtvc.errors import CheckpointError, ConfigError, EngineError, RtvcError, TrainingError
from rtvc.models.streaming import StreamingConfig, StreamingConverter
from rtvc.printable import printable
from rtvc.train.config import load_config
from rtvc.train.registry import make_stage
from rtvc.train.state import Checkpoints
from rtvc.train.streaming.stream_config import StreamConfig
from tests.support.train_toy import ToyConfig


def test_a_damaged_note_costs_a_checkpoint_and_not_the_run(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(1, {"x": torch.ones(1)})
    whole = (kept.folder / "step-00000001.json").read_text()
    for number, note in enumerate(
        [
            "[]",
            "[" * 100_000,
            '{"bytes": "many"}',
            " " * 100_000,
            whole.replace('"bytes": ', '"bytes": 1'),
        ],
        2,
    ):
        (kept.folder / f"step-0000000{number}.json").write_text(note)
        (kept.folder / f"step-0000000{number}.pt").write_bytes(
            (kept.folder / "step-00000001.pt").read_bytes()
        )
    (kept.folder / "step-².json").write_text("{}")
    found = kept.latest()
    assert found is not None and found[0] == 1 and len(found[2]) == 5
    (kept.folder / "step-00000001.json").unlink()
    with pytest.raises(TrainingError, match="no checkpoint of this run can be read"):
        kept.latest()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chunk": 10**9}, "chunk = 1000000000: Input should be less than or equal to 48000"),
        ({"chunk": 0}, "chunk = 0: Input should be greater than or equal to 1"),
        ({"chunk": 601}, "a chunk of 601 samples is not a multiple of the hop 300"),
        ({"answer": [0.0] * 33}, "at most 32 items"),
        ({"answer": []}, "another version of the model's code"),
        ({"answer": [0.0]}, "another version of the model's code"),
        ({"files": {"../../../etc/passwd": "0" * 64}}, "files.../../../etc/passwd"),
        ({"files": {"/dev/zero": "0" * 64}}, "files./dev/zero"),
        ({"files": {"a": "x"}}, "files.a = 'x'"),
        ({"backend": "\x1b[2J"}, r"expected a backend .*, got '\\x1b\[2J'"),
        ({"target": {"batch": [1, 1, 10**9]}}, "target.batch.2 = 1000000000"),
    ],
)
def test_an_engine_whose_manifest_says_what_no_engine_is_is_refused(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    (tmp_path / "step.onnx").write_bytes(b"")
    (tmp_path / MANIFEST).write_text(json.dumps(facts()))
    check(read_manifest(tmp_path), converter(), tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps(facts() | change))
    with pytest.raises(EngineError, match=says):
        check(read_manifest(tmp_path), converter(), tmp_path)


def test_manifests_that_are_no_json_object_are_damaged(tmp_path: Path) -> None:
    for text in (
        "[]",
        "[" * 100_000,
        "null",
        "\xff",
        f'{{"format": {FORMAT}, "answer": [NaN]}}',
        '{"format": "x"}',
        " " * 300_000,
    ):
        (tmp_path / MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(EngineError, match=r"is damaged|expected at most 262144 bytes"):
            read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = " + "[" * 3000 + "]" * 3000, "is not TOML: it nests values deeper than 16"),
        ("seed = " + "[" * 20 + "]" * 20, "is not TOML: it nests values deeper than 16"),
        ("seed = 1" + "0" * 30, "expected numbers from -9007199254740992 to .*, got 1000"),
        ("[optimizer]\nlr = nan", "expected numbers .*, got nan"),
        (
            "[data]\nbatch = 1000000000",
            "data.batch = 1000000000: Input should be less than or equal to 65536",
        ),
        (
            "[model]\ncontent_hidden = 1000000",
            "model.content_hidden = 1000000: Input should be less than or equal to 4096",
        ),
        ('"\\u001b[2J" = 1', r"unknown key '\\\\x1b\[2J'"),
        ("#" * 1_100_000, "expected at most 1048576 bytes, got 1100000"),
    ],
)
def test_run_configurations_are_bounded(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_config(StreamConfig, tmp_path / "c.toml")


def test_overrides_are_bounded_as_files_are(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("")
    for override in ("seed=" + "[" * 3000 + "]" * 3000, "optimizer.lr=inf", "seed=1e300"):
        with pytest.raises(ConfigError, match=r"--set .*(nests|expected numbers)"):
            load_config(ToyConfig, tmp_path / "c.toml", [override])


def test_sizes_that_go_into_no_model_are_a_mistake_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(config: Any) -> Any:
        return StreamingConverter(config.model)

    monkeypatch.setattr("rtvc.train.registry.stage_type", lambda name: build)
    config: Any = type("Config", (), {"model": StreamingConfig(right=64)})()
    with pytest.raises(
        ConfigError, match=r"a look-ahead of 64 frames .*: change those under \[model\]"
    ):
        make_stage("stream", config)


# ------------------------------------------------------------ the terminal


def test_what_a_terminal_obeys_is_shown_with_escapes() -> None:
    assert printable("Änne 🎤 [b]") == "Änne 🎤 [b]"
    assert printable("\x1b[2J\x07\r\n\ud800\u202e\x9b") == r"\x1b[2J\x07\r\n\ud800\u202e\x9b"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert printable("x" * 300) == "x" * 199 + "…" and printable(None) == "None"


def test_every_error_is_printable_whatever_it_quotes() -> None:
    error = CheckpointError("a\x1b]0;title\x07 \ud800\nsecond line")
    assert str(error) == "a\\x1b]0;title\\x07 \\ud800\nsecond line"
    assert str(error).encode() and isinstance(error, RtvcError)
    assert len(str(ConfigError("x" * 10**6))) == 10_000
