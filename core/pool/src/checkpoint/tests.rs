//! Whole checkpoints.
