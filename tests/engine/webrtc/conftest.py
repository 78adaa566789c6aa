"""What tests of calls share."""

import pytest

from rtvc.engine.webrtc.door import Door


@pytest.fixture
def doors(monkeypatch):
    """The doors that are made, to look behind."""
    made = []
    initial = Door.__init__

    def remember(self, service):
        initial(self, service)
        made.append(self)

    monkeypatch.setattr(Door, "__init__", remember)
    return made
