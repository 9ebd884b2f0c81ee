"""Small real data shipped with the package: NOTICE names their sources and licences."""

from pathlib import Path

SAMPLES = Path(__file__).parent
