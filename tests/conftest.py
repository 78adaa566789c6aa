"""What must be true before any test imports anything."""

import os

os.environ["TRITON_INTERPRET"] = (
    "1"  # read when Triton is first imported: kernels run on the CPU, one Python program a block
)
