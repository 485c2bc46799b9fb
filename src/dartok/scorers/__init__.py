"""Networks and rules that map images to score maps."""

from dartok.scorers.build import create_scorer, list_scorers
from dartok.scorers.calibration import calibrate, calibrate_num_tokens
from dartok.scorers.detail import DetailScorer
from dartok.scorers.edges import ConvScorer, EdgeScorer, Uniform, log_edge_energy
from dartok.scorers.features import FeatureScorer
from dartok.scorers.heads import GatedHead, LocalHead
from dartok.scorers.motion import MotionScorer
from dartok.scorers.statistics import ScoreStatistics
from dartok.scorers.tokenizer import RegionTokenizer

__all__ = [
    "ConvScorer",
    "DetailScorer",
    "EdgeScorer",
    "FeatureScorer",
    "GatedHead",
    "LocalHead",
    "MotionScorer",
    "RegionTokenizer",
    "ScoreStatistics",
    "Uniform",
    "calibrate",
    "calibrate_num_tokens",
    "create_scorer",
    "list_scorers",
    "log_edge_energy",
]
