"""What tests of TensorRT share."""

from typing import Any

import pytest

from tests.support.converters import TinyConverter


@pytest.fixture(scope="module")
def converter() -> Any:
    """Small and quick to build."""
    return TinyConverter().eval()
