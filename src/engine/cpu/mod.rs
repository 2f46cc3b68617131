//! The CPU engine in f32.
