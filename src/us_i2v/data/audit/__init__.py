"""What is in a data set and what is wrong with it: `audit`, its report and its plot."""

from us_i2v.data.audit.auditing import Audit, audit
from us_i2v.data.audit.findings import NOTES, PROBLEMS, Finding
from us_i2v.data.audit.plot import require_matplotlib, write_plot
from us_i2v.data.audit.records import MaskRecord, Record
from us_i2v.data.audit.report import summary, write_report
from us_i2v.data.audit.text import BurnedIn, find_burned_in

__all__ = [
    "NOTES",
    "PROBLEMS",
    "Audit",
    "BurnedIn",
    "Finding",
    "MaskRecord",
    "Record",
    "audit",
    "find_burned_in",
    "require_matplotlib",
    "summary",
    "write_plot",
    "write_report",
]
