"""What must be true before any test imports anything."""

import os
import random
import signal
import sys

import pytest

os.environ["TRITON_INTERPRET"] = (
    "1"  # read when Triton is first imported: kernels run on the CPU, one Python program a block
)

LONGEST = (
    *("test_recipes.py", "test_ray_app.py", "test_tensorrt.py", "test_tensorrt_compile.py"),
    *("test_limiter.py", "test_train_stages.py", "test_teacher_real.py", "test_kernel_ahead.py"),
)
"""The files that take longest go first, so that neither of two processes waits for the other."""

for interrupt in ("SIGINT", "SIGHUP"):
    number = getattr(signal, interrupt, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        # A shell that starts the tests in the background, or nohup, makes them deaf, and what they
        # start as well. With a handler here, programs that are started hear it again.
        signal.signal(
            number, signal.default_int_handler if interrupt == "SIGINT" else lambda *_: None
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, and leaves the order of the others."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def the_same_numbers() -> None:
    """Random numbers that a test takes without a seed of its own are the same in every run, so that
    a failure can be had again."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
