//! A straightforward float64 implementation that shares no kernel with the f32 engines.
