"""What stage `joint` makes of a batch."""

from dataclasses import dataclass

from torch import Tensor

from rtvc.train.losses.opponents import JudgedWave
from rtvc.train.losses.prosody_targets import Prosody


@dataclass
class Encoded:
    """A batch before anything is decoded: content, energy, and the styles of its references."""

    content: Tensor  # (B, Z, T)
    energy: Tensor  # (B, 2, T)
    acoustic: Tensor  # (B, A)
    prosodic: Tensor  # (B, 128)
    prosody: Prosody


@dataclass
class Outputs:
    """What the model decodes of a batch, kept in it from the discriminators' phase to the
    converter's."""

    encoded: Encoded
    reconstruction: JudgedWave
    """In the speaker's own voice."""
    target: JudgedWave
    """As recorded."""
    conversion: JudgedWave | None
    """In the voice of another row; None while the decoder is too rough for it."""

    def fakes(self) -> list[JudgedWave]:
        """What the discriminators tell from recordings; the reconstruction first."""
        converted = [] if self.conversion is None else [self.conversion]
        return [self.reconstruction, *converted]
