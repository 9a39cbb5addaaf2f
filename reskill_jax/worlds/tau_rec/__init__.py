"""tau-Rec: recommending a film to a user whose wishes have to be asked for, under rules."""

from .benchmark import TauRec
from .catalog import TauRecError
from .world import TauRecWorld

__all__ = ["TauRec", "TauRecError", "TauRecWorld"]
