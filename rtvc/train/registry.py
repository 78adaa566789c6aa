"""The stages by name, imported only when one is run."""

import importlib
from pathlib import Path

from rtvc.errors import ConfigError
from rtvc.tensorfile import first_line
from rtvc.train.config import RunConfig, nearest
from rtvc.train.stage import Stage

STAGES = {
    "pitch": "rtvc.train.stages.pitch:Pitch",
    "aligner": "rtvc.train.stages.aligner:Aligner",
    "stage1": "rtvc.train.stages.stage1:Stage1",
    "stage2": "rtvc.train.stages.stage2:Stage2",
    "stage2_styletts2": "rtvc.train.stages.stage2_styletts2:Stage2StyleTTS2",
    "finetune": "rtvc.train.stages.finetune:Finetune",
    "bridge": "rtvc.train.streaming.bridge:Bridge",
    "units": "rtvc.train.streaming.units:Units",
    "phonemes": "rtvc.train.streaming.phonemes:Phonemes",
    "judge": "rtvc.train.streaming.judge:Judge",
    "joint": "rtvc.train.streaming.joint:Joint",
    "melody": "rtvc.train.streaming.melody:Melody",
    "stream_content": "rtvc.train.streaming.stream_content:StreamContent",
    "stream_pitch": "rtvc.train.streaming.stream_pitch:StreamPitch",
    "stream": "rtvc.train.streaming.stream:Stream",
    "stream_joint": "rtvc.train.streaming.stream:Stream",
    "stream_voice": "rtvc.train.streaming.stream_voice:StreamVoice",
}
"""Name -> module and class."""


def stage_type(name: str) -> type[Stage]:
    """The class of a stage.

    Raises:
        ConfigError: there is no such stage.
    """
    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}; {nearest(name, list(STAGES))}")
    module, _, kind = STAGES[name].partition(":")
    stage: type[Stage] = getattr(importlib.import_module(module), kind)
    return stage


def make_stage(name: str, config: RunConfig) -> Stage:
    """A stage of a configuration.

    Raises:
        ConfigError: sizes that go into no model.
        RtvcError: whatever the stage has to say of its data.
    """
    try:
        return stage_type(name)(config)  # type: ignore[call-arg]
    except (
        ArithmeticError,
        AssertionError,
        ValueError,
    ) as error:  # layers complain of impossible sizes in their own ways
        raise ConfigError(
            f"the sizes of the configuration go into no model ({first_line(error)}): change those"
            " under [model]"
        ) from error


def default_config(name: str) -> Path:
    """The stage's recipe for real data, which ships with the package."""
    return Path(__file__).parent / "configs" / f"{name}.toml"
