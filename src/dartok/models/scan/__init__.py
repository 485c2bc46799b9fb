"""The selective scan of Mamba: one meaning, several ways to compute it."""

from dartok.models.scan.dispatch import ScanName, scan_of, selective_scan
from dartok.models.scan.reference import reference_scan

__all__ = ["ScanName", "reference_scan", "scan_of", "selective_scan"]
