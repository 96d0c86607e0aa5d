"""The embedded miniature benchmark: procedural scenes with ten kinds of edits."""
