"""Loading and saving components: the authors' `.pth` files and safetensors."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rtvc.errors import CheckpointError
from rtvc.models.build import BUILDERS, build
from rtvc.models.loading import filled, listed, misfits
from rtvc.models.read_checkpoint import StrPath, read_states
from rtvc.models.styletts_vc.converter import NEEDED, VoiceConversion


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        components: modules by the authors' names, in evaluation mode.
        skipped: what else the file names, for which there is no module here (as `bert`).
    """

    components: dict[str, nn.Module]
    skipped: tuple[str, ...]


def load_checkpoint(path: StrPath) -> Checkpoint:
    """Builds every known component of a file, at the sizes of its weights.

    Args:
        path: the authors' `.pth` or `.t7`, of a whole model, a text aligner, a pitch extractor or a
            vocoder, or safetensors.

    Raises:
        CheckpointError: the file is missing, truncated, foreign or hostile, or its tensors do not
            fit.
    """
    states = read_states(path)
    known = {name: state for name, state in states.items() if name in BUILDERS}
    if not known:
        raise CheckpointError(
            f"{path} holds {listed(list(states))}, none of them a component of StyleTTS-VC or"
            " StyleTTS 2: give another file"
        )
    modules, complaints = {}, []
    for name, state in known.items():
        try:
            module = build(name, state)
        except CheckpointError as error:
            raise CheckpointError(f"{path} does not fit its models: {error}") from error
        complaints += [f"`{name}`: {complaint}" for complaint in misfits(module, state)]
        modules[name] = module
    if complaints:
        raise CheckpointError(f"{path} does not fit its models: {'; '.join(complaints)}")
    for name, module in modules.items():
        filled(module, known[name], f"`{name}` of {path}")
    return Checkpoint(modules, tuple(name for name in states if name not in known))


def load_converter(path: StrPath) -> VoiceConversion:
    """StyleTTS-VC as a voice converter, from the authors' checkpoint.

    A vocoder is taken from the same file, or from `vocoder.pth` or `vocoder.safetensors` beside it;
    without one, phases are estimated (Griffin-Lim), which is intelligible but not clean.

    Raises:
        CheckpointError: as `load_checkpoint`, or a component that conversion needs is not there.
    """
    components = load_components(path)
    beside = [
        file
        for file in (
            Path(path).with_name("vocoder.pth"),
            Path(path).with_name("vocoder.safetensors"),
        )
        if file.is_file()
    ]
    if "vocoder" not in components and beside:
        components |= {
            name: module for name, module in load_components(beside[0]).items() if name == "vocoder"
        }
    if missing := [name for name in NEEDED if name not in components]:
        raise CheckpointError(
            f"{path} holds {', '.join(components)} and no {', '.join(missing)}: voices are"
            " converted by checkpoints of StyleTTS-VC; other components can be had by"
            " rtvc.models.checkpoints.load_components"
        )
    return VoiceConversion(components)


def load_components(path: StrPath) -> dict[str, nn.Module]:
    """`load_checkpoint(path).components`."""
    return load_checkpoint(path).components
