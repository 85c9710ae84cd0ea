"""The independent checker of a destination; nothing of it is shared with what writes one."""

from covseg.verify.check import Verdict, verify

__all__ = ["Verdict", "verify"]
