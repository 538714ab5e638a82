"""`verify`: every invariant of the legacy chapters that a recording can show, as a table of rules.

`Verifier` takes the events of all channels; `RULES` says what is checked, for which streams, and by whom.
"""

from qmig.legacy.verify.facts import Facts, Known, Version, version_of
from qmig.legacy.verify.findings import KEPT, Finding, Outcome, Report, Severity, Status
from qmig.legacy.verify.rules import By, Rule, When
from qmig.legacy.verify.verifier import NOT_SHOWN, RULES, Verifier, all_rules

__all__ = [
    "By",
    "Facts",
    "Finding",
    "KEPT",
    "Known",
    "NOT_SHOWN",
    "Outcome",
    "RULES",
    "Report",
    "Rule",
    "Severity",
    "Status",
    "Verifier",
    "Version",
    "When",
    "all_rules",
    "version_of",
]
