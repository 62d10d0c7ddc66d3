//! Sinks, filters and renderings of a trail.
