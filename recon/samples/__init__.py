"""Sample data shipped with the package, small and real; NOTICE names their sources and licences."""

from pathlib import Path

SAMPLES = Path(__file__).parent
