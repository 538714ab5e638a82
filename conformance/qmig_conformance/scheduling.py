"""Which worker plays what: all cases of a group on one (`plugin.group_of`)."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from qmig_conformance.plugin import group_of


class _ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """Scopes are groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def by_group(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The scheduler of a run."""
    return _ByGroup(config, log)
