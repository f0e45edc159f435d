"""The loopback Hub, for what is pushed in the end."""

from tests.hub.conftest import hub  # noqa: F401
