"""Whether a picture shows what is not wanted: its embedding against those of texts, in CLIP's space.

How alike a text and a picture are means little by itself, for every CLIP has another scale. What counts is how far a concept stands out among
everyday ones: the number of standard deviations above their mean.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.similar import vector_of

STRICTNESS = {"low": 2.5, "middle": 2.0, "high": 1.5}
"""Standard deviations from which on a picture shows a concept. Of the bundled model's 32 objects, low finds 68 %, middle 96 % and high 99 %; of what
shows something else, each is wrong in 0.0 %, 0.2 % and 2.1 % (python -m tests.benchmarks.concepts)."""


def shown(picture: bytes, concepts: Mapping[str, bytes], everyday: Sequence[bytes], threshold: float) -> list[str]:
    """Return which concepts a picture shows; all are embeddings of one space, see `engine.jobs.Picture`."""
    if not concepts or not everyday:
        return []
    seen = vector_of(picture)
    usual = np.stack([vector_of(embedding) for embedding in everyday]) @ seen
    spread = float(usual.std()) or 1.0
    return [text for text, embedding in concepts.items() if (float(vector_of(embedding) @ seen) - float(usual.mean())) / spread > threshold]
