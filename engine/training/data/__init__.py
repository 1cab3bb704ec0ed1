"""Pictures and captions for training: from a folder or img2dataset's output to shards, and from shards to samples."""

from engine.training.data.layouts import Sample, Samples

__all__ = ["Sample", "Samples"]
